//! Operators that have no kernel here: a teacher's are evaluated by the runtime, tensor by tensor, in f32.

use kd_runtime::graph::infer::Bound;
use kd_runtime::graph::{Tensor, ValueId};
use kd_runtime::ops::{self, TensorType};
use kd_runtime::{Refusal, Result};

use super::Real;
use super::layout::{Layout, NOWHERE};
use super::program::{Origin, Program, Step, constant};
use crate::ops::kernels::buffer::Buffer;

/// Evaluates a step. `read` gives a float input's elements; what is no float lies in `others`, by value. Gives each
/// output's value and tensor.
pub fn evaluate<'a, T: Real>(
    program: &Program<T>,
    bound: &[Option<Bound>],
    step: &Step,
    others: &[Option<Tensor>],
    read: impl Fn(usize) -> &'a [T],
) -> Result<Vec<(usize, Tensor)>> {
    let node = &program.graph.nodes[step.node];
    let shape = |id: ValueId| bound[id.index()].as_ref().map_or(&[][..], |b| &b.shape[..]);
    let absent = || {
        let at = ops::node_place(step.node, node);
        Refusal::new(at, "inputs that are computed before", "one that is not", "choose another teacher")
    };
    let mut inputs: Vec<Option<Tensor>> = Vec::with_capacity(node.inputs.len());
    for (i, id) in node.inputs.iter().enumerate() {
        let (Some(id), Some(root)) = (*id, step.inputs[i]) else {
            inputs.push(None);
            continue;
        };
        let known = || others[root].clone().or_else(|| constant(&program.graph, bound, id).cloned());
        inputs.push(Some(if program.origin[root] == Origin::Other {
            known().ok_or_else(absent)?
        } else {
            Tensor::from_vec(shape(id), read(i).iter().map(|v| v.to_f32()).collect())
        }));
    }
    let types: Vec<TensorType> = (node.outputs.iter())
        .map(|id| {
            let element = bound[id.index()].as_ref().map(|b| b.element).ok_or_else(absent)?;
            Ok(TensorType { element, shape: shape(*id).to_vec() })
        })
        .collect::<Result<_>>()?;
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let outputs = ops::eval_as(&node.op, &inputs, &types).map_err(|error| error.at_node(step.node, node))?;
    Ok(node.outputs.iter().map(|id| id.index()).zip(outputs).collect())
}

/// Keeps a tensor that the runtime computed.
pub fn store<T: Real>(
    buffers: &mut [Buffer<T>],
    others: &mut [Option<Tensor>],
    layout: &Layout,
    value: usize,
    tensor: Tensor,
) {
    match (tensor.get::<f32>(), layout.value[value]) {
        (Some(_), NOWHERE) => {}
        (Some(values), buffer) => {
            buffers[buffer].iter_mut().zip(values).for_each(|(to, &v)| *to = T::from_f32(v));
        }
        (None, _) => others[value] = Some(tensor),
    }
}
