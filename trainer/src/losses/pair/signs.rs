//! Which values are never below 0: an adapter that ends in a ReLU reaches no other.

use std::collections::BTreeSet;

use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::ops::Op;

use super::{Pair, Tap};

impl Pair<'_> {
    /// Whether a tap of the student is never below 0, as far as its graph says.
    pub fn student_is_never_negative(&self, tap: &Tap) -> bool {
        tap_is_never_negative(&self.student, tap)
    }

    /// Whether a tap of the teacher is never below 0, as far as its graph says.
    pub fn teacher_is_never_negative(&self, tap: &Tap) -> bool {
        self.teacher.is_some_and(|(graph, _)| tap_is_never_negative(graph, tap))
    }

    /// Says that `adapter` ends without its published ReLU, where values that it is compared with may be negative.
    pub fn note_no_relu(&mut self, adapter: &str, values: &[String]) {
        if !values.is_empty() {
            let values = values.join(", ");
            self.notes
                .push(format!("leaves out the ReLU that {adapter} ends in as published: {values} may be negative"));
        }
    }
}

fn tap_is_never_negative(graph: &Graph, tap: &Tap) -> bool {
    graph.find(&tap.name).is_some_and(|id| is_never_negative(graph, &graph.producers(), id))
}

/// Whether a value is made of what ReLUs, sigmoids and other functions of their kind let through.
pub fn is_never_negative(graph: &Graph, producers: &[Option<usize>], id: ValueId) -> bool {
    let (mut left, mut seen) = (vec![id], BTreeSet::new());
    while let Some(id) = left.pop() {
        let Some(node) = producers[id.index()].map(|i| &graph.nodes[i]) else { return false };
        match &node.op {
            _ if !seen.insert(id) => {}
            Op::Relu(_) | Op::Sigmoid(_) | Op::HardSigmoid(_) | Op::Softplus(_) | Op::Softmax(_) => {}
            Op::Clip(_) if !lets_zero_through(graph, node.input(2)) => return false,
            Op::Clip(_) if is_bounded_by_zero(graph, node.input(1)) => {}
            Op::Concat(_) | Op::Add(_) | Op::Mul(_) => left.extend(node.inputs.iter().flatten()),
            Op::Clip(_)
            | Op::Slice(_)
            | Op::Split(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Transpose(_)
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::GlobalMaxPool(_)
            | Op::GlobalAveragePool(_)
            | Op::ReduceMean(_)
            | Op::Dropout(_)
            | Op::Identity(_) => {
                left.extend(node.input(0));
            }
            _ => return false,
        }
    }
    true
}

/// Whether an upper bound lets 0 through: there is none, or a constant of 0 or above.
fn lets_zero_through(graph: &Graph, high: Option<ValueId>) -> bool {
    high.is_none() || is_bounded_by_zero(graph, high)
}

/// Whether a bound is a constant of 0 or above.
fn is_bounded_by_zero(graph: &Graph, low: Option<ValueId>) -> bool {
    let low = graph.constant(low).and_then(|tensor| tensor.get::<f32>());
    low.is_some_and(|low| low.first().is_some_and(|low| *low >= 0.0))
}
