//! Training data: read once through `kd_runtime::data`, split, held in memory in its raw values, and given out in
//! seeded, augmented batches.

pub mod augment;
pub mod feed;
pub mod reading;
pub mod split;

mod prepare;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;

use kd_runtime::contract::Contract;
use kd_runtime::data::Description;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use prepare::prepare;

use crate::rng::{Purpose, Rng};
use augment::Augment;

/// The label of a sample whose class is not known: losses of the labels pass it by, and it is never counted as right or wrong.
pub const UNLABELLED: usize = usize::MAX;

/// Samples in memory, raw as the format stores them (before any contract's scaling).
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Raw values of all samples, one after another, as bytes where every value is a whole number of 0 to 255.
    pub values: Values,
    /// Classes, one a sample; [`UNLABELLED`] where it is not known.
    pub labels: Vec<usize>,
    /// Values of one sample.
    pub elements: usize,
}

/// Raw values.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
}

/// The data of a run.
pub struct Prepared {
    /// What the data set is.
    pub description: Description,
    /// The contract of networks made for it: input `x`, output `logits`, scaled as the recipe says by statistics of the
    /// training samples.
    pub contract: Contract,
    /// To learn from, without the validation samples.
    pub train: Samples,
    /// To select an epoch with; may be empty.
    pub validation: Samples,
    /// To report with, never to choose with.
    pub test: Samples,
}

impl Prepared {
    /// Bytes of all samples, and of those that there were at once while the training part was split.
    pub fn bytes(&self) -> [usize; 2] {
        let held = self.train.bytes() + self.validation.bytes() + self.test.bytes();
        [held, held + self.train.bytes() + self.validation.bytes()]
    }
}

/// How many samples there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// All, with those whose class is not known.
    pub n: usize,
    /// Samples of each class, in the classes' order.
    pub per_class: Vec<usize>,
}

impl Counts {
    /// Of samples.
    pub fn of(samples: &Samples, classes: usize) -> Self {
        let mut per_class = vec![0; classes];
        for &label in &samples.labels {
            if let Some(n) = per_class.get_mut(label) {
                *n += 1;
            }
        }
        Self { n: samples.len(), per_class }
    }
}

/// One batch of raw values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawBatch {
    /// Raw values, augmented, one sample after another.
    pub values: Vec<f32>,
    /// Classes; of mixed samples that of the larger share.
    pub labels: Vec<usize>,
    /// Places of the samples among those they were gathered from.
    pub places: Vec<usize>,
    /// Of mixed samples, one a sample: the class of the other one, and the share of [`RawBatch::labels`]. Else empty.
    pub mixed: Vec<(usize, f32)>,
}

/// The order of an epoch: all samples, shuffled by seed and epoch.
pub fn order(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..n).collect();
    Rng::new(seed, Purpose::Shuffle, epoch as u64, 0).shuffle(&mut places);
    places
}

/// Gathers the samples of these places and augments each with its own random numbers (seed, epoch, place). One that is
/// mixed with another takes any sample of the places `from` (none: of all), augmented with numbers of its own by what
/// stands before.
pub fn load(
    samples: &Samples,
    from: Option<&[usize]>,
    places: &[usize],
    augment: &[Box<dyn Augment>],
    seed: u64,
    epoch: usize,
    batch: &mut RawBatch,
) {
    samples.gather(places, batch);
    if augment.is_empty() {
        return;
    }
    let mut other = RawBatch::default();
    for (&place, raw) in places.iter().zip(batch.values.chunks_exact_mut(samples.elements)) {
        let mut rng = Rng::new(seed, Purpose::Augment, epoch as u64, place as u64);
        for (i, kind) in augment.iter().enumerate() {
            if !kind.mixes() {
                kind.apply(raw, &mut rng);
                continue;
            }
            let drawn = rng.below(from.map_or(samples.len(), <[usize]>::len) as u64) as usize;
            samples.gather(&[from.map_or(drawn, |from| from[drawn])], &mut other);
            let mut others = Rng::new(seed, Purpose::Partner, epoch as u64, place as u64);
            augment[..i].iter().for_each(|before| before.apply(&mut other.values, &mut others));
            let share = kind.mix(raw, &other.values, &mut rng);
            batch.mixed.extend(other.labels.iter().map(|&label| (label, share)));
        }
    }
}

/// Scales a batch of raw values by a contract into what its network is fed.
pub fn scale(contract: &Contract, raw: &[f32], x: &mut Vec<f32>) {
    let elements = contract.input.elements();
    x.resize(raw.len(), 0.0);
    for (raw, x) in raw.chunks_exact(elements).zip(x.chunks_exact_mut(elements)) {
        contract.prepare(raw, x);
    }
}

impl Samples {
    /// Without any sample.
    fn new(elements: usize) -> Self {
        Self { values: Values::U8(Vec::new()), labels: Vec::new(), elements }
    }

    /// Without any sample, with room for `n`, if there is: a list that grows is there twice while it does.
    fn with_room(elements: usize, n: usize) -> Self {
        let mut bytes = Vec::new();
        // Without room the list grows, and fails where it must.
        let _ = bytes.try_reserve_exact(n.saturating_mul(elements));
        Self { values: Values::U8(bytes), ..Self::new(elements) }
    }

    /// Adds a sample; the first value that is no byte turns all into floats.
    fn push(&mut self, raw: &[f32], label: usize) {
        self.labels.push(label);
        if let Values::U8(bytes) = &mut self.values {
            if raw.iter().all(|&value| value == f32::from(value as u8)) {
                bytes.extend(raw.iter().map(|&value| value as u8));
                return;
            }
            let mut floats = Vec::new();
            let _ = floats.try_reserve_exact(bytes.capacity());
            floats.extend(bytes.iter().map(|&byte| f32::from(byte)));
            self.values = Values::F32(floats);
        }
        if let Values::F32(floats) = &mut self.values {
            floats.extend_from_slice(raw);
        }
    }

    /// SHA-256 over all values and labels.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        match &self.values {
            Values::U8(bytes) => hash.update(bytes),
            Values::F32(floats) => floats.iter().for_each(|x| hash.update(x.to_le_bytes())),
        }
        self.labels.iter().for_each(|&label| hash.update((label as u64).to_le_bytes()));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes in memory.
    fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::U8(bytes) => bytes.len(),
            Values::F32(floats) => size_of_val(&floats[..]),
        };
        values + size_of_val(&self.labels[..])
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The samples whose class is known.
    pub fn labelled(&self) -> Cow<'_, Self> {
        let places: Vec<usize> = (0..self.len()).filter(|&place| self.labels[place] != UNLABELLED).collect();
        if places.len() == self.len() { Cow::Borrowed(self) } else { Cow::Owned(self.take(&places)) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Gathers the samples of these places, not augmented.
    pub fn gather(&self, places: &[usize], batch: &mut RawBatch) {
        batch.values.clear();
        batch.labels.clear();
        batch.places.clear();
        batch.places.extend_from_slice(places);
        batch.mixed.clear();
        for &place in places {
            batch.labels.push(self.labels[place]);
            let range = place * self.elements..(place + 1) * self.elements;
            match &self.values {
                Values::U8(bytes) => batch.values.extend(bytes[range].iter().map(|&byte| f32::from(byte))),
                Values::F32(floats) => batch.values.extend_from_slice(&floats[range]),
            }
        }
    }

    /// A copy of the samples of these places.
    fn take(&self, places: &[usize]) -> Self {
        fn pick<T: Copy>(values: &[T], places: &[usize], elements: usize) -> Vec<T> {
            let mut picked = Vec::with_capacity(places.len() * elements);
            places.iter().for_each(|&p| picked.extend_from_slice(&values[p * elements..(p + 1) * elements]));
            picked
        }
        let values = match &self.values {
            Values::U8(bytes) => Values::U8(pick(bytes, places, self.elements)),
            Values::F32(floats) => Values::F32(pick(floats, places, self.elements)),
        };
        Self { values, labels: places.iter().map(|&place| self.labels[place]).collect(), elements: self.elements }
    }
}
