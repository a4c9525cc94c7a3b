//! Nodes whose inputs are all known become initializers.

use kd_runtime::Result;
use kd_runtime::graph::Tensor;
use kd_runtime::ops;

use super::Fold;

pub(super) fn rewrite(fold: &mut Fold, node: usize) -> Result<bool> {
    let graph = &fold.graph;
    let this = &graph.nodes[node];
    if this.inputs.is_empty() || this.outputs.iter().any(|id| graph.outputs.contains(id)) {
        return Ok(false);
    }
    if this.op.def().is_quantization() || this.outputs.iter().all(|id| fold.readers[id.index()] == 0) {
        return Ok(false);
    }
    let known: Vec<Option<&Tensor>> = this.inputs.iter().map(|&id| graph.constant(id)).collect();
    let all = this.inputs.iter().zip(&known).all(|(id, tensor)| id.is_none() || tensor.is_some());
    let elements = this.outputs.iter().map(|&id| graph.value(id).shape.bind(1).iter().product::<usize>());
    let Some(left) = fold.may_compute.checked_sub(elements.fold(0, usize::saturating_add)).filter(|_| all) else {
        return Ok(false);
    };
    let values = ops::eval(&this.op, &known).map_err(|error| error.at_node(node, this))?;
    let outputs = this.outputs.clone();
    fold.may_compute = left;
    let name = graph.value(outputs[0]).name.clone();
    for (output, value) in outputs.into_iter().zip(values) {
        let id = fold.constant(&format!("{name}.value"), value);
        fold.pass(output, id);
    }
    Ok(true)
}
