//! Float network and ranges to Q/DQ: per-channel int8 weights, per-tensor uint8 activations, int32 bias.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use crate::calibrate::Calibration;

/// A quantized network.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// With QuantizeLinear and DequantizeLinear placed so that runtimes fuse them; validated.
    pub graph: Graph,
    /// A line for each node that stays float: its name, operator and the reason.
    pub stays_float: Vec<String>,
    /// Nodes that compute in integers once fused.
    pub integer_nodes: usize,
}

/// Quantizes a folded network.
pub fn quantize(graph: &Graph, calibration: &Calibration) -> Result<Quantized> {
    let _ = (graph, calibration);
    todo!()
}
