//! What a run relies on: parts that are apart, the same for everyone, and batches that depend on nothing but their name.

use super::split::draw;
use super::{Samples, Values, order};
use crate::rng::Purpose;

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
    let mut batch = super::RawBatch::default();
    samples.gather(&[1, 0], &mut batch);
    assert_eq!((batch.values, batch.labels), (vec![0.5, -1.0, 0.0, 255.0], vec![0, 1]));
    assert_eq!(samples.take(&[1]).values, Values::F32(vec![0.5, -1.0]));
}
