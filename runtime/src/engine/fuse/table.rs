//! DQ → functions of one element → Q: a table of 256 entries, filled by the operators themselves.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Context, Quantized};
use crate::engine::kernels::lut_i8::{LutI8, Table};
use crate::engine::plan::Unit;
use crate::engine::requantize::Output;
use crate::error::Result;
use crate::graph::{ElementType, Tensor};
use crate::ops::{self, Op};

pub(super) fn fuse(context: &Context<'_>, index: usize) -> Result<Option<Unit>> {
    let graph = context.bound.graph;
    let node = &graph.nodes[index];
    let Some(input) = node.input(0) else { return Ok(None) };
    let Some(x) = context.dequantized(input).filter(|x| x.per_tensor() && x.is_byte()) else { return Ok(None) };
    // A dequantization that is quantized at once is a requantization: the group has no function at all.
    let mut functions: Vec<(&Op, Vec<Option<&Tensor>>)> = Vec::new();
    let mut at = node.outputs.first().copied();
    let y = if matches!(node.op, Op::QuantizeLinear(_)) {
        context.quantized_here(index)
    } else {
        let mut next = Some(index);
        loop {
            let Some(function) = next.map(|i| &graph.nodes[i]).filter(|n| is_function(&n.op)) else { return Ok(None) };
            let known: Vec<Option<&Tensor>> =
                function.inputs[1..].iter().map(|id| id.and_then(|id| context.bound.constant(id))).collect();
            if function.inputs[1..].iter().flatten().count() != known.iter().flatten().count() {
                return Ok(None);
            }
            functions.push((&function.op, known));
            at = function.outputs.first().copied();
            let Some(value) = at else { return Ok(None) };
            if let Some(y) = context.quantized(value) {
                break Some(y);
            }
            next = context.only_reader(value);
        }
    };
    let (Some(y), Some(_)) = (y, at) else { return Ok(None) };
    let table = table(&x, &functions, y.output(), y.scale[0])?;
    Ok(Some(Unit {
        kernel: Box::new(LutI8 { table }),
        inputs: [Some(x.q)].into(),
        outputs: [y.q].into(),
        node: index,
        alias: false,
        scratch: None,
    }))
}

fn is_function(op: &Op) -> bool {
    matches!(
        op,
        Op::Relu(_)
            | Op::LeakyRelu(_)
            | Op::Clip(_)
            | Op::Sigmoid(_)
            | Op::Tanh(_)
            | Op::Elu(_)
            | Op::Gelu(_)
            | Op::HardSigmoid(_)
            | Op::HardSwish(_)
            | Op::Softplus(_)
    )
}

/// The table of `x → functions → output`: every code dequantized, sent through the operators, quantized with `scale`.
pub(super) fn table(
    x: &Quantized<'_>,
    functions: &[(&Op, Vec<Option<&Tensor>>)],
    output: Output,
    scale: f32,
) -> Result<Table> {
    let real = |bits: u8| {
        let q = if x.element == ElementType::I8 { i32::from(bits.cast_signed()) } else { i32::from(bits) };
        (q - x.zero_point(0)) as f32 * x.scale[0]
    };
    let mut values = Tensor::from_vec(&[256], (0..=255).map(real).collect());
    for (op, known) in functions {
        let mut inputs = Vec::from([Some(&values)]);
        inputs.extend(known.iter().copied());
        let outputs = ops::eval(op, &inputs)
            .map_err(|e| crate::Refusal::new(op.name(), e.expected, e.found, "repair the model"))?;
        values = outputs.into_iter().next().unwrap_or(values);
    }
    let mut table = Box::new([0; 256]);
    for (bits, &value) in table.iter_mut().zip(values.get::<f32>().unwrap_or(&[])) {
        // The low byte of the integer, whatever its sign.
        *bits = output.quantize(value / scale).to_le_bytes()[0];
    }
    Ok(table)
}
