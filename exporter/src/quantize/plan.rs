//! Which nodes compute in integers, and which values are held as uint8 with which scale. `quantisation` rules: one Q a
//! value, behind the Relu or Clip that follows; what only moves elements keeps the scale; the last product's results
//! stay floats, so that scores are not rounded.

use std::collections::BTreeMap;

use kd_runtime::graph::{ElementType, Graph, Tensor, ValueId};
use kd_runtime::ops::Op;

use super::scheme::Activation;
use super::weights::MOST_DEPTH;
use crate::calibrate::{Calibration, Range};

/// How a node is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Computes in integers: its float inputs that are no constants are held.
    Integer,
    /// Follows what its input is: the clamps behind a product, moves.
    Follows,
    /// Computes in floats, for this reason.
    Float(String),
}

/// What was decided.
pub struct Plan {
    /// Of each node.
    pub treatments: Vec<Treatment>,
    /// Values with a QuantizeLinear.
    pub held: BTreeMap<ValueId, Activation>,
}

/// A graph while it is planned.
struct Planner<'a> {
    graph: &'a Graph,
    calibration: &'a Calibration,
    consumers: Vec<Vec<usize>>,
    producers: Vec<Option<usize>>,
    held: BTreeMap<ValueId, Activation>,
    absorbed: Vec<bool>,
}

/// Plans a folded graph.
pub fn plan(graph: &Graph, calibration: &Calibration) -> Plan {
    let mut planner = Planner {
        graph,
        calibration,
        consumers: graph.consumers(),
        producers: graph.producers(),
        held: BTreeMap::new(),
        absorbed: vec![false; graph.nodes.len()],
    };
    let treatments = (0..graph.nodes.len()).map(|i| planner.treat(i)).collect();
    Plan { treatments, held: planner.held }
}

impl Planner<'_> {
    fn is_float(&self, id: ValueId) -> bool {
        self.graph.value(id).element == ElementType::F32
    }

    fn float_constant(&self, id: Option<ValueId>) -> Option<&Tensor> {
        self.graph.constant(id).filter(|tensor| tensor.element() == ElementType::F32)
    }

    /// Holds a value, if it is not: with the scale of what makes it, else of its range.
    fn hold(&mut self, id: ValueId) {
        if self.held.contains_key(&id) || self.graph.initializers.contains_key(&id) {
            return;
        }
        let made_by = self.producers[id.index()].map(|i| &self.graph.nodes[i].op);
        let activation = match made_by {
            // Known ends: codes that are exact at 0 and 1, and the scale with which runtimes agree.
            Some(Op::Sigmoid(_) | Op::Softmax(_)) => Activation { scale: 1.0 / 256.0, zero_point: 0 },
            Some(Op::Tanh(_)) => Activation { scale: 1.0 / 128.0, zero_point: 128 },
            _ => {
                let range = self.calibration.ranges.get(&id).copied();
                Activation::of(range.unwrap_or(Range { min: 0.0, max: 0.0 }))
            }
        };
        self.held.insert(id, activation);
    }

    fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs.contains(&id)
    }

    /// The end of the clamps behind a value, which become part of the node that makes it.
    fn absorb_clamps(&mut self, mut id: ValueId) -> ValueId {
        while let [reader] = self.consumers[id.index()][..] {
            let node = &self.graph.nodes[reader];
            if self.is_output(id) || node.input(0) != Some(id) || !self.is_clamp(reader) {
                break;
            }
            self.absorbed[reader] = true;
            id = node.outputs[0];
        }
        id
    }

    fn is_clamp(&self, i: usize) -> bool {
        let node = &self.graph.nodes[i];
        match node.op {
            Op::Relu(_) => true,
            Op::Clip(_) => node.inputs[1..].iter().all(|id| id.is_none() || self.float_constant(*id).is_some()),
            _ => false,
        }
    }

    fn treat(&mut self, i: usize) -> Treatment {
        let graph = self.graph;
        let node = &graph.nodes[i];
        if self.absorbed[i] {
            return Treatment::Follows;
        }
        if node.outputs.iter().all(|&id| !self.is_float(id)) {
            // Arithmetic of shapes.
            return Treatment::Follows;
        }
        match &node.op {
            Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_) => match self.product(i) {
                Ok(()) => self.hold_inputs_and_end(i, matches!(node.op, Op::Conv(_))),
                Err(reason) => Treatment::Float(reason),
            },
            Op::Add(_) | Op::Mul(_) => self.hold_inputs_and_end(i, true),
            Op::AveragePool(_) | Op::GlobalAveragePool(_) => {
                let rank = node.input(0).map_or(0, |id| graph.value(id).shape.rank());
                if (3..=4).contains(&rank) {
                    self.hold_inputs_and_end(i, true)
                } else {
                    Treatment::Float("it pools over more than two axes".into())
                }
            }
            Op::Concat(_) => {
                if node.inputs.iter().any(|&id| self.float_constant(id).is_some()) {
                    return Treatment::Float("it joins constants".into());
                }
                self.hold_inputs_and_end(i, true)
            }
            Op::MaxPool(_) if node.outputs.len() > 1 => Treatment::Float("its indices are asked for".into()),
            Op::MaxPool(_) => {
                self.hold_first(i);
                self.same_scale(i)
            }
            Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Gather(_)
            | Op::Identity(_) => self.same_scale(i),
            Op::Relu(_) | Op::LeakyRelu(_) | Op::Clip(_) | Op::Sigmoid(_) | Op::Tanh(_) => self.table(i),
            Op::Elu(_) | Op::Gelu(_) | Op::HardSigmoid(_) | Op::HardSwish(_) | Op::Softplus(_) => self.table(i),
            Op::Softmax(_) | Op::LogSoftmax(_) => Treatment::Float("its sums of exponentials want floats".into()),
            op => Treatment::Float(format!("{} has no integer form here", op.name())),
        }
    }

    /// Whether a product has weights (or a second activation) and a bias that integer kernels take.
    fn product(&self, i: usize) -> Result<(), String> {
        let node = &self.graph.nodes[i];
        let weight = self.float_constant(node.input(1));
        let depth =
            |n: usize| if n <= MOST_DEPTH { Ok(()) } else { Err(format!("{n} products a sum may leave int32")) };
        let bias = |n: usize| match node.input(2) {
            None => Ok(()),
            id => match self.float_constant(id) {
                Some(tensor) if tensor.len() == n => Ok(()),
                _ => Err(format!("its bias is no constant of {n} numbers")),
            },
        };
        match (&node.op, weight) {
            (Op::Conv(_), Some(w)) => {
                let channels = w.shape().first().copied().unwrap_or(1);
                if !(3..=4).contains(&w.shape().len()) {
                    return Err("it has more than two spatial axes".into());
                }
                depth(w.len() / channels.max(1))?;
                bias(channels)
            }
            (Op::Gemm(gemm), Some(w)) => {
                if gemm.alpha != 1.0 || gemm.trans_a || (gemm.beta != 1.0 && node.input(2).is_some()) {
                    return Err("it scales or transposes its input".into());
                }
                let n = w.shape()[usize::from(!gemm.trans_b)];
                depth(w.len() / n.max(1))?;
                bias(n)
            }
            (Op::MatMul(_), Some(w)) => {
                if w.shape().len() != 2 {
                    return Err("its weights are no single matrix".into());
                }
                depth(w.shape()[0])
            }
            (Op::MatMul(_), None) => Ok(()),
            _ => Err("its weights are no constants".into()),
        }
    }

    /// Holds the float inputs that are no constants, and (always, or where a reader can use integers) the end of the
    /// clamps behind the output.
    fn hold_inputs_and_end(&mut self, i: usize, always: bool) -> Treatment {
        let node = &self.graph.nodes[i];
        let takes_weights = matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_));
        for (k, id) in node.inputs.iter().enumerate() {
            if let Some(id) = id.filter(|&id| self.is_float(id))
                && (k < 2 || !takes_weights)
            {
                self.hold(id);
            }
        }
        let end = self.absorb_clamps(node.outputs[0]);
        let useful = self.consumers[end.index()].iter().any(|&reader| {
            !matches!(self.graph.nodes[reader].op, Op::Softmax(_) | Op::LogSoftmax(_) | Op::ReduceMean(_))
        });
        if always || useful {
            self.hold(end);
        }
        Treatment::Integer
    }

    fn hold_first(&mut self, i: usize) {
        if let Some(id) = self.graph.nodes[i].input(0) {
            self.hold(id);
        }
    }

    /// What moves elements keeps scale and zero point; of floats it stays among floats.
    fn same_scale(&mut self, i: usize) -> Treatment {
        let node = &self.graph.nodes[i];
        if let Some(&activation) = node.input(0).and_then(|id| self.held.get(&id)) {
            self.held.insert(node.outputs[0], activation);
        }
        Treatment::Follows
    }

    /// A function of one held element is a table.
    fn table(&mut self, i: usize) -> Treatment {
        let node = &self.graph.nodes[i];
        let constants = node.inputs[1..].iter().all(|id| id.is_none() || self.float_constant(*id).is_some());
        if constants && node.input(0).is_some_and(|id| self.held.contains_key(&id)) {
            self.hold(node.outputs[0]);
            return Treatment::Integer;
        }
        Treatment::Float("what it reads is computed in floats".into())
    }
}
