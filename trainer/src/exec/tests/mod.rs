//! Tests of the executor: gradients against central differences, and what a step must keep.

mod blocks;
mod candle;
mod cases;
mod differences;
mod partial;
mod sequences;
mod single;
mod spatial;
mod steps;

use kd_runtime::graph::{ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::{gemm::MatMul, reshape::Reshape};

use super::random::Stream;

/// Numbers in -1..1, the same ones for the same place.
pub fn noise(place: u64, n: usize) -> Vec<f64> {
    let stream = Stream::new(7, place);
    (0..n).map(|i| f64::from(stream.uniform(i)) * 2.0 - 1.0).collect()
}

/// A network under construction; its input is `[N, 3]`.
pub struct Net {
    pub graph: Graph,
    pub input: ValueId,
    parameters: u64,
}

impl Net {
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

    pub fn parameter(&mut self, shape: &[usize]) -> ValueId {
        self.between(shape, -1.0, 1.0)
    }

    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.parameters += 1;
        self.graph.add_initializer(&format!("i{}", self.parameters), Tensor::from_vec(&[values.len()], values.to_vec()))
    }

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
