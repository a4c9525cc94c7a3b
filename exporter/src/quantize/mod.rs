//! Float network and ranges to Q/DQ: per-channel int8 weights, per-tensor uint8 activations, int32 bias.

mod plan;
mod rewrite;
pub mod scheme;
#[cfg(test)]
mod tests;
pub mod weights;

use std::collections::BTreeSet;

use kd_runtime::Result;
use kd_runtime::engine::Engine;
use kd_runtime::graph::Graph;

use crate::calibrate::Calibration;
use plan::Treatment;

/// A quantized network.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// With QuantizeLinear and DequantizeLinear placed so that runtimes fuse them; validated.
    pub graph: Graph,
    /// A line for each node that stays float: its name, operator and the reason.
    pub stays_float: Vec<String>,
    /// Convolutions and matrix products that compute in integers, as the engine fuses them.
    pub integer_products: usize,
    /// All of them.
    pub products: usize,
}

/// Quantizes a folded network.
pub fn quantize(graph: &Graph, calibration: &Calibration) -> Result<Quantized> {
    let plan = plan::plan(graph, calibration);
    let quantized = rewrite::rewrite(graph, &plan)?;
    let mut stays_float: Vec<String> = (graph.nodes.iter().zip(&plan.treatments))
        .filter_map(|(node, treatment)| match treatment {
            Treatment::Float(reason) => Some(format!("`{}` ({}): {reason}", node.name, node.op.name())),
            _ => None,
        })
        .collect();
    let planned: BTreeSet<String> = (graph.nodes.iter().zip(&plan.treatments))
        .filter(|(_, treatment)| **treatment == Treatment::Integer)
        .map(|(node, _)| format!("`{}` ({})", node.name, node.op.name()))
        .collect();
    let engine = Engine::new(&quantized, 1)?;
    let is_product = |place: &str| ["(Conv)", "(Gemm)", "(MatMul)"].iter().any(|op| place.ends_with(op));
    let (mut products, mut integer_products) = (0, 0);
    for step in engine.steps() {
        let (product, float) = (is_product(&step.node), step.kernel.starts_with("op/"));
        products += usize::from(product);
        integer_products += usize::from(product && !float);
        let name = name_of(&step.node);
        let known = || stays_float.iter().any(|line| line.starts_with(name));
        if float && (product || planned.contains(name)) && !known() {
            stays_float.push(format!("{}: the engine has no integer kernel for it", step.node));
        }
    }
    Ok(Quantized { graph: quantized, stays_float, integer_products, products })
}

/// Of a place as the engine tells it, the name and the operator: "node 3 `conv` (Conv)" is "`conv` (Conv)".
fn name_of(place: &str) -> &str {
    place.find('`').map_or(place, |i| &place[i..])
}
