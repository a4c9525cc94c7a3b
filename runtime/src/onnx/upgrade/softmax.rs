//! Softmax and LogSoftmax before opset 13: the input was flattened to two axes at `axis`, and the sum went over all
//! that follows. Shapes are the same in both meanings, so the node is first read as it stands, and rewritten when the
//! rank is known.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::draft::Draft;
use crate::error::Result;
use crate::graph::{Dim, ElementType, Graph, Node, Shape, Tensor, Value, ValueId};
use crate::ops::{Op, OpError, reshape::Reshape, shape_of};

/// The default of `axis` was 1.
pub fn default_axis(draft: &mut Draft<'_>, _opset: i64) -> core::result::Result<(), OpError> {
    if !draft.attrs.0.iter().any(|(name, _)| name == "axis") {
        draft.attrs = core::mem::take(&mut draft.attrs).with_int("axis", 1);
    }
    Ok(())
}

/// Gives the nodes that compute `pending` the meaning of opset 13: the same node where at most one axis from `axis` on
/// is larger than 1, else `Reshape` (those axes become one), Softmax over it, `Reshape` back to the `Shape` of the input.
pub fn settle(graph: &mut Graph, pending: &[ValueId]) -> Result<()> {
    let pending: BTreeSet<ValueId> = pending.iter().copied().collect();
    if pending.is_empty() {
        return Ok(());
    }
    let mut names: BTreeSet<alloc::string::String> = graph.values.iter().map(|v| v.name.clone()).collect();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    let mut rewritten = false;
    for mut node in core::mem::take(&mut graph.nodes) {
        let old = node.outputs.first().copied().filter(|id| pending.contains(id));
        let (Some(output), Some(input)) = (old, node.input(0)) else {
            nodes.push(node);
            continue;
        };
        let dims = graph.value(input).shape.0.clone();
        let from = from_axis(&node.op, dims.len());
        let wide: Vec<usize> = (from..dims.len()).filter(|&i| dims[i] != Dim::Known(1)).collect();
        if wide.len() <= 1 {
            let axis = wide.first().copied().unwrap_or(dims.len().saturating_sub(1));
            set_axis(&mut node.op, axis as i64);
            nodes.push(node);
            continue;
        }
        rewritten = true;
        let mut target = alloc::vec![0_i64; from];
        target.push(-1);
        let mut fresh = |suffix: &str| {
            let base = alloc::format!("{}.{suffix}", graph.values[output.index()].name);
            let mut name = base.clone();
            let mut i = 0_u64;
            while !names.insert(name.clone()) {
                i += 1;
                name = alloc::format!("{base}.{i}");
            }
            let id = ValueId(u32::try_from(graph.values.len()).unwrap_or(u32::MAX));
            graph.values.push(Value { name, element: ElementType::F32, shape: Shape::default() });
            id
        };
        let (shape, target_id) = (fresh("shape"), fresh("rows_shape"));
        let (rows, softmax) = (fresh("rows"), fresh("softmax"));
        graph.initializers.insert(target_id, Tensor::from_vec(&[target.len()], target));
        let step = |op: Op, inputs: &[ValueId], output: ValueId| Node {
            name: node.name.clone(),
            op,
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: alloc::vec![output],
        };
        let mut op = node.op.clone();
        set_axis(&mut op, from as i64);
        nodes.push(step(shape_of::Shape { start: 0, end: None }.into(), &[input], shape));
        nodes.push(step(Reshape { allowzero: false }.into(), &[input, target_id], rows));
        nodes.push(step(op, &[rows], softmax));
        nodes.push(step(Reshape { allowzero: false }.into(), &[softmax, shape], output));
    }
    graph.nodes = nodes;
    if rewritten { graph.validate() } else { Ok(()) }
}

/// The first axis of the sum. The shape rule has checked that it lies within the rank.
fn from_axis(op: &Op, rank: usize) -> usize {
    let axis = match op {
        Op::Softmax(op) => op.axis,
        Op::LogSoftmax(op) => op.axis,
        _ => 0,
    };
    crate::ops::attrs::axis(axis, rank).unwrap_or(0)
}

fn set_axis(op: &mut Op, axis: i64) {
    match op {
        Op::Softmax(op) => op.axis = axis,
        Op::LogSoftmax(op) => op.axis = axis,
        _ => {}
    }
}
