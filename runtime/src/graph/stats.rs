//! What a network costs: parameters, multiply-accumulates, bytes.

use alloc::vec::Vec;

use super::{ElementType, Graph, infer};
use crate::error::Result;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Elements of all weights and biases (float initializers, or what `DequantizeLinear` reads); scales, zero points
    /// and shape constants are not parameters.
    pub parameters: u64,
    /// Bytes of all initializers as they are stored.
    pub initializer_bytes: u64,
    /// Multiply-accumulates of one inference of one sample.
    pub macs: u64,
}

impl Graph {
    /// Parameters, bytes and multiply-accumulates at batch 1.
    pub fn stats(&self) -> Result<Stats> {
        let bound = infer::bind(self, 1)?;
        let shape = |id: super::ValueId| bound[id.index()].as_ref().map_or(&[][..], |b| &b.shape[..]);
        let mut macs = 0_u64;
        for node in &self.nodes {
            let inputs: Vec<Option<&[usize]>> = node.inputs.iter().map(|id| id.map(shape)).collect();
            let outputs: Vec<&[usize]> = node.outputs.iter().map(|&id| shape(id)).collect();
            macs = macs.saturating_add(node.op.def().macs(&inputs, &outputs));
        }
        let not_a_parameter = self.quantization_constants();
        let parameters = (self.initializers.iter())
            .filter(|(id, tensor)| {
                !not_a_parameter[id.index()] && !matches!(tensor.element(), ElementType::I64 | ElementType::Bool)
            })
            .map(|(_, tensor)| tensor.len() as u64)
            .sum();
        let initializer_bytes = self.initializers.values().map(|tensor| tensor.bytes() as u64).sum();
        Ok(Stats { parameters, initializer_bytes, macs })
    }

    /// For each value whether it is a scale or zero point of a `QuantizeLinear` or `DequantizeLinear`.
    fn quantization_constants(&self) -> Vec<bool> {
        let mut found = alloc::vec![false; self.values.len()];
        for node in &self.nodes {
            if node.op.def().is_quantization() {
                for id in node.inputs.iter().skip(1).flatten() {
                    found[id.index()] = true;
                }
            }
        }
        found
    }
}
