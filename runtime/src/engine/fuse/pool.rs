//! DQ → AveragePool or GlobalAveragePool → [Relu | Clip …] → Q.

use alloc::boxed::Box;

use super::Context;
use crate::engine::kernels::pool_i8::PoolI8;
use crate::engine::plan::Unit;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::window::Window;

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    Ok(find(context, index))
}

fn find(context: &Context<'_>, index: usize) -> Option<Unit> {
    let node = &context.bound.graph.nodes[index];
    let spatial = context.shape(node.input(0)?).get(2..)?;
    let (window, count_include_pad) = match &node.op {
        Op::AveragePool(pool) => (pool.window.clone(), pool.count_include_pad),
        Op::GlobalAveragePool(_) => (Window { kernel: spatial.to_vec(), ..Window::default() }, false),
        _ => return None,
    };
    let x = context.dequantized(node.input(0)?).filter(|x| x.per_tensor() && x.is_byte())?;
    let (y, output) = context.quantized_after_clamps(node.outputs[0])?;
    if x.element != y.element || spatial.iter().product::<usize>() > 1 << 22 {
        return None;
    }
    let kernel = PoolI8 {
        axes: super::conv::axes(window.resolve(spatial, None).ok()?)?,
        count_include_pad,
        input_scale: x.scale[0],
        output_scale: y.scale[0],
        input_zero_point: x.zero_point(0),
        output,
    };
    Some(Unit {
        kernel: Box::new(kernel),
        inputs: [Some(x.q)].into(),
        outputs: [y.q].into(),
        node: index,
        alias: false,
        scratch: None,
    })
}
