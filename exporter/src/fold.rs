//! Batch norm into the weights before it, constants into initializers, what inference does not need away.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

/// The same function with fewer nodes; validated, pruned. Outputs differ from the original's by float rounding only.
pub fn fold(graph: &Graph) -> Result<Graph> {
    let _ = graph;
    todo!()
}
