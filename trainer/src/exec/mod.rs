//! Graph → forward and backward: its own tape over plain buffers that are planned once and reused every step.

use kd_runtime::Result;
use kd_runtime::graph::{Graph, ValueId};

/// The floats that training computes in: `f32`; `f64` for tests against central differences.
pub trait Real: Copy + Send + Sync + 'static {}

/// One trainable or running array of a network, named as its initializer.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<T> {
    /// The initializer's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is to the optimiser.
    pub role: Role,
    /// The values, row-major.
    pub value: Vec<T>,
    /// The gradient of the last backward pass; empty for [`Role::Statistic`].
    pub gradient: Vec<T>,
}

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weights of convolutions and linear layers.
    Weight,
    /// Biases, and scale and bias of normalisations: may be excluded from weight decay.
    BiasOrNorm,
    /// Running mean and variance: updated by the forward pass, never by the optimiser.
    Statistic,
}

/// How a forward pass behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics and dropout; the seed (and the sample's place in the batch) decides the dropout mask.
    Train {
        /// Of this step.
        seed: u64,
    },
    /// Running statistics, no dropout.
    Eval,
}

/// A graph planned for training (or for a teacher's forward passes alone), with its parameters.
pub struct Executor<T: Real> {
    _todo: core::marker::PhantomData<T>,
}

/// What an executor is planned for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The largest batch of a step; smaller ones may be run.
    pub batch: usize,
    /// Values to be seen (and given gradients) from outside, by name.
    pub taps: Vec<String>,
    /// Whether backward will be called.
    pub backward: bool,
    /// Threads; the result does not depend on it.
    pub threads: usize,
}

impl<T: Real> Executor<T> {
    /// Plans a validated graph with one f32 input `[N, …]`. Refuses, naming the node, what cannot be trained (or run).
    pub fn new(_graph: &Graph, _plan: &Plan) -> Result<Self> {
        todo!()
    }

    /// The parameters, in the order of the graph's nodes.
    pub fn parameters(&self) -> &[Parameter<T>] {
        todo!()
    }

    /// The parameters, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut [Parameter<T>] {
        todo!()
    }

    /// The id of a tap; refused if it was not planned.
    pub fn tap(&self, _name: &str) -> Result<ValueId> {
        todo!()
    }

    /// Shape of a tap for one sample, without the batch.
    pub fn tap_shape(&self, _tap: ValueId) -> &[usize] {
        todo!()
    }

    /// Runs `batch` samples; `x` holds them one after another.
    pub fn forward(&mut self, _x: &[T], _batch: usize, _mode: Mode) -> Result<()> {
        todo!()
    }

    /// A tap's values of the last forward pass, `batch` samples one after another.
    pub fn value(&self, _tap: ValueId) -> &[T] {
        todo!()
    }

    /// From gradients of taps to the gradients of all parameters (overwritten). A tap may be named once.
    pub fn backward(&mut self, _d_taps: &[(ValueId, &[T])]) -> Result<()> {
        todo!()
    }

    /// The graph with the present parameters in its initializers.
    pub fn to_graph(&self) -> Graph {
        todo!()
    }

    /// Bytes of all buffers.
    pub fn buffer_bytes(&self) -> usize {
        todo!()
    }
}
