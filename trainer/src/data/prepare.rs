//! From a recipe's `[data]` to samples in memory and the contract of the networks that are made for them.

use kd_runtime::backend::available_bytes;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::{Dataset, Description, Sample, Source, Split};
use kd_runtime::error::Exit;
use kd_runtime::nearest::nearest;
use kd_runtime::{Refusal, Result};

use super::split::draw;
use super::{Prepared, RawBatch, Samples, UNLABELLED, reading};
use crate::recipe::{Data, Normalize, Recipe};
use crate::rng::Purpose;

/// Opens, checks, splits (by `recipe.run.seed`: validation and subset are the same for every arm and seed) and loads the
/// data. Refuses excluded classes that do not exist, parts left empty, and more memory than there is.
///
/// Classes are left out first, then the subset is drawn (at least one sample of each class), then the validation samples
/// (never the last one of a class), then the training samples that keep their label (at least one of each class). Labels keep their numbers, so excluded classes stay outputs of the networks.
pub fn prepare(recipe: &Recipe) -> Result<Prepared> {
    prepare_section(&recipe.data, recipe.run.seed)
}

/// [`prepare`] of one section.
pub(super) fn prepare_section(section: &Data, seed: u64) -> Result<Prepared> {
    let reading = section.read.as_ref().map(reading::build).transpose()?;
    let data = Source { format: section.format.clone(), path: section.path.clone(), reading }.open()?;
    let description = data.description().clone();
    check_room(&description)?;
    let excluded = excluded(section, &description)?;
    let all = read(&*data, Split::Train)?;
    let test = read(&*data, Split::Test)?;
    let (train, validation) = split(&all.labels, section, &excluded, seed);
    check_parts(section, [train.len(), validation.len(), test.len()])?;
    let (mut train, validation) = (all.take(&train), all.take(&validation));
    let places: Vec<usize> = (0..train.len()).collect();
    let labelled = |n: usize| share(section.labelled, n).max(1);
    let (_, hidden) = draw(&train.labels, &places, seed, Purpose::Labelled, labelled);
    hidden.into_iter().for_each(|place| train.labels[place] = UNLABELLED);
    let contract = contract(&description, &train, section.normalize)?;
    contract.check()?;
    Ok(Prepared { description, contract, train, validation, test })
}

/// Refuses data that does not fit into memory: the training part is there twice while it is split.
fn check_room(description: &Description) -> Result<()> {
    let bytes = if description.raw_max.is_some_and(|max| max <= 255.0) { 1 } else { size_of::<f32>() };
    let samples = description.n_train.saturating_mul(2).saturating_add(description.n_test);
    let needed = samples.saturating_mul(description.shape.iter().product()).saturating_mul(bytes);
    match available_bytes() {
        Some(available) if needed > available => {
            let expected = format!("samples that fit the {} MiB that are free", available >> 20);
            let action = "use a smaller data set, or a machine with more memory";
            Err(Refusal::new("data", expected, format!("{} MiB", needed >> 20), action).with_exit(Exit::Lacking))
        }
        _ => Ok(()),
    }
}

/// Numbers of the classes that are left out.
fn excluded(section: &Data, description: &Description) -> Result<Vec<usize>> {
    let names: Vec<&str> = description.classes.iter().map(String::as_str).collect();
    let number = |name: &String| {
        names.iter().position(|known| known == name).ok_or_else(|| {
            let action = match nearest(name, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name classes as the data does".into(),
            };
            let known = names.iter().take(20).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 20 { ", …" } else { "" };
            let expected = format!("classes of the data ({known}{more})");
            Refusal::new("data.exclude_classes", expected, format!("`{name}`"), action)
        })
    };
    section.exclude_classes.iter().map(number).collect()
}

fn read(data: &dyn Dataset, split: Split) -> Result<Samples> {
    let Description { shape, n_train, n_test, .. } = data.description();
    let n = if split == Split::Train { *n_train } else { *n_test };
    let mut samples = Samples::with_room(shape.iter().product(), n);
    let mut sample = Sample::default();
    let mut stream = data.read(split)?;
    while stream.next(&mut sample)? {
        samples.push(&sample.values, sample.label);
    }
    Ok(samples)
}

/// A share of n samples, rounded.
fn share(share: f64, n: usize) -> usize {
    (share * n as f64).round() as usize
}

/// Places of the training and of the validation samples.
fn split(labels: &[usize], section: &Data, excluded: &[usize], seed: u64) -> (Vec<usize>, Vec<usize>) {
    let places: Vec<usize> = (0..labels.len()).filter(|&place| !excluded.contains(&labels[place])).collect();
    let (kept, _) = draw(labels, &places, seed, Purpose::Subset, |n| share(section.subset, n).max(1));
    let held_out = |n: usize| share(section.validation, n).min(n - 1);
    let (validation, train) = draw(labels, &kept, seed, Purpose::Validation, held_out);
    (train, validation)
}

fn check_parts(section: &Data, [train, validation, test]: [usize; 3]) -> Result<()> {
    let refuse = |at: &str, expected: &str, action: &str| Err(Refusal::new(at, expected, "none", action));
    if train == 0 {
        return refuse("data", "training samples", "exclude fewer classes");
    }
    if validation == 0 && section.validation > 0.0 {
        return refuse("data.validation", "validation samples", "give it a larger share, or 0");
    }
    if test == 0 {
        return refuse("data", "test samples", "choose data with a test part");
    }
    Ok(())
}

/// The contract of networks that are made for these samples.
fn contract(description: &Description, train: &Samples, normalize: Normalize) -> Result<Contract> {
    let mut contract = Contract::for_data(description, "x", "logits", Meaning::Logits);
    let input = &mut contract.input;
    match normalize {
        Normalize::None => input.scale = 1.0,
        Normalize::Unit => {}
        Normalize::Standard => {
            // A table's columns are as unlike as channels.
            let channels = if description.layout.starts_with(['C', 'F']) { description.shape[0] } else { 1 };
            (input.mean, input.std) = statistics(train, channels, f64::from(input.scale));
        }
        Normalize::Sample if description.layout == "F" => {
            let (expected, action) = ("series, sound or images", "say \"standard\": columns are as unlike as channels");
            return Err(Refusal::new("data.normalize = \"sample\"", expected, "a table", action));
        }
        Normalize::Sample => (input.per_sample, input.scale) = (true, 1.0),
    }
    Ok(contract)
}

/// Mean and deviation per channel of `scale` times the raw values, over all samples. A channel that hardly differs from
/// its mean (a millionth of it, or less than f32 tells) has deviation 1.
pub(super) fn statistics(samples: &Samples, channels: usize, scale: f64) -> (Vec<f32>, Vec<f32>) {
    let inner = samples.elements / channels;
    let count = (samples.len() * inner) as f64;
    let mut batch = RawBatch::default();
    let mut mean_of = |what: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0.0; channels];
        for place in 0..samples.len() {
            samples.gather(&[place], &mut batch);
            for (c, plane) in batch.values.chunks_exact(inner).enumerate() {
                sums[c] += plane.iter().map(|&raw| what(c, f64::from(raw) * scale)).sum::<f64>();
            }
        }
        sums.into_iter().map(|sum| sum / count).collect::<Vec<f64>>()
    };
    let mean = mean_of(&|_, x| x);
    let variance = mean_of(&|c, x| (x - mean[c]) * (x - mean[c]));
    let std = variance.iter().zip(&mean).map(|(variance, mean)| {
        let std = variance.sqrt();
        if std > 1e-6 * mean.abs() && std > f64::from(f32::MIN_POSITIVE) { std as f32 } else { 1.0 }
    });
    (mean.iter().map(|&mean| mean as f32).collect(), std.collect())
}
