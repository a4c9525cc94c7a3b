//! What can run a model, behind one trait; [`table`] lists them: `native`, `ort` (feature), `candle` (feature).

mod available;
#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "ort")]
mod library;
mod native;
#[cfg(feature = "ort")]
mod ort;
pub mod table;

use std::path::PathBuf;

pub use available::available_bytes;
pub use table::{BACKENDS, open};

use crate::error::Result;
use crate::graph::{Tensor, TensorView};
use crate::ops::TensorType;

/// A model loaded for one batch size.
pub trait Backend {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Names of the inputs, in the file's order.
    fn input_names(&self) -> &[String];
    /// Types of the inputs.
    fn inputs(&self) -> &[TensorType];
    /// Names of the outputs, in the file's order.
    fn output_names(&self) -> &[String];
    /// Sets input `i` for the next runs.
    fn feed(&mut self, i: usize, x: TensorView<'_>) -> Result<()>;
    /// One inference: what latency measures.
    fn run(&mut self) -> Result<()>;
    /// Output `i` of the last run.
    fn output(&self, i: usize) -> Result<Tensor>;
    /// What the plan takes in memory, where the backend knows.
    fn plan_bytes(&self) -> Option<PlanBytes> {
        None
    }
    /// Whether all of its allocations go through this program's allocator and can be counted.
    fn counts_allocations(&self) -> bool {
        true
    }
}

/// Memory that a plan takes; the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanBytes {
    /// The arena of inputs, intermediates and outputs.
    pub arena_bytes: usize,
    /// Weights and tables as the kernels hold them.
    pub weights_bytes: usize,
}

/// How a backend runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that compute one inference.
    pub threads: usize,
    /// ONNX Runtime's library; looked for where it usually is if `None`.
    pub ort_lib: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, ort_lib: None }
    }
}

/// Refuses an input that is not of the type that the model was loaded for.
fn check_input(types: &[TensorType], i: usize, x: TensorView<'_>) -> Result<()> {
    let fits = types.get(i).is_some_and(|ty| ty.element == x.element() && ty.shape == x.shape);
    if fits {
        return Ok(());
    }
    let expected = types.get(i).map_or("an input that exists".into(), |ty| format!("{} {:?}", ty.element, ty.shape));
    let found = format!("{} {:?}", x.element(), x.shape);
    Err(crate::Refusal::new(format!("input {i}"), expected, found, "feed what the model was loaded for"))
}
