//! MatMul of a matrix with constant weights becomes Gemm, which has a bias and is what runtimes run in integers.

use kd_runtime::Result;
use kd_runtime::ops::{Op, gemm::Gemm};

use super::Fold;

pub(super) fn rewrite(fold: &mut Fold, node: usize) -> Result<bool> {
    if !matches!(fold.op(node), Op::MatMul(_)) {
        return Ok(false);
    }
    let inputs = fold.graph.nodes[node].inputs.clone();
    let (Some(x), Some(w)) = (inputs[0], fold.floats(node, 1)) else { return Ok(false) };
    if w.shape().len() != 2 || fold.rank(x) != 2 || fold.graph.initializers.contains_key(&x) {
        return Ok(false);
    }
    fold.replace(node, Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, inputs);
    Ok(true)
}
