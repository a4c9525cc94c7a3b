//! Identity, and Dropout as inference has it: readers read what goes in.

use kd_runtime::Result;
use kd_runtime::ops::Op;

use super::Fold;

pub(super) fn rewrite(fold: &mut Fold, node: usize) -> Result<bool> {
    let passes = matches!(fold.op(node), Op::Identity(_) | Op::Dropout(_));
    let outputs = fold.graph.nodes[node].outputs.clone();
    let Some(input) = fold.graph.nodes[node].input(0).filter(|_| passes) else { return Ok(false) };
    if outputs[1..].iter().any(|id| fold.readers[id.index()] > 0) {
        return Ok(false);
    }
    let output = outputs[0];
    if fold.graph.outputs.contains(&output) {
        // The output's name stays: the node before makes it.
        let Some(source) = fold.only_source(node, 0).filter(|&i| fold.graph.nodes[i].outputs[0] == input) else {
            return Ok(false);
        };
        fold.take_over(source, node);
        return Ok(true);
    }
    if fold.readers[output.index()] == 0 {
        return Ok(false);
    }
    fold.pass(output, input);
    Ok(true)
}
