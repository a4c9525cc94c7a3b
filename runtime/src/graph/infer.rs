//! Types and shapes of every value.
//!
//! Operators know shapes of plain numbers only. A graph with the batch symbol is inferred at two batch sizes: what is
//! equal in both is known, what equals the two batch sizes is the batch, anything else depends on the batch in a way
//! that a shape cannot say and is refused. Shape arithmetic (`Shape` → `Gather` → `Concat` → `Reshape`) needs no rule
//! of its own that way: small constants are simply computed.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use crate::error::{Refusal, Result};
use crate::ops::{self, Input, TensorType};

/// The two batch sizes: primes, so that a network rarely has them as a size of its own.
const BATCHES: [usize; 2] = [61, 67];
/// Constants of at most so many elements are computed while inferring.
const FOLDED_ELEMENTS: usize = 4096;
/// All constants that are computed while inferring have at most so many elements; what comes after stays unknown.
/// Without it a small file could ask for `nodes * FOLDED_ELEMENTS` elements.
const FOLDED_ELEMENTS_IN_ALL: usize = 1 << 18;
/// A tensor of more elements is refused.
pub const MOST_ELEMENTS: usize = 1 << 31;
/// A tensor of more dimensions is refused.
pub const MOST_RANK: usize = ops::walk::MOST_AXES;

/// What is known of a value at one batch size.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Element type.
    pub element: ElementType,
    /// Shape.
    pub shape: Vec<usize>,
    /// The value itself where it is a small constant that is not an initializer.
    pub value: Option<Tensor>,
}

/// Infers every value at one batch size. `None` where a value is never computed.
pub fn bind(graph: &Graph, batch: usize) -> Result<Vec<Option<Bound>>> {
    let mut bound: Vec<Option<Bound>> = alloc::vec![None; graph.values.len()];
    for (id, tensor) in &graph.initializers {
        bound[id.index()] = Some(Bound { element: tensor.element(), shape: tensor.shape().to_vec(), value: None });
    }
    for &id in &graph.inputs {
        let value = graph.value(id);
        let shape = value.shape.bind(batch);
        // An axis of 0 counts as 1, as for what operators read: no input need be read by one.
        let elements = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size.max(1)));
        if elements.is_none_or(|n| n > MOST_ELEMENTS) || shape.len() > MOST_RANK {
            let expected = alloc::format!("at most {MOST_ELEMENTS} elements and {MOST_RANK} dimensions");
            let found = alloc::format!("shape {shape:?}");
            return Err(Refusal::new(alloc::format!("input `{}`", value.name), expected, found, "export it smaller"));
        }
        bound[id.index()] = Some(Bound { element: value.element, shape, value: None });
    }
    let mut may_fold = FOLDED_ELEMENTS_IN_ALL;
    for (i, node) in graph.nodes.iter().enumerate() {
        let place = |error: ops::OpError| error.at_node(i, node);
        let known = |id: ValueId| graph.initializers.get(&id).or(bound[id.index()].as_ref()?.value.as_ref());
        let mut inputs: Vec<Option<Input<'_>>> = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            inputs.push(match *input {
                None => None,
                Some(id) => {
                    let value = bound[id.index()].as_ref().ok_or_else(|| {
                        Refusal::new(
                            ops::node_place(i, node),
                            "inputs that are computed before",
                            graph.value(id).name.to_string(),
                            "put the nodes in topological order",
                        )
                    })?;
                    Some(Input { element: value.element, shape: &value.shape, value: known(id) })
                }
            });
        }
        let types = node.op.infer(&inputs).map_err(place)?;
        if types.len() < node.outputs.len() {
            let expected = alloc::format!("at most {} outputs", types.len());
            return Err(place(ops::OpError::new(expected, node.outputs.len())));
        }
        for (k, ty) in types.iter().enumerate() {
            let elements = super::tensor::count(&ty.shape).filter(|&n| n <= MOST_ELEMENTS);
            if elements.is_none() || ty.shape.len() > MOST_RANK {
                return Err(Refusal::new(
                    ops::node_place(i, node),
                    alloc::format!("at most {MOST_ELEMENTS} elements and {MOST_RANK} dimensions in output {k}"),
                    alloc::format!("shape {:?}", ty.shape),
                    "use a smaller model",
                ));
            }
        }
        let values = fold(node, &inputs, &types, &mut may_fold).map_err(place)?;
        for (k, (&id, ty)) in node.outputs.iter().zip(types).enumerate() {
            let value = values.as_ref().and_then(|values| values.get(k).cloned());
            bound[id.index()] = Some(Bound { element: ty.element, shape: ty.shape, value });
        }
    }
    Ok(bound)
}

/// Computes a node's outputs if they are small, all that they depend on is known, and `may_fold` elements allow it.
fn fold(
    node: &super::Node,
    inputs: &[Option<Input<'_>>],
    types: &[TensorType],
    may_fold: &mut usize,
) -> core::result::Result<Option<Vec<Tensor>>, ops::OpError> {
    let small = |shape: &[usize]| super::tensor::count(shape).is_some_and(|n| n <= FOLDED_ELEMENTS);
    let elements: usize = types.iter().filter_map(|ty| super::tensor::count(&ty.shape)).fold(0, usize::saturating_add);
    if !types.iter().all(|ty| small(&ty.shape)) || elements > *may_fold {
        return Ok(None);
    }
    let shapes: Vec<Option<&[usize]>> = inputs.iter().map(|input| input.as_ref().map(|input| input.shape)).collect();
    if let Some(value) = node.op.def().value_from_shapes(&shapes) {
        *may_fold -= elements;
        return Ok(Some(alloc::vec![value]));
    }
    let known = |input: &Option<Input<'_>>| input.as_ref().is_none_or(|i| i.value.is_some() && small(i.shape));
    if node.inputs.is_empty() || !inputs.iter().all(known) {
        return Ok(None);
    }
    let tensors: Vec<Option<&Tensor>> = inputs.iter().map(|input| input.as_ref().and_then(|i| i.value)).collect();
    *may_fold -= elements;
    ops::eval_as(&node.op, &tensors, types).map(Some)
}

/// Infers every value's element type and shape, and writes them into the graph.
pub fn infer(graph: &mut Graph) -> Result<()> {
    let has_batch = graph.inputs.iter().any(|&id| graph.value(id).shape.has_batch());
    let [small, large] = BATCHES;
    let first = bind(graph, small)?;
    let second = if has_batch { bind(graph, large)? } else { first.clone() };
    for (i, pair) in first.into_iter().zip(second).enumerate() {
        let (Some(a), Some(b)) = pair else { continue };
        let rank = a.shape.len() == b.shape.len();
        let dims: Option<Vec<Dim>> = (a.shape.iter().zip(&b.shape))
            .map(|(&x, &y)| match (x, y) {
                (x, y) if x == y => Some(Dim::Known(x)),
                (x, y) if (x, y) == (small, large) => Some(Dim::Batch),
                _ => None,
            })
            .collect();
        match dims.filter(|_| rank) {
            Some(dims) => {
                graph.values[i].element = a.element;
                graph.values[i].shape = Shape(dims);
            }
            None => {
                return Err(Refusal::new(
                    alloc::format!("value `{}`", graph.values[i].name),
                    "sizes that are fixed or equal to the batch N",
                    alloc::format!("{:?} at N = {small} and {:?} at N = {large}", a.shape, b.shape),
                    "export the model with a fixed batch size",
                ));
            }
        }
    }
    Ok(())
}
