//! Frozen teachers: one network learns from the labels and from what the teachers say of the same batch.

use kd_runtime::Result;
use kd_runtime::contract::Contract;
use kd_runtime::graph::Graph;

use crate::data::RawBatch;
use crate::exec::Executor;
use crate::recipe::{Distill, Train};
use crate::teacher::Network;

/// A network that learns.
pub struct Learner {
    /// The learning network; its parameters hold the gradients of the last step.
    pub executor: Executor<f32>,
    /// Names of the loss terms in order: `ce`, then those of the recipe (`kd`; a second one of the same name is `kd.2`).
    pub term_names: Vec<String>,
}

/// Values of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepValues {
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Each term's value, not weighted, in the order of [`Learner::term_names`].
    pub terms: Vec<f64>,
    /// Samples whose largest logit was their class.
    pub right: usize,
}

impl Learner {
    /// Plans a network with its teachers. Without `distill` it learns from the labels alone (the baseline, a teacher).
    /// Checks that every term's taps exist and classes agree, that no teacher equals the student.
    pub fn new(
        graph: &Graph,
        contract: &Contract,
        train: &Train,
        distill: Option<(&Distill, &[Network])>,
        threads: usize,
    ) -> Result<Self> {
        let _ = (graph, contract, train, distill, threads);
        todo!()
    }

    /// Forward, losses and backward of one batch; the optimizer is the caller's. `step` of `steps` (and `steps_per_epoch`)
    /// drive the schedules of the terms' weights; `seed` the dropout masks. Refuses a loss that is not finite, naming the
    /// term.
    pub fn step(&mut self, batch: &RawBatch, seed: u64, at: At) -> Result<StepValues> {
        let _ = (batch, seed, at);
        todo!()
    }
}

/// Where in a run a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// From 0.
    pub step: usize,
    /// Of the whole run.
    pub steps: usize,
    /// Of one epoch.
    pub steps_per_epoch: usize,
}
