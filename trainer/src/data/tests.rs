//! What a run relies on: parts that are apart, the same for everyone, and batches that depend on nothing but their name.

use std::collections::BTreeSet;

use super::prepare::{prepare_section, statistics};
use super::split::draw;
use super::{Prepared, RawBatch, Samples, UNLABELLED, Values, order, scale};
use crate::recipe::{Data, Normalize};
use crate::rng::Purpose;

/// The embedded digits, as they are.
pub(crate) fn digits() -> Data {
    Data {
        format: "digits".into(),
        path: "".into(),
        read: None,
        normalize: Normalize::Unit,
        subset: 1.0,
        exclude_classes: vec![],
        validation: 0.0,
        labelled: 1.0,
        augment: vec![],
    }
}

pub(crate) fn prepared(section: &Data, seed: u64) -> Prepared {
    prepare_section(section, seed).unwrap()
}

/// Every sample with its label, to be compared as a set.
fn rows(samples: &Samples) -> Vec<(usize, Vec<u8>)> {
    let Values::U8(bytes) = &samples.values else { panic!("digits are bytes") };
    samples.labels.iter().copied().zip(bytes.chunks(64).map(<[u8]>::to_vec)).collect()
}

fn count(samples: &Samples, class: usize) -> usize {
    samples.labels.iter().filter(|&&label| label == class).count()
}

#[test]
fn drawn_parts_are_stratified_disjoint_and_depend_on_the_seed() {
    let labels: Vec<usize> = (0..600).map(|i| if i % 6 == 0 { 2 } else { i % 2 }).collect();
    let places: Vec<usize> = (0..600).collect();
    let tenth = |seed| draw(&labels, &places, seed, Purpose::Validation, |n| n / 10);
    let (drawn, rest) = tenth(1);
    assert_eq!(tenth(1), (drawn.clone(), rest.clone()));
    assert_ne!(tenth(2).0, drawn);
    let mut all = [drawn.clone(), rest].concat();
    all.sort_unstable();
    assert_eq!(all, places);
    for class in 0..3 {
        let of = |places: &[usize]| places.iter().filter(|&&place| labels[place] == class).count();
        assert_eq!(of(&drawn), of(&places) / 10, "class {class}");
    }
    // Another purpose is another choice.
    assert_ne!(draw(&labels, &places, 1, Purpose::Subset, |n| n / 10).0, drawn);
}

#[test]
fn an_order_is_a_permutation_of_its_epoch() {
    let mut first = order(50, 3, 1);
    assert_eq!(first, order(50, 3, 1));
    assert_ne!(first, order(50, 3, 2));
    assert_ne!(first, order(50, 4, 1));
    first.sort_unstable();
    assert_eq!(first, (0..50).collect::<Vec<_>>());
}

#[test]
fn samples_are_bytes_until_a_value_is_none() {
    let mut samples = Samples::new(2);
    samples.push(&[0.0, 255.0], 1);
    assert_eq!(samples.values, Values::U8(vec![0, 255]));
    samples.push(&[0.5, -1.0], 0);
    assert_eq!(samples.values, Values::F32(vec![0.0, 255.0, 0.5, -1.0]));
    let mut batch = RawBatch::default();
    samples.gather(&[1, 0], &mut batch);
    assert_eq!((batch.values, batch.labels), (vec![0.5, -1.0, 0.0, 255.0], vec![0, 1]));
    assert_eq!(samples.take(&[1]).values, Values::F32(vec![0.5, -1.0]));
}

#[test]
fn the_parts_of_a_data_set_are_apart_and_the_same_for_one_seed() {
    let whole = prepared(&digits(), 1);
    assert_eq!([whole.train.len(), whole.validation.len(), whole.test.len()], [1438, 0, 359]);
    let one = 64 + size_of::<usize>();
    assert_eq!(whole.bytes(), [1797 * one, (1797 + 1438) * one], "pixels of a byte and a label");
    let section = Data { subset: 0.5, validation: 0.2, exclude_classes: vec!["3".into()], ..digits() };
    let parts = prepared(&section, 1);
    let (train, validation) = (rows(&parts.train), rows(&parts.validation));
    let all: BTreeSet<_> = rows(&whole.train).into_iter().collect();
    let both: BTreeSet<_> = train.iter().chain(&validation).cloned().collect();
    assert!(both.is_subset(&all));
    assert_eq!(both.len(), train.len() + validation.len(), "a sample is in one part only");
    for class in 0..10 {
        let n = if class == 3 { 0 } else { count(&whole.train, class) };
        let kept = (0.5 * n as f64).round();
        let held_out = (0.2 * kept).round();
        let found = (count(&parts.train, class), count(&parts.validation, class), count(&parts.test, class));
        let expected = ((kept - held_out) as usize, held_out as usize, count(&whole.test, class));
        assert_eq!(found, expected, "class {class}");
    }
    assert_eq!(parts.contract.output.classes.len(), 10, "an excluded class is still an output");
    let every = prepared(&Data { exclude_classes: vec![], ..section.clone() }, 1);
    let held_out: BTreeSet<_> = rows(&every.validation).into_iter().collect();
    let is_held_out = rows(&parts.validation).iter().all(|row| held_out.contains(row));
    assert!(is_held_out, "what is held out of a class does not depend on the others");
    let again = prepared(&section, 1);
    assert_eq!((again.train, again.validation), (parts.train, parts.validation));
    assert_ne!(rows(&prepared(&section, 2).validation), validation);
}

#[test]
fn a_share_of_each_class_keeps_its_label_and_the_samples_are_the_same() {
    let section = Data { validation: 0.2, ..digits() };
    let (whole, data) = (prepared(&section, 1), prepared(&Data { labelled: 0.1, ..section.clone() }, 1));
    assert_eq!(
        (&data.train.values, &data.validation, &data.test),
        (&whole.train.values, &whole.validation, &whole.test)
    );
    let known = data.train.labelled();
    for class in 0..10 {
        assert_eq!(count(&known, class), (0.1 * count(&whole.train, class) as f64).round() as usize, "class {class}");
    }
    let is_hidden = |(&label, &before): (&usize, &usize)| label == before || label == UNLABELLED;
    assert!(data.train.labels.iter().zip(&whole.train.labels).all(is_hidden));
    assert_eq!(count(&data.train, UNLABELLED) + known.len(), whole.train.len());
    let all: BTreeSet<_> = rows(&whole.train).into_iter().collect();
    assert!(rows(&known).iter().all(|row| all.contains(row)), "labels stay with their samples");
    let few = prepared(&Data { labelled: 1e-6, ..section }, 1);
    assert_eq!(few.train.labelled().len(), 10, "one of each class at least");
    assert_eq!(*whole.train.labelled(), whole.train);
}

#[test]
fn contracts_scale_as_the_recipe_says() {
    for (normalize, range) in [(Normalize::None, 16.0), (Normalize::Unit, 1.0)] {
        let data = prepared(&Data { normalize, ..digits() }, 1);
        let (mut batch, mut x) = (RawBatch::default(), Vec::new());
        data.train.gather(&(0..data.train.len()).collect::<Vec<_>>(), &mut batch);
        scale(&data.contract, &batch.values, &mut x);
        let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        assert_eq!((low, high), (0.0, range));
    }
    // The statistics are those of the training samples that are left.
    let section = Data { normalize: Normalize::Standard, subset: 0.1, ..digits() };
    let data = prepared(&section, 1);
    let (mut batch, mut x) = (RawBatch::default(), Vec::new());
    data.train.gather(&(0..data.train.len()).collect::<Vec<_>>(), &mut batch);
    scale(&data.contract, &batch.values, &mut x);
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
}

#[test]
fn a_sample_may_be_normalized_by_itself() {
    let section = Data { normalize: Normalize::Sample, subset: 0.1, ..digits() };
    let data = prepared(&section, 1);
    let (mut batch, mut x) = (RawBatch::default(), Vec::new());
    data.train.gather(&[0, 5], &mut batch);
    scale(&data.contract, &batch.values, &mut x);
    for sample in x.chunks(x.len() / 2) {
        let mean = sample.iter().map(|&v| f64::from(v)).sum::<f64>() / sample.len() as f64;
        let square = sample.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / sample.len() as f64;
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "{mean} {square}");
    }
}

#[test]
fn statistics_are_those_of_each_channel_and_a_constant_one_is_not_stretched() {
    let mut samples = Samples::new(6);
    samples.push(&[1.0, 3.0, -10.0, 10.0, 0.7, 0.7], 0);
    samples.push(&[5.0, 7.0, 10.0, -10.0, 0.7, 0.7], 1);
    let (mean, std) = statistics(&samples, 3, 0.5);
    assert_eq!((&mean[..2], &std[..2]), (&[2.0, 0.0][..], &[1.25_f32.sqrt(), 5.0][..]));
    assert_eq!((mean[2], std[2]), (0.35, 1.0));
}

#[test]
fn a_table_is_standardized_column_by_column() {
    let folder = std::env::temp_dir().join(format!("kd-columns-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let table = "income,age,label\n100000,0.25,a\n300000,0.75,b\n";
    ["train.csv", "test.csv"].iter().for_each(|name| std::fs::write(folder.join(name), table).unwrap());
    let section = Data { format: "csv".into(), path: folder.clone(), normalize: Normalize::Standard, ..digits() };
    let data = prepared(&section, 1);
    let refused = prepare_section(&Data { normalize: Normalize::Sample, ..section }, 1).err();
    let refusal = refused.map(|refusal| refusal.to_string()).unwrap_or_default();
    std::fs::remove_dir_all(folder).unwrap();
    assert!(
        refusal.starts_with("data.normalize = \"sample\": expected series, sound or images, found a table"),
        "{refusal}"
    );
    assert_eq!((&data.contract.input.mean, &data.contract.input.std), (&vec![2e5, 0.5], &vec![1e5, 0.25]));
    let (mut batch, mut x) = (RawBatch::default(), Vec::new());
    data.train.gather(&[0, 1], &mut batch);
    scale(&data.contract, &batch.values, &mut x);
    x.sort_by(f32::total_cmp);
    assert_eq!(x, [-1.0, -1.0, 1.0, 1.0]);
}

#[test]
fn refuses_classes_and_shares_that_leave_nothing() {
    let everything: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    let cases = [
        (Data { exclude_classes: vec!["33".into()], ..digits() }, "found `33`; did you mean `3`?"),
        (Data { exclude_classes: everything, ..digits() }, "data: expected training samples, found none"),
        (Data { validation: 1e-4, ..digits() }, "data.validation: expected validation samples, found none"),
        (Data { format: "digit".into(), ..digits() }, "did you mean `digits`?"),
    ];
    for (section, expected) in cases {
        let message = prepare_section(&section, 1).err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}
