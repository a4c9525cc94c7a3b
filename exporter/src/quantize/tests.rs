//! Small networks of every shape that the rules speak of: what computes in integers, and how near it stays.

use std::collections::BTreeMap;

use kd_runtime::engine::Engine;
use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::measure::inputs::Random;
use kd_runtime::ops::{self, Op, window::Window};

use super::quantize;
use crate::calibrate::{Calibration, Range};

struct Net {
    graph: Graph,
    random: Random,
}

impl Net {
    fn new(input: &[usize]) -> (Self, ValueId) {
        let mut graph = Graph::new("net");
        let dims = std::iter::once(Dim::Batch).chain(input.iter().map(|&n| Dim::Known(n))).collect();
        let x = graph.add_input("x", ElementType::F32, Shape(dims));
        (Self { graph, random: Random::new(3) }, x)
    }

    fn weights(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let scale = (shape[1..].iter().product::<usize>() as f32).sqrt().recip() * 1.7;
        let n = shape.iter().product::<usize>();
        let values = (0..n).map(|_| self.random.uniform(-scale, scale)).collect::<Vec<f32>>();
        self.graph.add_initializer(name, Tensor::from_vec(shape, values))
    }

    fn conv(&mut self, x: ValueId, name: &str, shape: &[usize], group: usize) -> ValueId {
        let (w, b) = (self.weights(&format!("{name}.w"), shape), self.weights(&format!("{name}.b"), &shape[..1]));
        let pads = vec![shape[2] / 2; 2 * (shape.len() - 2)];
        let op = ops::conv::Conv { window: Window { pads, ..Window::default() }, group };
        self.graph.apply(op, &[x, w, b], name)
    }

    fn linear(&mut self, x: ValueId, name: &str, [n, k]: [usize; 2]) -> ValueId {
        let (w, b) = (self.weights(&format!("{name}.w"), &[n, k]), self.weights(&format!("{name}.b"), &[n]));
        let op = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        self.graph.apply(op, &[x, w, b], name)
    }

    fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId], name: &str) -> ValueId {
        self.graph.apply(op, inputs, name)
    }

    fn finish(mut self, y: ValueId) -> Graph {
        self.graph.outputs = vec![y];
        self.graph.validate().unwrap();
        self.graph
    }
}

fn pool() -> ops::pool::MaxPool {
    let window = Window { kernel: vec![2, 2], strides: vec![2, 2], ..Window::default() };
    ops::pool::MaxPool { window, storage_order: 0 }
}

/// Network, products in it, nodes that stay float.
fn cases() -> Vec<(&'static str, Graph, usize, usize)> {
    use ops::relu::Relu;
    let mut cases = Vec::new();
    let (mut net, x) = Net::new(&[20]);
    let y = net.linear(x, "one", [16, 20]);
    let y = net.apply(Relu, &[y], "relu");
    let y = net.linear(y, "logits", [5, 16]);
    cases.push(("mlp", net.finish(y), 2, 0));

    let (mut net, x) = Net::new(&[3, 8, 8]);
    let y = net.conv(x, "one", &[8, 3, 3, 3], 1);
    let y = net.apply(Relu, &[y], "relu1");
    let y = net.apply(pool(), &[y], "pool");
    let y = net.conv(y, "two", &[8, 1, 3, 3], 8);
    let y = net.apply(Relu, &[y], "relu2");
    let y = net.apply(ops::reshape::Flatten { axis: 1 }, &[y], "flat");
    let y = net.linear(y, "logits", [5, 128]);
    let y = net.apply(ops::softmax::Softmax { axis: -1 }, &[y], "probabilities");
    cases.push(("convolutions, a depthwise one, softmax at the end", net.finish(y), 3, 1));

    let (mut net, x) = Net::new(&[4, 6, 6]);
    let a = net.conv(x, "one", &[4, 4, 3, 3], 1);
    let a = net.apply(Relu, &[a], "relu1");
    let y = net.conv(a, "two", &[4, 4, 3, 3], 1);
    let y = net.apply(ops::arith::Add, &[y, a], "sum");
    let y = net.apply(Relu, &[y], "relu2");
    let y = net.apply(ops::pool::GlobalAveragePool, &[y], "mean");
    let y = net.apply(ops::reshape::Flatten { axis: 1 }, &[y], "features");
    let y = net.linear(y, "logits", [5, 4]);
    cases.push(("a residual block", net.finish(y), 3, 0));

    let (mut net, x) = Net::new(&[2, 30]);
    let y = net.conv(x, "one", &[8, 2, 7], 1);
    let y = net.apply(Relu, &[y], "relu1");
    let z = net.conv(x, "two", &[4, 2, 3], 1);
    let z = net.apply(ops::gate::Sigmoid, &[z], "gate");
    let y = net.apply(ops::concat::Concat { axis: 1 }, &[y, z], "both");
    let y = net.conv(y, "three", &[6, 12, 3], 1);
    let y = net.apply(ops::pool::GlobalAveragePool, &[y], "mean");
    let y = net.apply(ops::reshape::Flatten { axis: 1 }, &[y], "features");
    let y = net.linear(y, "logits", [3, 6]);
    cases.push(("a series: two branches, a gate, concatenation", net.finish(y), 4, 0));

    let (mut net, x) = Net::new(&[4, 6, 6]);
    let y = net.conv(x, "one", &[4, 4, 3, 3], 1);
    let z = net.conv(x, "two", &[4, 4, 1, 1], 1);
    let y = net.apply(ops::concat::Concat { axis: 1 }, &[y, z], "both");
    let y = net.apply(Relu, &[y], "relu");
    let y = net.conv(y, "three", &[6, 8, 3, 3], 1);
    let y = net.apply(ops::pool::GlobalAveragePool, &[y], "mean");
    let y = net.apply(ops::reshape::Flatten { axis: 1 }, &[y], "features");
    let y = net.linear(y, "logits", [3, 6]);
    cases.push(("two branches, concatenation, ReLU behind it", net.finish(y), 4, 0));

    let (mut net, x) = Net::new(&[3, 5, 5]);
    let y = net.conv(x, "out", &[2, 3, 3, 3], 1);
    cases.push(("a convolution that is the output", net.finish(y), 1, 0));
    cases
}

fn run(graph: &Graph, seed: u64) -> Vec<f32> {
    let mut engine = Engine::new(graph, 8).unwrap();
    let mut random = Random::new(seed);
    engine.input_mut(0).get::<f32>().iter_mut().for_each(|x| *x = random.uniform(-1.0, 1.0));
    engine.run().unwrap();
    engine.output(0).get::<f32>().to_vec()
}

/// Ranges over the inputs that the test runs.
fn calibrate(graph: &Graph) -> Calibration {
    let mut all = graph.clone();
    all.outputs = graph.inputs.iter().copied().chain(graph.nodes.iter().map(|node| node.outputs[0])).collect();
    let mut engine = Engine::new(&all, 8).unwrap();
    let mut ranges = BTreeMap::new();
    let mut random = Random::new(11);
    engine.input_mut(0).get::<f32>().iter_mut().for_each(|x| *x = random.uniform(-1.0, 1.0));
    engine.run().unwrap();
    for (i, &id) in all.outputs.iter().enumerate() {
        let view = engine.output(i);
        let fold = |f: fn(f32, f32) -> f32| view.get::<f32>().iter().copied().fold(0.0, f);
        ranges.insert(id, Range { min: fold(f32::min), max: fold(f32::max) });
    }
    Calibration { ranges, samples: 8, method: "minmax" }
}

#[test]
fn networks_compute_in_integers_and_stay_near() {
    for (about, graph, products, floats) in cases() {
        let quantized = quantize(&graph, &calibrate(&graph)).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(
            (quantized.integer_products, quantized.products, quantized.stays_float.len()),
            (products, products, floats),
            "{about}: {:?}",
            quantized.stays_float
        );
        let (float, int8) = (run(&graph, 11), run(&quantized.graph, 11));
        let energy = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
        let signal = energy(&mut float.iter().copied());
        let noise = energy(&mut float.iter().zip(&int8).map(|(a, b)| a - b));
        let sqnr_db = 10.0 * (signal / noise).log10();
        assert!(sqnr_db > 27.0, "{about}: {sqnr_db} dB");
        // Names of inputs and outputs stay.
        let names = |g: &Graph| g.outputs.iter().map(|&id| g.value(id).name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&quantized.graph), names(&graph), "{about}");
        // The file says the same.
        let read = kd_runtime::onnx::read(&kd_runtime::onnx::write(&quantized.graph)).unwrap();
        assert_eq!(run(&read.graph, 5), run(&quantized.graph, 5), "{about}");
    }
}

#[test]
fn quantizing_is_deterministic() {
    for (about, graph, ..) in cases() {
        let once = || kd_runtime::onnx::write(&quantize(&graph, &calibrate(&graph)).unwrap().graph);
        assert_eq!(once(), once(), "{about}");
    }
}
