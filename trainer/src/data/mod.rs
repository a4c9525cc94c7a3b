//! Training data: read once through `kd_runtime::data`, split, held in memory in its raw values, and given out in
//! seeded, augmented batches.

pub mod augment;

use kd_runtime::Result;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;

use crate::recipe::Recipe;

/// Samples in memory, raw as the format stores them (before any contract's scaling).
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Raw values of all samples, one after another, as bytes where every value is a whole number of 0 to 255.
    pub values: Values,
    /// Classes, one a sample.
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

/// One batch of raw values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawBatch {
    /// Raw values, augmented, one sample after another.
    pub values: Vec<f32>,
    /// Classes.
    pub labels: Vec<usize>,
}

/// Opens, checks, splits (by `recipe.run.seed`: validation and subset are the same for every arm and seed) and loads the
/// data. Refuses excluded classes that do not exist, parts left empty, and more memory than there is.
pub fn prepare(recipe: &Recipe) -> Result<Prepared> {
    let _ = (recipe, Meaning::Logits);
    todo!()
}

/// The order of an epoch: all samples, shuffled by seed and epoch.
pub fn order(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let _ = (n, seed, epoch);
    todo!()
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Gathers the samples of these places, not augmented.
    pub fn gather(&self, places: &[usize], batch: &mut RawBatch) {
        let _ = (places, batch);
        todo!()
    }
}

/// Scales a batch of raw values by a contract into what its network is fed.
pub fn scale(contract: &Contract, raw: &[f32], x: &mut Vec<f32>) {
    let _ = (contract, raw, x);
    todo!()
}
