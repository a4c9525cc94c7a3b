//! Linear embeddings of both sides into one space: the student's an adapter in its graph, the teacher's an own array of
//! the loss, trained beside it.

use kd_runtime::Result;

use super::{Pair, Tap};
use crate::exec::{Parameter, Real, Role};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::rng::{Purpose, Rng};

/// The teacher's side: `y = x wᵀ + b`, `w` `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Elements of a sample before.
    pub inputs: usize,
    /// And after.
    pub outputs: usize,
    prefix: String,
    seed: u64,
}

impl Embedding {
    /// Adds a linear adapter of so many outputs behind the student's tap, and makes its counterpart for the teacher's.
    pub fn both(pair: &mut Pair<'_>, student: &Tap, teacher: &Tap, outputs: usize) -> Result<(Tap, Self)> {
        let tap = pair.adapt(student, |net, prefix| {
            if net.tail.shape.len() > 1 {
                net.flatten(&format!("{prefix}.flat"));
            }
            net.linear(&format!("{prefix}.embedded"), outputs)
        })?;
        let (prefix, seed) = (format!("{}.teacher", pair.prefix), pair.own_seed);
        Ok((tap, Self { inputs: teacher.elements(), outputs, prefix, seed }))
    }

    /// Weight and bias, uniform in ±1 / √inputs and 0 as a linear layer's.
    pub fn own(&self) -> Vec<Parameter<f32>> {
        let bound = 1.0 / (self.inputs as f64).sqrt();
        let mut rng = Rng::new(self.seed, Purpose::Initialize, u64::MAX, 0);
        let weight = (0..self.outputs * self.inputs).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32);
        let parameter = |name: &str, shape: Vec<usize>, role, value: Vec<f32>| {
            let name = format!("{}.{name}", self.prefix);
            Parameter { name, shape, role, value: value.into(), gradient: Buffer::default() }
        };
        vec![
            parameter("weight", vec![self.outputs, self.inputs], Role::Weight, weight.collect()),
            parameter("bias", vec![self.outputs], Role::BiasOrNorm, vec![0.0; self.outputs]),
        ]
    }
}

/// `x wᵀ + b` of rows `[batch, inputs]`.
pub fn forward<T: Real>(x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
    let outputs = bias.len();
    let inputs = weight.len() / outputs.max(1);
    let batch = x.len() / inputs.max(1);
    let mut y = bias.repeat(batch);
    let w = Matrix::rows(weight, inputs).t();
    multiply(&mut y, Matrix::rows(x, inputs), w, [batch, outputs, inputs], T::ONE, true);
    y
}

/// From gradients by the embedded rows to those by weight and bias, which are overwritten.
pub fn backward<T: Real>(x: &[T], d_y: &[T], d_weight: &mut [T], d_bias: &mut [T]) {
    let outputs = d_bias.len();
    let inputs = d_weight.len() / outputs.max(1);
    let batch = x.len() / inputs.max(1);
    let d = Matrix::rows(d_y, outputs).t();
    multiply(d_weight, d, Matrix::rows(x, inputs), [outputs, inputs, batch], T::ONE, false);
    d_bias.fill(T::ZERO);
    for row in d_y.chunks_exact(outputs) {
        d_bias.iter_mut().zip(row).for_each(|(sum, &d)| *sum += d);
    }
}
