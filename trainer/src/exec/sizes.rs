//! Sizes that kernels cannot have.

use kd_runtime::graph::infer::Bound;
use kd_runtime::{Refusal, Result};

use super::Real;
use super::program::Program;

/// Operators that move elements, and may move none.
const MOVES: &[&str] =
    &["Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// Kernels that compute divide by the sizes of what they give: an axis of size 0 is refused.
pub fn check<T: Real>(program: &Program<T>, bound: &[Option<Bound>]) -> Result<()> {
    let nodes = program.steps.iter().filter(|step| !step.fallback).map(|step| &program.graph.nodes[step.node]);
    for node in nodes.filter(|node| !MOVES.contains(&node.op.name())) {
        for value in &node.outputs {
            let Some(bound) = bound[value.index()].as_ref().filter(|bound| bound.shape.contains(&0)) else { continue };
            let (at, found) = (format!("value `{}`", program.graph.value(*value).name), format!("{:?}", bound.shape));
            return Err(Refusal::new(at, "axes of at least 1", found, "leave what has no elements out of the model"));
        }
    }
    Ok(())
}
