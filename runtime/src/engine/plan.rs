//! From a graph to steps over one arena.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::arena::{Arena, Request, bind_constant, place};
use super::kernels::{Kernel, OpKernel};
use super::{Step, StepInfo, fuse};
use crate::error::Result;
use crate::graph::infer::{self, Bound};
use crate::graph::{ElementType, Graph, Node, Tensor, ValueId};
use crate::ops::frame::Binding;
use crate::ops::{self, Op, TensorType};

/// The steps and where their values lie.
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub inputs: Vec<Binding>,
    pub outputs: Vec<Option<Binding>>,
    pub input_types: Vec<TensorType>,
    pub output_types: Vec<TensorType>,
    pub arena_bytes: usize,
    pub weights_bytes: usize,
}

/// What bindings point into: the tensors' elements lie on the heap, so moving this moves none of them.
pub(super) struct Memory {
    _arena: Arena,
    _constants: BTreeMap<ValueId, Tensor>,
}

/// What will be one step.
pub(super) struct Unit {
    pub kernel: Box<dyn Kernel>,
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<ValueId>,
    pub node: usize,
    /// The output is the first input's elements: nothing runs.
    pub alias: bool,
    /// Memory that the kernel needs while it runs, as one more output.
    pub scratch: Option<TensorType>,
}

/// A graph bound to one batch size.
pub(super) struct BoundGraph<'a> {
    pub graph: &'a Graph,
    pub types: Vec<Option<Bound>>,
    /// Initializers are looked up in the graph; these are computed ones.
    pub folded: BTreeMap<ValueId, Tensor>,
}

impl BoundGraph<'_> {
    /// A constant: an initializer, or what was computed of initializers.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.graph.initializers.get(&id).or_else(|| self.folded.get(&id))
    }

    fn ty(&self, id: ValueId) -> TensorType {
        let bound = self.types[id.index()].as_ref().expect("inferred: every value of a validated graph is");
        TensorType { element: bound.element, shape: bound.shape.clone() }
    }
}

pub(super) fn plan(graph: &Graph, batch: usize) -> Result<(Plan, Memory)> {
    let types = infer::bind(graph, batch)?;
    let mut bound = BoundGraph { graph, types, folded: BTreeMap::new() };
    fold_constants(&mut bound, |node, _| !matches!(node.op, Op::DequantizeLinear(_)))?;
    let units = fuse::fuse(&bound)?;
    let units = lower(&bound, units);
    // What is left of dequantized weights is computed now: those that fused kernels took over are not needed.
    let mut needed = alloc::vec![false; graph.values.len()];
    units.iter().flat_map(|unit| unit.inputs.iter().flatten()).for_each(|id| needed[id.index()] = true);
    fold_constants(&mut bound, |_, id| needed[id.index()])?;
    let mut units = units;
    units.retain(|unit| unit.outputs.iter().any(|&id| bound.constant(id).is_none()));
    drop_unneeded(graph, &mut units);
    assign(&bound, units)
}

/// Elements that may be computed before anything runs, besides some times those of the initializers: a small file could ask for all
/// memory.
const MOST_FOLDED: usize = 1 << 22;

/// Computes what depends on constants alone, as far as the nodes (and their outputs) are wanted, and as much of it as is small beside
/// the model; the rest stays steps.
fn fold_constants(bound: &mut BoundGraph<'_>, wanted: impl Fn(&Node, ValueId) -> bool) -> Result<()> {
    let graph = bound.graph;
    let given = graph.initializers.values().map(Tensor::len).fold(0_usize, usize::saturating_add);
    let mut may_fold = given.saturating_mul(4).saturating_add(MOST_FOLDED);
    for (i, node) in graph.nodes.iter().enumerate() {
        for &id in &node.outputs {
            if let Some(value) = bound.types[id.index()].as_mut().and_then(|b| b.value.take()) {
                bound.folded.insert(id, value);
            }
        }
        let constant = node.inputs.iter().flatten().all(|&id| bound.constant(id).is_some());
        if !constant || !wanted(node, node.outputs[0]) || node.outputs.iter().all(|&id| bound.constant(id).is_some()) {
            continue;
        }
        let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(|id| id.and_then(|id| bound.constant(id))).collect();
        let types: Vec<TensorType> = node.outputs.iter().map(|&id| bound.ty(id)).collect();
        let elements = types.iter().map(|ty| ty.shape.iter().product::<usize>()).fold(0_usize, usize::saturating_add);
        let Some(left) = may_fold.checked_sub(elements) else { continue };
        may_fold = left;
        let values = ops::eval_as(&node.op, &inputs, &types).map_err(|e| e.at_node(i, node))?;
        bound.folded.extend(node.outputs.iter().copied().zip(values));
    }
    Ok(())
}

/// The fused units, and one for each other node that is not a constant; those that no output needs are dropped: what
/// was fused away produces values that nobody reads any more.
fn lower(bound: &BoundGraph<'_>, fused: Vec<Option<Unit>>) -> Vec<Unit> {
    let unit = |(i, node): (usize, &Node)| {
        let constant = node.outputs.iter().all(|&id| bound.constant(id).is_some());
        let shape = |id: ValueId| bound.types[id.index()].as_ref().map_or(&[][..], |b| &b.shape[..]);
        let shapes: Vec<Option<&[usize]>> = node.inputs.iter().map(|id| id.map(shape)).collect();
        let scratch = Some(node.op.def().scratch(&shapes)).filter(|&floats| floats > 0);
        (!constant).then(|| Unit {
            kernel: Box::new(OpKernel(node.op.clone())),
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            node: i,
            alias: node.op.def().is_alias() && node.outputs.len() == 1,
            scratch: scratch.map(|floats| TensorType { element: ElementType::F32, shape: [floats].into() }),
        })
    };
    let mut produced = alloc::vec![false; bound.graph.values.len()];
    fused.iter().flatten().flat_map(|unit| &unit.outputs).for_each(|id| produced[id.index()] = true);
    let unit = |(i, node): (usize, &Node)| {
        let replaced = node.outputs.iter().all(|id| produced[id.index()]);
        if replaced { None } else { unit((i, node)) }
    };
    let nodes = bound.graph.nodes.iter().enumerate();
    let mut units: Vec<Unit> = nodes.zip(fused).filter_map(|(node, fused)| fused.or_else(|| unit(node))).collect();
    drop_unneeded(bound.graph, &mut units);
    units
}

fn drop_unneeded(graph: &Graph, units: &mut Vec<Unit>) {
    let mut needed = alloc::vec![false; graph.values.len()];
    for id in &graph.outputs {
        needed[id.index()] = true;
    }
    let mut keep: Vec<bool> = (units.iter().rev())
        .map(|unit| {
            let used = unit.outputs.iter().any(|id| needed[id.index()]);
            if used {
                unit.inputs.iter().flatten().for_each(|id| needed[id.index()] = true);
            }
            used
        })
        .collect();
    units.retain(|_| keep.pop().expect("one each"));
}

/// Gives every value a place and binds the steps.
fn assign(bound: &BoundGraph<'_>, mut units: Vec<Unit>) -> Result<(Plan, Memory)> {
    let graph = bound.graph;
    // An output that would be an input's own memory is copied, so that feeding the next input leaves it intact.
    let mut root: Vec<ValueId> = (0..graph.values.len()).map(|i| ValueId(i as u32)).collect();
    for unit in &mut units {
        let Some(source) = unit.inputs.first().copied().flatten().filter(|_| unit.alias) else { continue };
        let source = root[source.index()];
        let (is_input, is_output) = (graph.inputs.contains(&source), graph.outputs.contains(&unit.outputs[0]));
        if bound.constant(source).is_some() || (is_input && is_output) {
            unit.alias = false;
        } else {
            root[unit.outputs[0].index()] = source;
        }
    }
    let steps: Vec<&Unit> = units.iter().filter(|unit| !unit.alias).collect();
    let mut lifetimes: BTreeMap<ValueId, Request> = BTreeMap::new();
    let too_big = || {
        crate::Refusal::new("arena", "a plan below 2^63 bytes", "a larger one", "use a smaller model or batch")
            .with_exit(crate::Exit::Lacking)
    };
    let bytes = |ty: &TensorType| super::arena::bytes(ty.element, &ty.shape).ok_or_else(too_big);
    for &id in &graph.inputs {
        lifetimes.insert(id, Request { bytes: bytes(&bound.ty(id))?, first: 0, last: steps.len() });
    }
    for (i, unit) in steps.iter().enumerate() {
        for &id in &unit.outputs {
            lifetimes.insert(id, Request { bytes: bytes(&bound.ty(id))?, first: i, last: i });
        }
        for id in unit.inputs.iter().flatten() {
            if let Some(lifetime) = lifetimes.get_mut(&root[id.index()]) {
                lifetime.last = lifetime.last.max(i);
            }
        }
    }
    for id in &graph.outputs {
        if let Some(lifetime) = lifetimes.get_mut(&root[id.index()]) {
            lifetime.last = steps.len();
        }
    }
    let mut requests: Vec<Request> = lifetimes.values().copied().collect();
    for (i, unit) in steps.iter().enumerate() {
        if let Some(ty) = &unit.scratch {
            requests.push(Request { bytes: bytes(ty)?, first: i, last: i });
        }
    }
    let (offsets, arena_bytes) = place(&requests).ok_or_else(too_big)?;
    let mut scratch_offsets = offsets[lifetimes.len()..].iter();
    let offsets: BTreeMap<ValueId, usize> = lifetimes.keys().copied().zip(offsets.iter().copied()).collect();
    let arena = Arena::new(arena_bytes)?;

    let mut constants: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let read = steps.iter().flat_map(|unit| unit.inputs.iter().flatten()).chain(&graph.outputs);
    for &id in read {
        if let Some(tensor) = bound.constant(id) {
            constants.entry(id).or_insert_with(|| tensor.clone());
        }
    }
    let bind = |id: ValueId| match constants.get(&id) {
        Some(tensor) => bind_constant(tensor),
        None => {
            let ty = bound.ty(id);
            arena.bind(ty.element, &ty.shape, offsets[&root[id.index()]])
        }
    };
    let info = |unit: &Unit| {
        let node = &graph.nodes[unit.node];
        let shape = |id: ValueId| bound.types[id.index()].as_ref().map_or(&[][..], |b| &b.shape[..]);
        let inputs: Vec<Option<&[usize]>> = node.inputs.iter().map(|id| id.map(shape)).collect();
        let outputs: Vec<&[usize]> = node.outputs.iter().map(|&id| shape(id)).collect();
        StepInfo {
            node: ops::node_place(unit.node, node),
            kernel: unit.kernel.name(),
            macs: node.op.def().macs(&inputs, &outputs),
        }
    };
    let inputs = graph.inputs.iter().map(|&id| bind(id)).collect();
    let outputs = graph.outputs.iter().map(|&id| Some(bind(id))).collect();
    let infos: Vec<StepInfo> = units.iter().filter(|unit| !unit.alias).map(info).collect();
    let bindings: Vec<_> = (steps.iter())
        .map(|unit| {
            let inputs: Vec<Option<Binding>> = unit.inputs.iter().map(|id| id.map(bind)).collect();
            let mut outputs: Vec<Binding> = unit.outputs.iter().map(|&id| bind(id)).collect();
            let scratch = unit.scratch.iter().zip(&mut scratch_offsets);
            outputs.extend(scratch.map(|(ty, &offset)| arena.bind(ty.element, &ty.shape, offset)));
            (inputs, outputs)
        })
        .collect();
    let kernels = units.into_iter().filter(|unit| !unit.alias).map(|unit| unit.kernel);
    let steps: Vec<Step> = (kernels.zip(bindings).zip(infos))
        .map(|((kernel, (inputs, outputs)), info)| Step { kernel, inputs, outputs, info })
        .collect();
    let held: usize = steps.iter().map(|step| step.kernel.weights_bytes()).sum();
    let plan = Plan {
        steps,
        inputs,
        outputs,
        input_types: graph.inputs.iter().map(|&id| bound.ty(id)).collect(),
        output_types: graph.outputs.iter().map(|&id| bound.ty(id)).collect(),
        arena_bytes,
        weights_bytes: held + constants.values().map(Tensor::bytes).sum::<usize>(),
    };
    Ok((plan, Memory { _arena: arena, _constants: constants }))
}

#[cfg(test)]
mod tests {
    use super::super::Engine;
    use crate::graph::{ElementType, Graph, Shape, Tensor};
    use crate::ops::arith::Add;
    use crate::ops::gemm::MatMul;
    use crate::ops::relu::Relu;
    use crate::ops::reshape::Reshape;

    #[test]
    fn runs_a_graph_again_and_again_with_aliases_constants_and_a_bound_batch() {
        let mut graph = Graph::new("test");
        let x = graph.add_input("x", ElementType::F32, Shape::batched(&[2, 2]));
        let to = graph.add_initializer("to", Tensor::from_vec(&[2], vec![0_i64, -1]));
        let flat = graph.apply(Reshape { allowzero: false }, &[x, to], "flat");
        let w =
            graph.add_initializer("w", Tensor::from_vec(&[4, 2], vec![1.0_f32, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]));
        let b = graph.add_initializer("b", Tensor::from_vec(&[2], vec![0.5_f32, 0.5]));
        let b2 = graph.apply(Add, &[b, b], "b2");
        let product = graph.apply(MatMul, &[flat, w], "product");
        let sum = graph.apply(Add, &[product, b2], "sum");
        let y = graph.apply(Relu, &[sum], "y");
        graph.outputs = alloc::vec![y, flat, b2, x];
        graph.validate().expect("valid");
        let mut engine = Engine::new(&graph, 3).expect("plans");
        for round in 0..3_i16 {
            let values: Vec<f32> = (0..12).map(|i| f32::from(i + round)).collect();
            engine.input_mut(0).get::<f32>().copy_from_slice(&values);
            engine.run().expect("runs");
            let r = f32::from(round);
            let expected = [6.0 + 4.0 * r + 1.0, 0.0, 22.0 + 4.0 * r + 1.0, 0.0, 38.0 + 4.0 * r + 1.0, 0.0];
            assert_eq!(engine.output(0).get::<f32>(), expected);
            assert_eq!((engine.output(1).shape, engine.output(1).get::<f32>()), (&[3, 4][..], &values[..]));
            assert_eq!(engine.output(2).get::<f32>(), [1.0, 1.0]);
            assert_eq!(engine.output(3).shape, [3, 2, 2]);
        }
        assert_eq!(engine.steps().len(), 4, "the sum of constants was folded; the flat output is a copy");
    }
}
