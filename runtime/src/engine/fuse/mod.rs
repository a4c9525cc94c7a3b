//! Groups of nodes between a dequantization and a quantization that become one integer kernel.
//!
//! Each pattern is a function from the group's computing node to a [`Unit`], one file each; [`PATTERNS`] lists them.
//! What none of them takes is computed in floats, by the operators themselves.

mod arith;
mod concat;
mod conv;
mod gemm;
mod moves;
mod pool;
mod table;

use alloc::vec::Vec;

use super::plan::{BoundGraph, Unit};
use super::requantize::Output;
use crate::error::Result;
use crate::graph::{ElementType, Tensor, ValueId};
use crate::ops::Op;

/// A pattern: `None` where the node does not begin such a group.
type Pattern = fn(&Context<'_>, usize) -> Result<Option<Unit>>;

const PATTERNS: &[Pattern] = &[conv::fuse, gemm::fuse, arith::fuse, pool::fuse, moves::fuse, concat::fuse, table::fuse];

/// A bound graph and who reads what.
pub(super) struct Context<'a> {
    pub bound: &'a BoundGraph<'a>,
    producers: Vec<Option<usize>>,
    consumers: Vec<Vec<usize>>,
}

/// A value that is known as integers with a scale: `real = (q − zero_point) · scale`.
pub(super) struct Quantized<'a> {
    /// The integers.
    pub q: ValueId,
    /// Their type.
    pub element: ElementType,
    /// One number, or one for each element of `axis`.
    pub scale: &'a [f32],
    /// As many, or none at all for zero.
    zero_points: Option<&'a Tensor>,
    /// The axis of the scale, as stated.
    pub axis: i64,
}

impl Quantized<'_> {
    /// Zero point `i`.
    pub fn zero_point(&self, i: usize) -> i32 {
        let Some(tensor) = self.zero_points else { return 0 };
        let at = if tensor.len() == 1 { 0 } else { i };
        match (tensor.get::<u8>(), tensor.get::<i8>()) {
            (Some(z), _) => i32::from(z[at]),
            (_, Some(z)) => i32::from(z[at]),
            _ => 0,
        }
    }

    /// Whether nothing is subtracted.
    pub fn zero_points_are_zero(&self) -> bool {
        let Some(tensor) = self.zero_points else { return true };
        let wide = tensor.get::<i32>().map(|z| z.iter().all(|&z| z == 0));
        wide.unwrap_or_else(|| (0..tensor.len()).all(|i| self.zero_point(i) == 0))
    }

    /// Whether one scale serves all elements.
    pub fn per_tensor(&self) -> bool {
        self.scale.len() == 1
    }

    /// Whether another value has the same type and bitwise the same per-tensor scale and zero point.
    pub fn same_as(&self, other: &Self) -> bool {
        self.per_tensor()
            && other.per_tensor()
            && self.element == other.element
            && self.scale[0].to_bits() == other.scale[0].to_bits()
            && self.zero_point(0) == other.zero_point(0)
    }

    /// How results are rounded into this value.
    pub fn output(&self) -> Output {
        let (low, high) = if self.element == ElementType::I8 { (-128, 127) } else { (0, 255) };
        Output { zero_point: self.zero_point(0), low, high }
    }

    /// Whether it is of 8 bits.
    pub fn is_byte(&self) -> bool {
        matches!(self.element, ElementType::U8 | ElementType::I8)
    }
}

impl<'a> Context<'a> {
    fn new(bound: &'a BoundGraph<'a>) -> Self {
        Self { bound, producers: bound.graph.producers(), consumers: bound.graph.consumers() }
    }

    /// The integers that a float value was dequantized from, with a constant scale (not blocked).
    pub fn dequantized(&self, id: ValueId) -> Option<Quantized<'a>> {
        let node = &self.bound.graph.nodes[self.producers[id.index()]?];
        let Op::DequantizeLinear(op) = &node.op else { return None };
        if op.block_size != 0 {
            return None;
        }
        let q = node.input(0)?;
        self.quantization(q, node.input(1)?, node.input(2), op.axis)
    }

    /// The only reader of a float value, if that is one node and the value is no output of the graph.
    pub fn only_reader(&self, id: ValueId) -> Option<usize> {
        match self.consumers[id.index()][..] {
            [node] if !self.bound.graph.outputs.contains(&id) => Some(node),
            _ => None,
        }
    }

    /// The integers that a float value is quantized to, if nobody else reads it: per tensor, 8 bits.
    pub fn quantized(&self, id: ValueId) -> Option<Quantized<'a>> {
        let reader = self.only_reader(id)?;
        (self.bound.graph.nodes[reader].input(0) == Some(id)).then(|| self.quantized_here(reader)).flatten()
    }

    /// What a quantization node makes of its input, whoever else reads that: per tensor, 8 bits.
    pub fn quantized_here(&self, index: usize) -> Option<Quantized<'a>> {
        let node = &self.bound.graph.nodes[index];
        let Op::QuantizeLinear(op) = &node.op else { return None };
        let found = self.quantization(node.outputs[0], node.input(1)?, node.input(2), op.axis)?;
        (op.block_size == 0 && found.per_tensor() && found.is_byte()).then_some(found)
    }

    fn quantization(
        &self,
        q: ValueId,
        scale: ValueId,
        zero_point: Option<ValueId>,
        axis: i64,
    ) -> Option<Quantized<'a>> {
        let zero_points = match zero_point {
            Some(id) => Some(self.bound.constant(id)?),
            None => None,
        };
        let scale = self.bound.constant(scale)?;
        let same_length = zero_points.is_none_or(|z| z.len() == scale.len());
        let element = self.bound.types[q.index()].as_ref()?.element;
        let scale = scale.get::<f32>().filter(|s| !s.is_empty() && same_length)?;
        // Those in the file were checked when it was read; these may be computed.
        if !scale.iter().all(|s| s.is_finite() && *s > 0.0) {
            return None;
        }
        Some(Quantized { q, element, scale, zero_points, axis })
    }

    /// Walks from a float value over Relu and Clip with constant bounds to the quantization that ends the group:
    /// rounding is monotone, so a clamp of the real number is a clamp of the integer.
    pub fn quantized_after_clamps(&self, mut id: ValueId) -> Option<(Quantized<'a>, Output)> {
        let (mut low, mut high) = (f32::NEG_INFINITY, f32::INFINITY);
        loop {
            if let Some(found) = self.quantized(id) {
                let (whole, scale) = (found.output(), found.scale[0]);
                let bound = |x: f32| whole.quantize(x / scale);
                return Some((found, Output { low: bound(low), high: bound(high), ..whole }));
            }
            let node = &self.bound.graph.nodes[self.only_reader(id)?];
            if node.input(0) != Some(id) {
                return None;
            }
            match node.op {
                Op::Relu(_) => (low, high) = (low.max(0.0), high.max(0.0)),
                Op::Clip(_) => {
                    let bound = |i: usize, none: f32| match node.input(i) {
                        None => Some(none),
                        Some(id) => Some(*self.bound.constant(id)?.get::<f32>()?.first()?),
                    };
                    let (least, most) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
                    if least.is_nan() || most.is_nan() {
                        return None;
                    }
                    (low, high) = (low.max(least).min(most), high.max(least).min(most));
                }
                _ => return None,
            }
            id = node.outputs[0];
        }
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &'a [usize] {
        self.bound.types[id.index()].as_ref().map_or(&[], |bound| &bound.shape)
    }
}

/// Replaces groups by integer kernels: units for whole groups, keyed by the node whose place they take.
pub(super) fn fuse(bound: &BoundGraph<'_>) -> Result<Vec<Option<Unit>>> {
    let context = Context::new(bound);
    let mut units: Vec<Option<Unit>> = Vec::with_capacity(bound.graph.nodes.len());
    for node in 0..bound.graph.nodes.len() {
        let mut found = None;
        for pattern in PATTERNS {
            found = pattern(&context, node)?;
            if found.is_some() {
                break;
            }
        }
        units.push(found);
    }
    Ok(units)
}
