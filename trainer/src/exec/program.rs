//! What an executor knows of a graph at every batch size: who is trained, what needs a gradient, the steps.

use std::collections::BTreeMap;

use kd_runtime::graph::infer::{self, Bound};
use kd_runtime::graph::{ElementType, Graph, Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::{Parameter, Plan, Real, Role, frames};
use crate::ops::kernels::buffer;
use crate::ops::kernels::frame::Frame;
use crate::ops::table::{self, Part};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The graph's input.
    Input,
    /// A parameter.
    Parameter(usize),
    /// A float constant.
    Constant(usize),
    /// A step.
    Computed,
    /// No float, or never computed.
    Other,
}

/// What a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Its node.
    Node,
    /// Its node, a batch norm; then the Add of input 5, if there is one, and a Relu.
    Norm {
        /// Whether there is a Relu.
        relu: bool,
    },
    /// One of the outputs that its node's step wrote one after another.
    Part(usize),
    /// Planar to channels last.
    ToFrame,
    /// Channels last to planar.
    ToPlanar,
}

/// One node that is run.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the graph.
    pub node: usize,
    /// What is run.
    pub run: Run,
    /// The values that its inputs are, for their shapes; `None` where one is left out.
    pub ids: Vec<Option<ValueId>>,
    /// The roots of its inputs; `None` where one is left out.
    pub inputs: Vec<Option<usize>>,
    /// The root of its first output.
    pub output: usize,
    /// Whether the gradient of each input is computed.
    pub wanted: Vec<bool>,
    /// Whether it has no kernel here and is evaluated by the runtime.
    pub fallback: bool,
}

/// A graph understood.
pub struct Program<T> {
    /// The graph as it was given.
    pub graph: Graph,
    /// For each value the one that holds its elements: itself, or what it is another shape of.
    pub root: Vec<usize>,
    /// Where each root comes from.
    pub origin: Vec<Origin>,
    /// For each root the value whose elements it holds: itself, or what was converted.
    pub value_of: Vec<usize>,
    /// Roots that hold all outputs of a node one after another, and the node.
    pub packed: BTreeMap<usize, usize>,
    /// For each root its layout, if it holds images with their channels last.
    pub frames: Vec<Option<Frame>>,
    /// Whether a root's gradient is needed.
    pub needs: Vec<bool>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Float constants.
    pub constants: Vec<Vec<T>>,
    /// The parameters' initializers.
    pub parameters: Vec<ValueId>,
    /// Values seen from outside: those planned, then the graph's outputs.
    pub taps: Vec<ValueId>,
    /// Their shapes for one sample.
    pub tap_shapes: Vec<Vec<usize>>,
    /// The largest batch.
    pub batch: usize,
    /// Whether there is a backward pass.
    pub backward: bool,
}

/// A constant's value: an initializer, or what inference computed.
pub fn constant<'a>(graph: &'a Graph, bound: &'a [Option<Bound>], id: ValueId) -> Option<&'a Tensor> {
    graph.initializers.get(&id).or_else(|| bound[id.index()].as_ref()?.value.as_ref())
}

/// Whether the first output is the first input's elements, both f32.
fn is_alias(graph: &Graph, bound: &[Option<Bound>], node: &kd_runtime::graph::Node) -> bool {
    let is_f32 = |id: ValueId| bound[id.index()].as_ref().is_some_and(|b| b.element == ElementType::F32);
    table::is_alias(&node.op)
        && node.outputs.len() == 1
        && node.input(0).is_some_and(|id| is_f32(id) && graph.inputs.first() != Some(&id))
        && is_f32(node.outputs[0])
}

/// What each value is to the optimiser if it is an initializer: what its readers say.
fn roles(graph: &Graph) -> Vec<Option<Role>> {
    let mut roles: Vec<Option<Role>> = vec![None; graph.values.len()];
    for node in graph.nodes.iter().rev() {
        for (i, id) in node.inputs.iter().enumerate() {
            let Some(id) = id else { continue };
            let role = match table::part(&node.op, i) {
                Part::Trained(role) => Some(role),
                Part::Pass => node.outputs.first().and_then(|out| roles[out.index()]),
                Part::Fixed => None,
            };
            roles[id.index()] = role.or(roles[id.index()]);
        }
    }
    roles
}

/// For each value whether a tap or output depends on it.
fn needed(graph: &Graph, taps: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; graph.values.len()];
    taps.iter().for_each(|id| needed[id.index()] = true);
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|id| needed[id.index()]) {
            node.inputs.iter().flatten().for_each(|id| needed[id.index()] = true);
        }
    }
    needed
}

fn find_taps(graph: &Graph, plan: &Plan) -> Result<Vec<ValueId>> {
    let mut taps = Vec::new();
    for name in &plan.taps {
        let id = graph.find(name).ok_or_else(|| {
            Refusal::new("tap", "the name of a value of the network", format!("`{name}`"), "name another value")
        })?;
        if !taps.contains(&id) {
            taps.push(id);
        }
    }
    let outputs = graph.outputs.iter().filter(|id| !taps.contains(id)).copied().collect::<Vec<_>>();
    taps.extend(outputs);
    Ok(taps)
}

fn check_input(graph: &Graph) -> Result<()> {
    let [input] = graph.inputs[..] else {
        let action = "cut the model to one input";
        return Err(Refusal::new("network", "one input", format!("{} inputs", graph.inputs.len()), action));
    };
    let value = graph.value(input);
    if value.element != ElementType::F32 {
        let at = format!("input `{}`", value.name);
        return Err(Refusal::new(at, "f32 elements", value.element, "feed the network floats"));
    }
    super::sample_shape(graph, input).map(|_| ())
}

/// Builds a program step by step in the order of the graph.
struct Builder<'a, T: Real> {
    bound: &'a [Option<Bound>],
    roles: Vec<Option<Role>>,
    program: Program<T>,
    parameters: Vec<Parameter<T>>,
}

impl<T: Real> Program<T> {
    /// Understands a graph; gives its parameters too, with empty gradients where there is no backward pass.
    pub fn new(graph: &Graph, plan: &Plan) -> Result<(Self, Vec<Parameter<T>>)> {
        check_input(graph)?;
        let bound = infer::bind(graph, plan.batch)?;
        let taps = find_taps(graph, plan)?;
        let tap_shapes = taps.iter().map(|&id| super::sample_shape(graph, id)).collect::<Result<_>>()?;
        let n = graph.values.len();
        let mut origin = vec![Origin::Other; n];
        origin[graph.inputs[0].index()] = Origin::Input;
        let program = Self {
            graph: graph.clone(),
            root: (0..n).collect(),
            origin,
            value_of: (0..n).collect(),
            packed: BTreeMap::new(),
            frames: vec![None; n],
            needs: vec![false; n],
            steps: Vec::new(),
            constants: Vec::new(),
            parameters: Vec::new(),
            taps,
            tap_shapes,
            batch: plan.batch,
            backward: plan.backward,
        };
        let mut builder = Builder { bound: &bound, roles: roles(graph), program, parameters: Vec::new() };
        let needed = needed(graph, &builder.program.taps);
        for i in 0..graph.nodes.len() {
            if graph.nodes[i].outputs.iter().any(|id| needed[id.index()]) {
                builder.add(graph, i)?;
            }
        }
        for &tap in &builder.program.taps {
            let root = builder.program.root[tap.index()];
            if builder.program.origin[root] == Origin::Other {
                let at = format!("value `{}`", graph.value(tap).name);
                let action = "choose another value";
                return Err(Refusal::new(at, "an f32 value that is computed", graph.value(tap).element, action));
            }
        }
        frames::plan(&mut builder.program, &bound, plan.gpu.is_none())?;
        Ok((builder.program, builder.parameters))
    }

    /// The roots of what a step computes.
    pub fn outputs<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = usize> + 'a {
        let of_node = if step.fallback { &self.graph.nodes[step.node].outputs[..] } else { &[] };
        let own = (!step.fallback).then_some(step.output);
        own.into_iter().chain(of_node.iter().map(|id| id.index()))
    }

    /// For each root whether one of these taps depends on it.
    pub fn needed(&self, taps: &[ValueId]) -> Vec<bool> {
        let mut needed = vec![false; self.root.len()];
        taps.iter().filter_map(|tap| self.root.get(tap.index())).for_each(|&root| needed[root] = true);
        for step in self.steps.iter().rev() {
            if self.outputs(step).any(|root| needed[root]) {
                step.inputs.iter().flatten().for_each(|&root| needed[root] = true);
            }
        }
        needed
    }

    /// For each parameter the axis of its units; see [`Executor::unit_axes`](super::Executor::unit_axes).
    pub fn unit_axes(&self) -> Vec<usize> {
        let axis = |&id: &ValueId| {
            let reads = |node: &kd_runtime::graph::Node| {
                let rank = self.graph.value(id).shape.rank();
                let reads = |i: usize| node.input(i) == Some(id);
                match &node.op {
                    Op::MatMul(_) if reads(1) => Some(rank.saturating_sub(1)),
                    Op::Gemm(gemm) if reads(1) && !gemm.trans_b => Some(1),
                    Op::ConvTranspose(_) if reads(1) => Some(1),
                    Op::LSTM(_) | Op::GRU(_) if reads(1) || reads(2) => Some(1),
                    _ => None,
                }
            };
            self.graph.nodes.iter().find_map(reads).unwrap_or(0)
        };
        self.parameters.iter().map(axis).collect()
    }
}

impl<T: Real> Builder<'_, T> {
    fn is_f32(&self, id: ValueId) -> bool {
        self.bound[id.index()].as_ref().is_some_and(|b| b.element == ElementType::F32)
    }

    /// Whether an initializer that arithmetic reads is trained: if it has several elements and what it meets depends on
    /// a parameter. So scaling an input (`x / 255`) stays as it is.
    fn arithmetic_trains(&self, node: &kd_runtime::graph::Node, i: usize, tensor: &Tensor) -> bool {
        let other = node.input(1 - i.min(1)).map(|id| self.program.root[id.index()]);
        tensor.len() > 1 && other.is_some_and(|root| self.program.needs[root])
    }

    /// Registers the float initializers that a node reads.
    fn read_initializers(&mut self, graph: &Graph, node: &kd_runtime::graph::Node) {
        for (i, id) in node.inputs.iter().enumerate() {
            let Some(id) = *id else { continue };
            let Some(tensor) = graph.initializers.get(&id) else { continue };
            if self.program.origin[id.index()] != Origin::Other {
                continue;
            }
            let Some(values) = tensor.get::<f32>() else { continue };
            let values: Vec<T> = buffer::collect(values.iter().map(|&v| T::from_f32(v)));
            let arithmetic = matches!(node.op, Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Div(_));
            let role = self.roles[id.index()].filter(|_| !arithmetic || self.arithmetic_trains(node, i, tensor));
            self.program.origin[id.index()] = match role {
                Some(role) => {
                    let has_gradient = self.program.backward && role.is_trained();
                    let gradient = if has_gradient { buffer::zeros(values.len()) } else { Vec::new() };
                    let name = graph.value(id).name.clone();
                    let shape = tensor.shape().to_vec();
                    let (value, gradient) = (values.into(), gradient.into());
                    self.parameters.push(Parameter { name, shape, role, value, gradient });
                    self.program.parameters.push(id);
                    self.program.needs[id.index()] = role.is_trained();
                    Origin::Parameter(self.parameters.len() - 1)
                }
                None => {
                    self.program.constants.push(values);
                    Origin::Constant(self.program.constants.len() - 1)
                }
            };
        }
    }

    fn add(&mut self, graph: &Graph, i: usize) -> Result<()> {
        let node = &graph.nodes[i];
        self.read_initializers(graph, node);
        let program = &mut self.program;
        let inputs: Vec<Option<usize>> = node.inputs.iter().map(|id| id.map(|id| program.root[id.index()])).collect();
        let output = node.outputs[0];
        if is_alias(graph, self.bound, node)
            && let Some(source) = inputs[0]
        {
            program.root[output.index()] = source;
            return Ok(());
        }
        let trained = inputs.iter().flatten().any(|&root| program.needs[root]);
        let known = |id: &ValueId| self.bound[id.index()].as_ref().is_some_and(|b| b.value.is_some());
        if !trained && node.outputs.iter().all(known) {
            // A constant: shapes, and floats made of constants.
            if let Some(values) = constant(graph, self.bound, output).and_then(|t| t.get::<f32>()) {
                program.constants.push(values.iter().map(|&v| T::from_f32(v)).collect());
                program.origin[output.index()] = Origin::Constant(program.constants.len() - 1);
            }
            return Ok(());
        }
        let is_read = |id: &ValueId| {
            let reads = |node: &kd_runtime::graph::Node| node.inputs.contains(&Some(*id));
            graph.nodes.iter().any(reads) || program.taps.contains(id)
        };
        let read: Vec<bool> = node.outputs.iter().map(is_read).collect();
        let packs = read[1..].contains(&true) && table::writes_all(&node.op);
        let floats = self.is_f32(output) && node.input(0).is_some_and(|id| self.is_f32(id));
        let has_kernel = table::NAMES.contains(&node.op.name()) && floats && (packs || !read[1..].contains(&true));
        let program = &mut self.program;
        if !has_kernel && trained && program.backward {
            return Err(table::no_gradient(&node.op).at_node(i, node));
        }
        for id in &node.outputs {
            program.needs[id.index()] = trained;
        }
        let outputs = if has_kernel && !packs { &node.outputs[..1] } else { &node.outputs[..] };
        for id in outputs {
            if self.bound[id.index()].as_ref().is_some_and(|b| b.element == ElementType::F32) {
                program.origin[id.index()] = Origin::Computed;
            }
        }
        let wanted =
            inputs.iter().map(|root| program.backward && root.is_some_and(|root| program.needs[root])).collect();
        let ids = node.inputs.clone();
        program.steps.push(Step {
            node: i,
            run: Run::Node,
            ids,
            inputs,
            output: if packs { program.root.len() } else { output.index() },
            wanted,
            fallback: !has_kernel,
        });
        if packs {
            self.unpack(node, i, &read);
        }
        Ok(())
    }

    /// Adds the root that all outputs of a node lie in, and a step for each output that is read.
    fn unpack(&mut self, node: &kd_runtime::graph::Node, i: usize, read: &[bool]) {
        let program = &mut self.program;
        let packed = program.root.len();
        let needed = program.needs[node.outputs[0].index()];
        program.root.push(packed);
        program.origin.push(Origin::Computed);
        program.needs.push(needed);
        program.frames.push(None);
        program.value_of.push(node.outputs[0].index());
        program.packed.insert(packed, i);
        for (k, id) in node.outputs.iter().enumerate().filter(|(k, _)| read[*k]) {
            program.steps.push(Step {
                node: i,
                run: Run::Part(k),
                ids: vec![None],
                inputs: vec![Some(packed)],
                output: id.index(),
                wanted: vec![program.backward && needed],
                fallback: false,
            });
        }
    }
}
