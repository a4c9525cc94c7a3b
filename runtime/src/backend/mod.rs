//! What can run a model: `native`, `ort` (feature), `candle` (feature), behind one trait.

use crate::error::Result;
use crate::graph::{Tensor, TensorView};
use crate::ops::TensorType;

/// A model loaded for one batch size.
pub trait Backend {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Types of the inputs.
    fn inputs(&self) -> &[TensorType];
    /// Sets input `i` for the next runs.
    fn feed(&mut self, i: usize, x: TensorView<'_>) -> Result<()>;
    /// One inference: what latency measures.
    fn run(&mut self) -> Result<()>;
    /// Output `i` of the last run.
    fn output(&self, i: usize) -> Result<Tensor>;
}
