//! Puts QuantizeLinear and DequantizeLinear where the plan has them: one Q a held value, a DQ a reader.

use std::collections::{BTreeMap, BTreeSet};

use kd_runtime::Result;
use kd_runtime::graph::{Element, ElementType, Graph, Node, Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::ops::quantize_linear::{DequantizeLinear, QuantizeLinear};

use super::plan::{Plan, Treatment};
use super::scheme::{self, Activation};
use super::weights::{self, Weights};

struct Rewrite<'a> {
    plan: &'a Plan,
    graph: Graph,
    nodes: Vec<Node>,
    names: BTreeSet<String>,
    /// The integers of each held value, with scale and zero point.
    integers: BTreeMap<ValueId, [ValueId; 3]>,
    /// Weights that are quantized already, by the float weight and the axis of its channels.
    weights: BTreeMap<(ValueId, usize), (Weights, [ValueId; 3])>,
}

/// The quantized graph, validated.
pub fn rewrite(graph: &Graph, plan: &Plan) -> Result<Graph> {
    let names = graph.values.iter().map(|value| value.name.clone()).collect();
    let mut rewrite = Rewrite {
        plan,
        graph: graph.clone(),
        nodes: Vec::new(),
        names,
        integers: BTreeMap::new(),
        weights: BTreeMap::new(),
    };
    for &input in &graph.inputs {
        rewrite.quantize(input);
    }
    for (node, treatment) in graph.nodes.iter().zip(&plan.treatments) {
        rewrite.add(node.clone(), treatment);
    }
    rewrite.finish()
}

impl Rewrite<'_> {
    fn fresh(&mut self, name: &str) -> String {
        let mut fresh = name.to_string();
        let mut i = 1;
        while !self.names.insert(fresh.clone()) {
            fresh = format!("{name}.{i}");
            i += 1;
        }
        fresh
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh(name);
        self.graph.add_initializer(&name, tensor)
    }

    /// Adds a node behind those that are there already.
    fn node(&mut self, op: impl Into<Op>, inputs: &[ValueId], output: &str) -> ValueId {
        let output = self.fresh(output);
        let id = self.graph.apply(op, inputs, &output);
        self.nodes.extend(self.graph.nodes.pop());
        id
    }

    fn name(&self, id: ValueId) -> String {
        self.graph.value(id).name.clone()
    }

    /// Quantizes a value behind what makes it, if it is held.
    fn quantize(&mut self, id: ValueId) {
        let Some(&Activation { scale, zero_point }) = self.plan.held.get(&id) else { return };
        let name = self.name(id);
        let scale = self.constant(&format!("{name}.scale"), Tensor::scalar(scale));
        let zero_point = self.constant(&format!("{name}.zero_point"), Tensor::scalar(zero_point));
        let op = QuantizeLinear { axis: 1, block_size: 0, output: None };
        let q = self.node(op, &[id, scale, zero_point], &format!("{name}.q"));
        self.integers.insert(id, [q, scale, zero_point]);
    }

    /// What a reader of a value reads: the dequantized integers where it is held, by a node of its own.
    fn read(&mut self, id: ValueId) -> ValueId {
        let Some(&inputs) = self.integers.get(&id) else { return id };
        let name = self.name(id);
        self.node(DequantizeLinear { axis: 1, block_size: 0 }, &inputs, &format!("{name}.dq"))
    }

    fn add(&mut self, mut node: Node, treatment: &Treatment) {
        let original = node.inputs.clone();
        if *treatment == Treatment::Integer {
            self.constants(&mut node);
        }
        for (slot, id) in node.inputs.iter_mut().zip(original) {
            // Constants have been replaced where they are quantized.
            if let Some(id) = id.filter(|&id| *slot == Some(id)) {
                *slot = Some(self.read(id));
            }
        }
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        outputs.into_iter().for_each(|id| self.quantize(id));
    }

    /// Quantizes the float constants of a node that computes in integers.
    fn constants(&mut self, node: &mut Node) {
        let axis = match &node.op {
            Op::Conv(_) => 0,
            Op::Gemm(gemm) => usize::from(!gemm.trans_b),
            Op::MatMul(_) => 1,
            Op::Add(_) | Op::Mul(_) => {
                for slot in &mut node.inputs {
                    if let Some(id) = slot.filter(|id| self.is_float_constant(*id)) {
                        *slot = Some(self.operand(id));
                    }
                }
                return;
            }
            _ => return,
        };
        let Some(weight) = node.input(1).filter(|&id| self.is_float_constant(id)) else { return };
        let input_scale = node.input(0).and_then(|id| self.plan.held.get(&id)).map_or(1.0, |held| held.scale);
        let bias_id = node.input(2);
        let bias = self.graph.constant(bias_id).and_then(|tensor| tensor.get::<f32>()).map(<[f32]>::to_vec);
        let quantized = weights::quantize(&self.graph.initializers[&weight], axis, input_scale, bias.as_deref());
        let scales = weights::bias_scales(input_scale, &quantized.scales);
        node.inputs[1] = Some(self.weight(weight, axis, quantized));
        if let (Some(bias), Some(id)) = (bias, bias_id) {
            let name = self.name(id);
            let integers = weights::bias(&bias, &scales);
            let zeros = vec![0_i32; integers.len()];
            let q = self.vector(&format!("{name}.q"), integers);
            let (scales, zeros) =
                (self.vector(&format!("{name}.scale"), scales), self.vector(&format!("{name}.zero_point"), zeros));
            let op = DequantizeLinear { axis: 0, block_size: 0 };
            node.inputs[2] = Some(self.node(op, &[q, scales, zeros], &format!("{name}.dq")));
        }
    }

    fn is_float_constant(&self, id: ValueId) -> bool {
        self.graph.initializers.get(&id).is_some_and(|tensor| tensor.element() == ElementType::F32)
    }

    fn vector<T: Element>(&mut self, name: &str, values: Vec<T>) -> ValueId {
        self.constant(name, Tensor::from_vec(&[values.len()], values))
    }

    /// A reader's own dequantized int8 weights; the integers are shared by readers that have the same.
    fn weight(&mut self, id: ValueId, axis: usize, quantized: Weights) -> ValueId {
        let name = self.name(id);
        let shared = self.weights.get(&(id, axis)).filter(|(same, _)| *same == quantized).map(|(_, ids)| *ids);
        let ids = shared.unwrap_or_else(|| {
            let q = self.constant(&format!("{name}.q"), quantized.values.clone());
            let scales = self.vector(&format!("{name}.scale"), quantized.scales.clone());
            let zeros = self.vector(&format!("{name}.zero_point"), vec![0_i8; quantized.scales.len()]);
            self.weights.insert((id, axis), (quantized, [q, scales, zeros]));
            [q, scales, zeros]
        });
        self.node(DequantizeLinear { axis: axis as i64, block_size: 0 }, &ids, &format!("{name}.dq"))
    }

    /// A constant operand of a sum or product, as uint8.
    fn operand(&mut self, id: ValueId) -> ValueId {
        let tensor = &self.graph.initializers[&id];
        let values = tensor.get::<f32>().unwrap_or(&[]);
        let range = crate::calibrate::Range {
            min: values.iter().copied().fold(0.0, f32::min),
            max: values.iter().copied().fold(0.0, f32::max),
        };
        let held = Activation::of(range);
        let integers: Vec<u8> = values.iter().map(|&x| scheme::activation(x, held)).collect();
        let integers = Tensor::from_vec(tensor.shape(), integers);
        let name = self.name(id);
        let q = self.constant(&format!("{name}.q"), integers);
        let scale = self.constant(&format!("{name}.scale"), Tensor::scalar(held.scale));
        let zero_point = self.constant(&format!("{name}.zero_point"), Tensor::scalar(held.zero_point));
        self.node(DequantizeLinear { axis: 1, block_size: 0 }, &[q, scale, zero_point], &format!("{name}.dq"))
    }

    /// Outputs that are held are read like by any reader, under their own names.
    fn finish(mut self) -> Result<Graph> {
        for i in 0..self.graph.outputs.len() {
            let id = self.graph.outputs[i];
            let shown = self.read(id);
            if shown == id || self.graph.inputs.contains(&id) {
                self.graph.outputs[i] = shown;
                continue;
            }
            let name = self.name(id);
            let inner = self.fresh(&format!("{name}.float"));
            self.graph.values[id.index()].name = inner;
            self.graph.values[shown.index()].name = name;
            self.graph.outputs[i] = shown;
        }
        self.graph.nodes = self.nodes;
        self.graph.prune();
        self.graph.validate()?;
        Ok(self.graph)
    }
}
