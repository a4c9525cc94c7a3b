//! DQ → an operator that only moves or compares elements → Q, with the same scale on both sides: it runs on integers.

use alloc::boxed::Box;

use super::Context;
use crate::engine::kernels::OpKernel;
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::ops::Op;

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    Ok(find(context, index))
}

fn find(context: &Context<'_>, index: usize) -> Option<Unit> {
    let node = &context.bound.graph.nodes[index];
    let moves = matches!(
        node.op,
        Op::MaxPool(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Gather(_)
            | Op::Identity(_)
    );
    if !moves || node.outputs.len() != 1 {
        return None;
    }
    let x = context.dequantized(node.input(0)?).filter(super::Quantized::is_byte)?;
    let y = context.quantized(node.outputs[0]).filter(|y| x.same_as(y))?;
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(x.q);
    Some(Unit {
        kernel: Box::new(OpKernel(node.op.clone())),
        inputs,
        outputs: [y.q].into(),
        node: index,
        alias: node.op.def().is_alias(),
        scratch: None,
    })
}
