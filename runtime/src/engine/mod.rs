//! Plan once, run often: bind the batch → fold constants → fuse → choose kernels → place every buffer in one arena → run.

pub mod arena;
mod fuse;
pub mod kernels;
mod plan;
pub mod requantize;

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::graph::{Graph, TensorView, TensorViewMut};
use crate::ops::frame::Binding;
use crate::ops::{Frame, TensorType};

/// A graph planned for one batch size; owns its weights and its arena. Nothing is allocated by [`Engine::run`].
pub struct Engine {
    plan: plan::Plan,
    // What the plan's bindings point into; never touched otherwise.
    _memory: plan::Memory,
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
    pub fn new(graph: &Graph, batch: usize) -> Result<Self> {
        let (plan, memory) = plan::plan(graph, batch)?;
        Ok(Self { plan, _memory: memory })
    }

    /// Types of the inputs, in the graph's order.
    pub fn inputs(&self) -> &[TensorType] {
        &self.plan.input_types
    }

    /// Types of the outputs, in the graph's order.
    pub fn outputs(&self) -> &[TensorType] {
        &self.plan.output_types
    }

    /// Input `i`, to be filled before [`Engine::run`]. It keeps its elements over runs.
    pub fn input_mut(&mut self, i: usize) -> TensorViewMut<'_> {
        view_mut(core::slice::from_ref(&self.plan.inputs[i]))
    }

    /// Output `i` of the last run.
    pub fn output(&self, i: usize) -> TensorView<'_> {
        // SAFETY: the frame only reads; `&self` keeps runs and writes away while the view lives.
        let frame = unsafe { Frame::new(core::slice::from_ref(&self.plan.outputs[i]), &[]) };
        frame.input(0)
    }

    /// One inference. Allocates nothing.
    pub fn run(&mut self) -> Result<()> {
        for step in &self.plan.steps {
            // SAFETY: `plan` gave each value a place that overlaps no other value alive at this step, constants are
            // never written, and `&mut self` keeps everyone else away.
            let mut frame = unsafe { Frame::new(&step.inputs, &step.outputs) };
            step.kernel.run(&mut frame).map_err(|error| {
                crate::Refusal::new(&step.info.node, error.expected, error.found, "check the input's values")
            })?;
        }
        Ok(())
    }

    /// Bytes of the arena that holds inputs, intermediates and outputs.
    pub fn arena_bytes(&self) -> usize {
        self.plan.arena_bytes
    }

    /// Bytes of weights and tables as the kernels hold them.
    pub fn weights_bytes(&self) -> usize {
        self.plan.weights_bytes
    }

    /// The steps, in order.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = &StepInfo> {
        self.plan.steps.iter().map(|step| &step.info)
    }
}

/// What runs at one step.
struct Step {
    kernel: alloc::boxed::Box<dyn kernels::Kernel>,
    inputs: Vec<Option<Binding>>,
    outputs: Vec<Binding>,
    info: StepInfo,
}

fn view_mut(binding: &[Binding]) -> TensorViewMut<'_> {
    // SAFETY: the caller holds the engine exclusively, so nothing else reads or writes this place; the frame's only
    // output outlives the frame because its view borrows the binding.
    unsafe { Frame::new(&[], binding) }.into_output()
}
