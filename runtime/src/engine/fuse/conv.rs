//! DQ(x) DQ(w) [DQ(b)] → Conv → [Relu | Clip …] → Q.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Context;
use crate::engine::kernels::conv_i8::ConvI8;
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::graph::ElementType;
use crate::ops::window::Axis;
use crate::ops::{Op, TensorType};

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    Ok(find(context, index))
}

fn find(context: &Context<'_>, index: usize) -> Option<Unit> {
    let node = &context.bound.graph.nodes[index];
    let Op::Conv(conv) = &node.op else { return None };
    let x = context.dequantized(node.input(0)?).filter(|x| x.per_tensor() && x.is_byte())?;
    let w = context.dequantized(node.input(1)?).filter(|w| w.is_byte())?;
    let (y, output) = context.quantized_after_clamps(node.outputs[0])?;
    let (x_shape, w_shape) = (context.shape(node.input(0)?), context.shape(node.input(1)?));
    if x_shape.contains(&0) || w_shape.contains(&0) {
        return None;
    }
    let axes = axes(conv.window.resolve(x_shape.get(2..)?, Some(w_shape.get(2..)?)).ok()?)?;
    let channels = *w_shape.first()?;
    let taps: usize = w_shape.get(1..)?.iter().product();
    if !(w.per_tensor() || (w.scale.len() == channels && (w.axis == 0 || w.axis == -(w_shape.len() as i64)))) {
        return None;
    }
    let plane = axes[0].output * axes[1].output;
    if plane == 0 {
        return None;
    }
    let weights = super::gemm::centered(context.bound.constant(w.q)?, &w, |i| i / taps.max(1))?;
    let multiplied: Vec<f32> =
        (0..channels).map(|m| x.scale[0] * w.scale[if w.per_tensor() { 0 } else { m }]).collect();
    let bias = super::gemm::bias(context, node.input(2), channels, &multiplied)?;
    if !super::gemm::fits(&weights, &bias, taps) {
        return None;
    }
    let group = conv.group;
    let kernel = ConvI8 {
        batch: *x_shape.first()?,
        group,
        in_channels: *w_shape.get(1)?,
        out_channels: channels / group,
        axes,
        weights,
        bias,
        multipliers: multiplied.iter().map(|m| m / y.scale[0]).collect(),
        input_zero_point: x.zero_point(0),
        output,
    };
    Some(Unit {
        kernel: Box::new(kernel),
        inputs: [Some(x.q)].into(),
        outputs: [y.q].into(),
        node: index,
        alias: false,
        scratch: Some(TensorType { element: ElementType::I32, shape: [plane].into() }),
    })
}

/// Rows and columns of a window over one or two axes.
pub(super) fn axes(mut axes: Vec<Axis>) -> Option<[Axis; 2]> {
    if axes.len() == 1 {
        let one = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };
        axes.insert(0, one);
    }
    axes.try_into().ok()
}
