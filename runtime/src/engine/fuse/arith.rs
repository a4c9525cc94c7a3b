//! DQ(a) DQ(b) → Add or Mul → [Relu | Clip …] → Q.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Context;
use crate::engine::kernels::arith_i8::{Arith, ArithI8};
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::ops::Op;

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    Ok(find(context, index))
}

fn find(context: &Context<'_>, index: usize) -> Option<Unit> {
    let node = &context.bound.graph.nodes[index];
    if !matches!(node.op, Op::Add(_) | Op::Mul(_)) {
        return None;
    }
    let a = context.dequantized(node.input(0)?).filter(|a| a.per_tensor() && a.is_byte())?;
    let b = context.dequantized(node.input(1)?).filter(|b| b.per_tensor() && b.is_byte())?;
    let (y, output) = context.quantized_after_clamps(node.outputs[0])?;
    if a.element != b.element || a.element != y.element {
        return None;
    }
    let (za, zb, sy) = (a.zero_point(0), b.zero_point(0), y.scale[0]);
    let arith = if matches!(node.op, Op::Add(_)) {
        let (ratio_a, ratio_b) = (a.scale[0] / sy, b.scale[0] / sy);
        let fixed = output.zero_point as f32 - (ratio_a * za as f32 + ratio_b * zb as f32);
        Arith::Sum { ratio_a, ratio_b, fixed }
    } else {
        Arith::Product { ratio: a.scale[0] * b.scale[0] / sy, zero_a: za, zero_b: zb }
    };
    let shape = context.shape(node.outputs[0]).to_vec();
    let strides_a = strides(context.shape(node.input(0)?), &shape);
    let strides_b = strides(context.shape(node.input(1)?), &shape);
    Some(Unit {
        kernel: Box::new(ArithI8 { arith, shape, strides_a, strides_b, output }),
        inputs: [Some(a.q), Some(b.q)].into(),
        outputs: [y.q].into(),
        node: index,
        alias: false,
        scratch: None,
    })
}

/// Steps through an input for each axis of the result; 0 where it is stretched.
fn strides(input: &[usize], result: &[usize]) -> Vec<usize> {
    let missing = result.len() - input.len();
    let mut strides = alloc::vec![0; result.len()];
    let mut step = 1;
    for i in (0..input.len()).rev() {
        if input[i] != 1 {
            strides[missing + i] = step;
        }
        step *= input[i];
    }
    strides
}
