//! DQ… → Concat → [Relu | Clip …] → Q: integers, through a table where an input's scale is another than the output's.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Context;
use crate::engine::kernels::lut_i8::ConcatI8;
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::ops::{Op, attrs};

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    let node = &context.bound.graph.nodes[index];
    let Op::Concat(concat) = &node.op else { return Ok(None) };
    let Some((y, output)) = context.quantized_after_clamps(node.outputs[0]) else { return Ok(None) };
    let Ok(axis) = attrs::axis(concat.axis, context.shape(node.outputs[0]).len()) else { return Ok(None) };
    let (mut tables, mut runs, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
    for id in node.inputs.iter().flatten() {
        let Some(x) = context.dequantized(*id).filter(|x| x.per_tensor() && x.is_byte()) else { return Ok(None) };
        tables.push(super::table::table(&x, &[], output, y.scale[0])?);
        runs.push(context.shape(*id)[axis..].iter().product());
        inputs.push(Some(x.q));
    }
    Ok(Some(Unit {
        kernel: Box::new(ConcatI8 { tables, runs }),
        inputs,
        outputs: [y.q].into(),
        node: index,
        alias: false,
        scratch: None,
    }))
}
