//! Folded networks compute what they did.

use kd_runtime::engine::Engine;
use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::measure::inputs::Random;
use kd_runtime::ops::{self, window::Window};

use super::fold;

struct Net {
    graph: Graph,
    random: Random,
}

impl Net {
    fn new(input: &[usize]) -> (Self, ValueId) {
        let mut graph = Graph::new("net");
        let dims = std::iter::once(Dim::Batch).chain(input.iter().map(|&n| Dim::Known(n))).collect();
        let x = graph.add_input("x", ElementType::F32, Shape(dims));
        (Self { graph, random: Random::new(1) }, x)
    }

    fn weights(&mut self, name: &str, shape: &[usize], low: f32, high: f32) -> ValueId {
        let values = (0..shape.iter().product::<usize>()).map(|_| self.random.uniform(low, high)).collect::<Vec<f32>>();
        self.graph.add_initializer(name, Tensor::from_vec(shape, values))
    }

    fn conv(&mut self, x: ValueId, name: &str, shape: &[usize], bias: bool) -> ValueId {
        let mut inputs = vec![x, self.weights(&format!("{name}.w"), shape, -0.5, 0.5)];
        if bias {
            inputs.push(self.weights(&format!("{name}.b"), &shape[..1], -0.5, 0.5));
        }
        let pads = vec![1; 2 * (shape.len() - 2)];
        self.graph.apply(ops::conv::Conv { window: Window { pads, ..Window::default() }, group: 1 }, &inputs, name)
    }

    fn norm(&mut self, x: ValueId, name: &str, channels: usize) -> ValueId {
        let c = [channels];
        let inputs = [
            x,
            self.weights(&format!("{name}.scale"), &c, 0.5, 1.5),
            self.weights(&format!("{name}.bias"), &c, -1.0, 1.0),
            self.weights(&format!("{name}.mean"), &c, -1.0, 1.0),
            self.weights(&format!("{name}.var"), &c, 0.5, 2.0),
        ];
        self.graph.apply(ops::batch_norm::BatchNormalization { epsilon: 1e-5, momentum: 0.9 }, &inputs, name)
    }

    fn finish(mut self, y: ValueId) -> Graph {
        self.graph.outputs = vec![y];
        self.graph.validate().unwrap();
        self.graph
    }
}

fn run(graph: &Graph) -> Vec<f32> {
    let mut engine = Engine::new(graph, 3).unwrap();
    let mut random = Random::new(7);
    let input = engine.input_mut(0).get::<f32>();
    input.iter_mut().for_each(|x| *x = random.uniform(-1.0, 1.0));
    engine.run().unwrap();
    engine.output(0).get::<f32>().to_vec()
}

fn names(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|node| node.op.name()).collect()
}

fn cases() -> Vec<(&'static str, Graph, Vec<&'static str>)> {
    let mut cases = Vec::new();
    let (mut net, x) = Net::new(&[3, 6, 5]);
    let y = net.conv(x, "conv", &[4, 3, 3, 3], false);
    let y = net.norm(y, "norm", 4);
    let y = net.graph.apply(ops::relu::Relu, &[y], "relu");
    cases.push(("batch norm after a convolution", net.finish(y), vec!["Conv", "Relu"]));

    let (mut net, x) = Net::new(&[3, 9]);
    let y = net.conv(x, "conv", &[4, 3, 3], true);
    let y = net.norm(y, "one", 4);
    let y = net.norm(y, "two", 4);
    cases.push(("two batch norms after a series' convolution, the last one the output", net.finish(y), vec!["Conv"]));

    let (mut net, x) = Net::new(&[3, 6, 5]);
    let y = net.norm(x, "norm", 3);
    let y = net.conv(y, "conv", &[2, 3, 3, 3], true);
    cases.push(("batch norm before a convolution", net.finish(y), vec!["Conv", "Conv"]));

    let (mut net, x) = Net::new(&[3, 6, 5]);
    let y = net.conv(x, "conv", &[4, 3, 3, 3], false);
    let z = net.norm(y, "norm", 4);
    let y = net.graph.apply(ops::arith::Add, &[y, z], "sum");
    cases.push(("a convolution that others read too", net.finish(y), vec!["Conv", "Conv", "Add"]));

    let (mut net, x) = Net::new(&[6]);
    let (w, b) = (net.weights("w", &[6, 4], -1.0, 1.0), net.weights("b", &[1, 4], -1.0, 1.0));
    let y = net.graph.apply(ops::gemm::MatMul, &[x, w], "product");
    let y = net.graph.apply(ops::arith::Add, &[b, y], "sum");
    let y = net.norm(y, "norm", 4);
    cases.push(("a linear layer in pieces", net.finish(y), vec!["Gemm"]));

    let (mut net, x) = Net::new(&[3, 6, 5]);
    let y = net.conv(x, "conv", &[4, 3, 3, 3], true);
    let b = net.weights("added", &[4, 1, 1], -1.0, 1.0);
    let y = net.graph.apply(ops::arith::Add, &[y, b], "sum");
    let y = net.graph.apply(ops::dropout::Identity, &[y], "same");
    cases.push(("a bias that is added, and an identity at the end", net.finish(y), vec!["Conv"]));

    let (mut net, x) = Net::new(&[6]);
    let (a, b) = (net.weights("a", &[3, 4], -1.0, 1.0), net.weights("b", &[3, 4], -1.0, 1.0));
    let sum = net.graph.apply(ops::arith::Add, &[a, b], "sum");
    let shape = net.graph.add_initializer("shape", Tensor::from_vec(&[2], vec![6_i64, 2]));
    let w = net.graph.apply(ops::reshape::Reshape { allowzero: false }, &[sum, shape], "w");
    let y = net.graph.apply(ops::gemm::MatMul, &[x, w], "y");
    cases.push(("weights made of constants", net.finish(y), vec!["Gemm"]));

    // Added to rows, not to columns, of which there are as many.
    let mut net = Net { graph: Graph::new("net"), random: Random::new(1) };
    let x = net.graph.add_input("x", ElementType::F32, Shape(vec![Dim::Known(4), Dim::Known(6)]));
    let (w, c) = (net.weights("w", &[6, 4], -1.0, 1.0), net.weights("c", &[4, 1], -1.0, 1.0));
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    let y = net.graph.apply(gemm, &[x, w, c], "y");
    let b = net.weights("added", &[1, 4], -1.0, 1.0);
    let sum = net.graph.apply(ops::arith::Add, &[y, b], "sum");
    let y = net.norm(sum, "norm", 4);
    cases.push(("a product that rows are added to", net.finish(y), vec!["Gemm", "Add", "BatchNormalization"]));
    cases
}

#[test]
fn constants_that_grow_beyond_the_model_stay_nodes() {
    let (mut net, x) = Net::new(&[1, 1, 1]);
    let one = net.weights("one", &[1, 1, 1, 1], 1.0, 2.0);
    let scales = net.graph.add_initializer("scales", Tensor::from_vec(&[4], vec![1.0_f32, 1.0, 4096.0, 4096.0]));
    let none = net.graph.add_initializer("roi", Tensor::from_vec(&[0], Vec::<f32>::new()));
    let large = net.graph.apply(ops::resize::Resize { axes: vec![] }, &[one, none, scales], "large");
    let mean = ops::reduce::ReduceMean { keepdims: true, noop_with_empty_axes: false };
    let small = net.graph.apply(mean, &[large], "small");
    let y = net.graph.apply(ops::arith::Add, &[x, small], "y");
    let folded = fold(&net.finish(y)).unwrap();
    assert_eq!(names(&folded), ["Resize", "ReduceMean", "Add"]);
}

#[test]
fn folded_networks_compute_what_they_did() {
    for (about, graph, expected) in cases() {
        let folded = fold(&graph).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(names(&folded), expected, "{about}");
        let outputs = |graph: &Graph| graph.outputs.iter().map(|&id| graph.value(id).name.clone()).collect::<Vec<_>>();
        assert_eq!(outputs(&folded), outputs(&graph), "{about}");
        for (a, b) in run(&graph).into_iter().zip(run(&folded)) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{about}: {a} became {b}");
        }
        assert_eq!(fold(&folded).unwrap(), folded, "{about}: folded again");
    }
}
