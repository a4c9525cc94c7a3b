//! Plan once, run often: bind the batch → fold constants → fuse → choose kernels → place every buffer in one arena → run.

use alloc::string::String;

use crate::error::Result;
use crate::graph::{Graph, TensorView, TensorViewMut};
use crate::ops::TensorType;

/// A graph planned for one batch size; owns its weights and its arena. Nothing is allocated by [`Engine::run`].
pub struct Engine {
    _todo: (),
}

/// One planned step, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// The node's name (of a fused group: the computing node's).
    pub node: String,
    /// The kernel's name: `conv_i8/scalar`, or `op/Relu` for an operator's reference computation.
    pub kernel: String,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

impl Engine {
    /// Plans a validated graph for `batch` samples. Errors name what cannot be run, and how much memory it would take.
    pub fn new(_graph: &Graph, _batch: usize) -> Result<Self> {
        todo!()
    }

    /// Types of the inputs, in the graph's order.
    pub fn inputs(&self) -> &[TensorType] {
        todo!()
    }

    /// Types of the outputs, in the graph's order.
    pub fn outputs(&self) -> &[TensorType] {
        todo!()
    }

    /// Input `i`, to be filled before [`Engine::run`].
    pub fn input_mut(&mut self, _i: usize) -> TensorViewMut<'_> {
        todo!()
    }

    /// Output `i` of the last run.
    pub fn output(&self, _i: usize) -> TensorView<'_> {
        todo!()
    }

    /// One inference. Allocates nothing.
    pub fn run(&mut self) -> Result<()> {
        todo!()
    }

    /// Bytes of the arena that holds inputs, intermediates and outputs.
    pub fn arena_bytes(&self) -> usize {
        todo!()
    }

    /// Bytes of weights and tables as the kernels hold them.
    pub fn weights_bytes(&self) -> usize {
        todo!()
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[StepInfo] {
        todo!()
    }
}
