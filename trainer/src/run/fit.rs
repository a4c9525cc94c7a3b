//! Trains one network, epoch by epoch, from wherever its checkpoint left it.

use std::path::Path;

use kd_runtime::Result;
use kd_runtime::graph::Graph;
use serde::{Deserialize, Serialize};

use super::monitor::Monitor;
use super::signals::Stop;
use crate::data::Prepared;
use crate::recipe::{Data, Distill, Train};
use crate::teacher::Network;

/// One network to train.
pub struct Job<'a> {
    /// What progress and metrics call it: `teacher`, `student`, `baseline`, with ` seed N` where there are several seeds.
    pub name: &'a str,
    /// The network with its first weights.
    pub graph: &'a Graph,
    /// How.
    pub train: &'a Train,
    /// The section that names the augmentations.
    pub data_section: &'a Data,
    /// What it learns from others; none: from the labels alone.
    pub distill: Option<(&'a Distill, &'a [Network])>,
    /// The data, with the contract of the network.
    pub data: &'a Prepared,
    /// Of order, augmentation and dropout.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Folder of its checkpoints (made if missing): `last.safetensors`, `selected.safetensors`, …
    pub checkpoints: &'a Path,
    /// Ties a checkpoint to what made it: it is refused by a job with another one.
    pub fingerprint: &'a str,
}

/// One line of an epoch, as `metrics.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean weighted loss of the epoch's steps.
    pub loss: f64,
    /// Mean value of each term, by name.
    pub terms: Vec<(String, f64)>,
    /// Share of right answers while training.
    pub train_accuracy: f64,
    /// On the validation samples; none without.
    pub validation_accuracy: Option<f64>,
    /// Cross-entropy on the validation samples, in nats; none without.
    pub validation_loss: Option<f64>,
    /// Factor of the learning rate at the last step.
    pub lr_factor: f64,
}

/// A trained network.
pub struct Fitted {
    /// After the last epoch.
    pub last: Graph,
    /// Of the selected epoch.
    pub selected: Graph,
    /// Which epoch was selected, from 1.
    pub selected_epoch: usize,
    /// All epochs.
    pub history: Vec<Epoch>,
}

/// Trains to the end, or until `stop` (then the checkpoint is saved and the error carries exit 130 or 143). Continues
/// from the folder's checkpoint if there is one, bit for bit as if it had not been interrupted.
pub fn fit(job: &Job<'_>, stop: &Stop, monitor: &mut dyn Monitor) -> Result<Fitted> {
    let _ = (job, stop, monitor);
    todo!()
}
