//! First values of the weights.

use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::ops::{Op, lstm};

use crate::rng::{Purpose, Rng};

/// Fills the weights of convolutions and linear layers; biases of both stay 0, batch norms what they are.
///
/// * Convolutions: normal with deviation `sqrt(2 / fan_out)`, `fan_out = channels / groups · taps` (He et al. 2015, arXiv
///   1502.01852, eq. 14; as torchvision's and RepDistiller's residual networks).
/// * Linear layers: normal with deviation `sqrt(2 / fan_in)` before a ReLU, else uniform in `±1 / sqrt(fan_in)` (torch's
///   default for weights).
/// * LSTM and GRU: weights uniform in `±1 / sqrt(units)` (torch's default); the bias of LSTM's forget gate is 1 (Jozefowicz
///   et al. 2015, §3.2).
///
/// Each weight has a stream of its own, by its place among the graph's nodes, so that no layer depends on another's size.
pub fn initialize(graph: &mut Graph, seed: u64) {
    initialize_from(graph, seed, 0);
}

/// The same for the nodes from `first` on: layers added to a network that has its weights.
pub fn initialize_from(graph: &mut Graph, seed: u64, first: usize) {
    let consumers = graph.consumers();
    for i in first..graph.nodes.len() {
        let node = &graph.nodes[i];
        let Some(weight) = node.input(1) else { continue };
        if matches!(node.op, Op::LSTM(_) | Op::GRU(_)) {
            let (recurrent, node) = ([Some(weight), node.input(2), node.input(3)], i as u64);
            initialize_recurrent(graph, recurrent, Rng::new(seed, Purpose::Initialize, node, 0));
            continue;
        }
        let feeds_relu = consumers[node.outputs[0].index()].iter().any(|&j| matches!(graph.nodes[j].op, Op::Relu(_)));
        let (is_conv, groups) = match &node.op {
            Op::Conv(conv) => (true, conv.group),
            Op::Gemm(_) | Op::MatMul(_) => (false, 1),
            _ => continue,
        };
        let Some(tensor) = graph.initializers.get_mut(&weight) else { continue };
        let (outputs, fan_in) = match (&node.op, tensor.shape()) {
            (Op::MatMul(_), &[inputs, outputs]) => (outputs, inputs),
            (_, shape) => (shape[0], shape[1..].iter().product::<usize>()),
        };
        let taps: usize = tensor.shape()[1..].iter().skip(1).product();
        let Some(values) = tensor.get_mut::<f32>() else { continue };
        let mut rng = Rng::new(seed, Purpose::Initialize, i as u64, 0);
        let deviation =
            if is_conv { 2.0 / ((outputs / groups).max(1) * taps) as f64 } else { 2.0 / fan_in as f64 }.sqrt();
        let bound = 1.0 / (fan_in as f64).sqrt();
        for value in values {
            *value = if is_conv || feeds_relu {
                (rng.normal() * deviation) as f32
            } else {
                ((2.0 * rng.uniform() - 1.0) * bound) as f32
            };
        }
    }
}

/// Weights `[D, G H, I]` and `[D, G H, H]`, biases `[D, 2 G H]`, of the input and of the state.
fn initialize_recurrent(graph: &mut Graph, [weight, state, bias]: [Option<ValueId>; 3], mut rng: Rng) {
    let mut units = 1;
    for id in [state, weight].into_iter().flatten() {
        let Some(tensor) = graph.initializers.get_mut(&id) else { continue };
        if Some(id) == state {
            units = tensor.shape()[2].max(1);
        }
        let bound = 1.0 / (units as f64).sqrt();
        for value in tensor.get_mut::<f32>().into_iter().flatten() {
            *value = ((2.0 * rng.uniform() - 1.0) * bound) as f32;
        }
    }
    let Some(bias) = bias.and_then(|id| graph.initializers.get_mut(&id)) else { return };
    let rows = bias.shape()[1];
    for direction in bias.get_mut::<f32>().into_iter().flat_map(|bias| bias.chunks_exact_mut(rows)) {
        if rows == 2 * lstm::GATES * units {
            direction[2 * units..3 * units].fill(1.0);
        }
    }
}
