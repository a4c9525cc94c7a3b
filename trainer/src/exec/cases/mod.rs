//! Small networks, at least one around each differentiable operator: what tests compare with central differences, and
//! `kd-train selftest` a device with this machine.

pub mod blocks;
pub mod operators;
pub mod sequences;
pub mod spatial;
pub mod wide;

use kd_runtime::graph::{ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::ops::{gemm::MatMul, reshape::Reshape};

use super::random::Stream;

/// A network around an operator.
pub struct Case {
    /// The operator.
    pub op: &'static str,
    /// What is special.
    pub about: &'static str,
    /// The network; its input is `[N, 3]`.
    pub graph: Graph,
}

/// Builds a case: `build` gives its output.
pub fn case(op: &'static str, about: &'static str, build: impl FnOnce(&mut Net) -> ValueId) -> Case {
    let mut net = Net::new(&format!("{op}: {about}"));
    let output = build(&mut net);
    Case { op, about, graph: net.finish(output) }
}

/// One of x only.
pub fn unary(op: impl Into<Op>, about: &'static str, sizes: &[usize]) -> Case {
    let op = op.into();
    case(op.name(), about, |net| {
        let x = net.stem(sizes);
        net.graph.apply(op, &[x], "y")
    })
}

/// All cases but the wide ones.
pub fn all() -> Vec<Case> {
    let mut cases = operators::cases();
    cases.extend(sequences::cases());
    cases.extend(spatial::cases());
    cases.extend(blocks::cases());
    cases
}

/// Numbers in -1..1, the same ones for the same place.
pub fn noise(place: u64, n: usize) -> Vec<f64> {
    let stream = Stream::new(7, place);
    (0..n).map(|i| f64::from(stream.uniform(i)) * 2.0 - 1.0).collect()
}

/// A network under construction; its input is `[N, 3]`.
pub struct Net {
    /// What is built.
    pub graph: Graph,
    /// Its input.
    pub input: ValueId,
    parameters: u64,
}

impl Net {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        let mut graph = Graph::new(name);
        let input = graph.add_input("input", ElementType::F32, Shape::batched(&[3]));
        Self { graph, input, parameters: 0 }
    }

    /// An f32 initializer of noise between `low` and `high`.
    pub fn between(&mut self, shape: &[usize], low: f32, high: f32) -> ValueId {
        self.parameters += 1;
        let values: Vec<f32> = (noise(1000 + self.parameters, shape.iter().product()).iter())
            .map(|&v| low + (high - low) * (v as f32 + 1.0) / 2.0)
            .collect();
        self.graph.add_initializer(&format!("p{}", self.parameters), Tensor::from_vec(shape, values))
    }

    /// An f32 initializer of noise.
    pub fn parameter(&mut self, shape: &[usize]) -> ValueId {
        self.between(shape, -1.0, 1.0)
    }

    /// An initializer of integers.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.parameters += 1;
        self.graph.add_initializer(&format!("i{}", self.parameters), Tensor::from_vec(&[values.len()], values.to_vec()))
    }

    /// An initializer of one float.
    pub fn scalar(&mut self, value: f32) -> ValueId {
        self.parameters += 1;
        self.graph.add_initializer(&format!("s{}", self.parameters), Tensor::scalar(value))
    }

    /// A value `[N, sizes…]` that a weight makes of the input: its gradient is that of the weight, element by element.
    pub fn stem(&mut self, sizes: &[usize]) -> ValueId {
        let (n, count) = (self.parameters, sizes.iter().product());
        let weight = self.parameter(&[3, count]);
        let flat = self.graph.apply(MatMul, &[self.input, weight], &format!("stem{n}.flat"));
        let shape: Vec<i64> = std::iter::once(0).chain(sizes.iter().map(|&s| s as i64)).collect();
        let shape = self.ints(&shape);
        self.graph.apply(Reshape { allowzero: false }, &[flat, shape], &format!("stem{n}"))
    }

    /// Names the output and validates.
    pub fn finish(mut self, output: ValueId) -> Graph {
        self.graph.outputs.push(output);
        self.graph.validate().unwrap_or_else(|refusal| panic!("{}: {refusal}", self.graph.name));
        self.graph
    }
}
