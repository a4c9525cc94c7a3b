//! What no operator checks but no model should have: scales that are no scales, weights that are no numbers.

use alloc::format;
use alloc::vec::Vec;

use crate::error::{Refusal, Result};
use crate::graph::{Graph, Tensor, ValueId};
use crate::ops::{Op, node_place};

/// Refuses a NaN, infinite, zero or negative scale of `QuantizeLinear` or `DequantizeLinear`, a zero point of another
/// type than the quantized value, and NaN or infinite weights (infinite ones are let through as bounds of `Clip` and
/// as what `Pad` adds). Scales that are computed cannot be seen here.
pub fn lint(graph: &Graph) -> Result<()> {
    for (i, node) in graph.nodes.iter().enumerate() {
        if node.op.def().is_quantization() || is_quantization(&node.op) {
            check_scale(graph, i)?;
            check_zero_point(graph, i)?;
        }
    }
    check_weights(graph)
}

fn is_quantization(op: &Op) -> bool {
    matches!(op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
}

fn check_scale(graph: &Graph, index: usize) -> Result<()> {
    let node = &graph.nodes[index];
    let Some(scales) = graph.constant(node.input(1)).and_then(Tensor::get::<f32>) else { return Ok(()) };
    let Some(k) = scales.iter().position(|&s| !(s.is_finite() && s > 0.0)) else { return Ok(()) };
    let place = format!("{}: scale {k} of {}", node_place(index, node), scales.len());
    Err(Refusal::new(place, "a finite scale above 0", scales[k], "calibrate and quantize the model again"))
}

fn check_zero_point(graph: &Graph, index: usize) -> Result<()> {
    let node = &graph.nodes[index];
    let Some(zero_point) = node.input(2).map(|id| graph.value(id).element) else { return Ok(()) };
    let quantized = match &node.op {
        Op::QuantizeLinear(_) => node.outputs.first().copied(),
        _ => node.input(0),
    };
    match quantized.map(|id| graph.value(id).element) {
        Some(element) if element != zero_point => Err(Refusal::new(
            format!("{}: zero point", node_place(index, node)),
            format!("{element}, as the quantized value"),
            zero_point,
            "quantize the model again",
        )),
        _ => Ok(()),
    }
}

fn check_weights(graph: &Graph) -> Result<()> {
    let may_be_infinite = may_be_infinite(graph);
    for (&id, tensor) in &graph.initializers {
        let Some(values) = tensor.get::<f32>() else { continue };
        let bad = |&x: &f32| x.is_nan() || (x.is_infinite() && !may_be_infinite[id.index()]);
        if let Some(k) = values.iter().position(bad) {
            let place = format!("initializer `{}`: element {k} of {}", graph.value(id).name, values.len());
            return Err(Refusal::new(place, "a finite number", values[k], "train or export the model again"));
        }
    }
    Ok(())
}

/// For each value whether every reader of it (at least one) means a bound or a filling by it.
fn may_be_infinite(graph: &Graph) -> Vec<bool> {
    let (mut fine, mut other) = (alloc::vec![false; graph.values.len()], alloc::vec![false; graph.values.len()]);
    for node in &graph.nodes {
        for (k, id) in node.inputs.iter().enumerate() {
            let Some(ValueId(id)) = *id else { continue };
            let allowed = matches!((&node.op, k), (Op::Clip(_), 1 | 2) | (Op::Pad(_), 2));
            (if allowed { &mut fine } else { &mut other })[id as usize] = true;
        }
    }
    fine.into_iter().zip(other).map(|(fine, other)| fine && !other).collect()
}
