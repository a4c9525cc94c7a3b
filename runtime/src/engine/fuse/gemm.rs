//! DQ(a) DQ(b) [DQ(c)] → Gemm or MatMul → [Relu | Clip …] → Q; and the same without Q, integer inside and float out.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Context, Quantized};
use crate::engine::kernels::gemm_i8::{GemmI8, Result8, Right};
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::graph::{ElementType, Tensor, ValueId};
use crate::ops::{Op, TensorType};

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    Ok(find(context, index))
}

fn find(context: &Context<'_>, index: usize) -> Option<Unit> {
    let node = &context.bound.graph.nodes[index];
    let (transposed, c) = match &node.op {
        Op::Gemm(gemm) if gemm.alpha == 1.0 && !gemm.trans_a && (gemm.beta == 1.0 || node.input(2).is_none()) => {
            (gemm.trans_b, node.input(2))
        }
        Op::MatMul(_) => (false, None),
        _ => return None,
    };
    let a = context.dequantized(node.input(0)?).filter(|a| a.per_tensor() && a.is_byte())?;
    let b = context.dequantized(node.input(1)?).filter(Quantized::is_byte)?;
    let (a_shape, b_shape) = (context.shape(node.input(0)?), context.shape(node.input(1)?));
    if a_shape.len() < 2 || b_shape.len() < 2 {
        return None;
    }
    let k = *a_shape.last()?;
    let n = b_shape[b_shape.len() - if transposed { 2 } else { 1 }];
    if k == 0 || n == 0 {
        return None;
    }
    let column_axis = if transposed { 0 } else { b_shape.len() as i64 - 1 };
    let stated = if b.axis < 0 { b.axis + b_shape.len() as i64 } else { b.axis };
    if !(b.per_tensor() || (b.scale.len() == n && stated == column_axis && b_shape.len() == 2)) {
        return None;
    }
    let a_matrices: usize = a_shape[..a_shape.len() - 2].iter().product();
    let b_matrices: usize = b_shape[..b_shape.len() - 2].iter().product();
    let right = match context.bound.constant(b.q) {
        Some(tensor) if b_matrices == 1 => Right::Constant(weights(tensor, &b, k, n, transposed)?),
        None if b.per_tensor() && !transposed => Right::Computed(b.zero_point(0)),
        _ => return None,
    };
    // One right matrix for all left ones, or one each.
    if b_matrices != 1 && (b_matrices != a_matrices || a_shape[..a_shape.len() - 2] != b_shape[..b_shape.len() - 2]) {
        return None;
    }
    let scales: Vec<f32> = (0..n).map(|i| a.scale[0] * b.scale[if b.per_tensor() { 0 } else { i }]).collect();
    let bias = bias(context, c, n, &scales)?;
    let centered: &[i16] = if let Right::Constant(weights) = &right { weights } else { &[255] };
    if !fits(centered, &bias, k) {
        return None;
    }
    let (multipliers, result, output) = match context.quantized_after_clamps(node.outputs[0]) {
        Some((y, output)) => {
            let multipliers = scales.iter().map(|scale| scale / y.scale[0]).collect();
            (multipliers, Result8::Quantized(output), y.q)
        }
        None => (scales, Result8::Float, node.outputs[0]),
    };
    let mut inputs = Vec::from([Some(a.q)]);
    if matches!(right, Right::Computed(_)) {
        inputs.push(Some(b.q));
    }
    let rows = a_shape[a_shape.len() - 2];
    let kernel = GemmI8 { rows, k, n, right, bias, multipliers, left_zero_point: a.zero_point(0), result };
    Some(Unit {
        kernel: Box::new(kernel),
        inputs,
        outputs: [output].into(),
        node: index,
        alias: false,
        scratch: Some(TensorType { element: ElementType::I32, shape: [n].into() }),
    })
}

/// `b − zb` as `[K, N]`.
fn weights(tensor: &Tensor, b: &Quantized<'_>, k: usize, n: usize, transposed: bool) -> Option<Vec<i16>> {
    if !transposed {
        return centered(tensor, b, |i| i % n.max(1));
    }
    let rows = centered(tensor, b, |i| i / k.max(1))?;
    Some((0..k * n).map(|i| rows[i % n * k + i / n]).collect())
}

/// Weights less their zero points; `channel` gives the channel of an element.
pub(super) fn centered(tensor: &Tensor, w: &Quantized<'_>, channel: impl Fn(usize) -> usize) -> Option<Vec<i16>> {
    let center = |(i, q): (usize, i16)| q - w.zero_point(channel(i)) as i16;
    match (tensor.get::<u8>(), tensor.get::<i8>()) {
        (Some(q), _) => Some(q.iter().map(|&q| i16::from(q)).enumerate().map(center).collect()),
        (_, Some(q)) => Some(q.iter().map(|&q| i16::from(q)).enumerate().map(center).collect()),
        _ => None,
    }
}

/// The bias in the accumulators' scale: none, or i32, a number for each column, dequantized with exactly that scale and zero point 0.
pub(super) fn bias(context: &Context<'_>, id: Option<ValueId>, n: usize, scales: &[f32]) -> Option<Vec<i32>> {
    let Some(id) = id else { return Some(alloc::vec![0; n]) };
    let found = context.dequantized(id)?;
    let [before @ .., columns] = context.shape(id) else { return None };
    if *columns != n || before.iter().any(|&size| size != 1) || !found.zero_points_are_zero() {
        return None;
    }
    let bias = context.bound.constant(found.q)?.get::<i32>()?;
    let exact =
        |(i, scale): (usize, &f32)| scale.to_bits() == found.scale[if found.per_tensor() { 0 } else { i }].to_bits();
    let same_scales = (found.per_tensor() || found.scale.len() == n) && scales.iter().enumerate().all(exact);
    (bias.len() == n && same_scales).then(|| bias.to_vec())
}

/// Whether no accumulator can leave i32: `K` products of at most 255 times the largest weight, and the bias.
pub(super) fn fits(weights: &[i16], bias: &[i32], k: usize) -> bool {
    let largest = weights.iter().map(|w| u64::from(w.unsigned_abs())).max().unwrap_or(0);
    let bias = bias.iter().map(|b| u64::from(b.unsigned_abs())).max().unwrap_or(0);
    (k as u64).saturating_mul(255 * largest).saturating_add(bias) < 1 << 31
}
