//! Softmax and its logarithm along an axis.

use alloc::vec::Vec;

use super::rules::f32_input;
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::math;

fn infer_along(axis: i64, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
    let x = f32_input(inputs, 0)?;
    attrs::axis(axis, x.shape.len())?;
    TensorType::one(x.element, x.shape)
}

/// Calls `f` with each line along the axis.
fn each_line(axis: i64, frame: &mut Frame<'_>, f: impl Fn(Line<'_>)) -> Result<(), OpError> {
    let x = frame.input(0);
    let axis = attrs::axis(axis, x.shape.len())?;
    let (len, step) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let (x, y) = (x.get::<f32>(), frame.output(0).get::<f32>());
    let block = (len * step).max(1);
    for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
        for first in 0..step {
            f(Line { x: &x[first..], y: &mut y[first..], step });
        }
    }
    Ok(())
}

/// The elements of one line: every `step`-th one.
struct Line<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    step: usize,
}

impl Line<'_> {
    fn largest(&self) -> f32 {
        self.x.iter().step_by(self.step).fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most })
    }

    fn pairs(&mut self) -> impl Iterator<Item = (&f32, &mut f32)> {
        self.x.iter().step_by(self.step).zip(self.y.iter_mut().step_by(self.step))
    }
}

/// `y = e^x / sum e^x` along an axis, shifted by the largest x; f32. ONNX Softmax (since opset 13).
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Softmax {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { axis: attrs.int_or("axis", -1)? })
    }
}

impl Operator for Softmax {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_along(self.axis, inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        each_line(self.axis, frame, |mut line| {
            let (largest, mut sum) = (line.largest(), 0.0);
            for (x, y) in line.pairs() {
                *y = math::exp(x - largest);
                sum += *y;
            }
            line.pairs().for_each(|(_, y)| *y /= sum);
        })
    }
}

/// `y = x - log sum e^x` along an axis, shifted by the largest x; f32. ONNX LogSoftmax (since opset 13).
#[derive(Clone, Debug, PartialEq)]
pub struct LogSoftmax {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl LogSoftmax {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { axis: attrs.int_or("axis", -1)? })
    }
}

impl Operator for LogSoftmax {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_along(self.axis, inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        each_line(self.axis, frame, |mut line| {
            let largest = line.largest();
            let sum = line.pairs().fold(0.0, |sum, (x, _)| sum + math::exp(x - largest));
            let log = math::ln(sum);
            line.pairs().for_each(|(x, y)| *y = (x - largest) - log);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    fn apply(op: impl Into<Op>, shape: &[usize], x: &[f32]) -> Result<Vec<f32>, OpError> {
        let x = Tensor::from_vec(shape, x.to_vec());
        Ok(eval(&op.into(), &[Some(&x)])?[0].get::<f32>().unwrap().to_vec())
    }

    #[test]
    fn sums_to_one_along_the_axis_alone() {
        let x = [0.0, 1.0, 1000.0, 1001.0];
        let (a, b) = (0.268_941_43, 0.731_058_6);
        assert_eq!(apply(Softmax { axis: -1 }, &[2, 2], &x).unwrap(), [a, b, a, b]);
        assert_eq!(apply(Softmax { axis: 0 }, &[2, 2], &x).unwrap(), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(apply(Softmax { axis: 1 }, &[1, 2, 2], &x).unwrap(), [0.0, 0.0, 1.0, 1.0]);
        let logs = apply(LogSoftmax { axis: 1 }, &[2, 2], &x).unwrap();
        for (log, expected) in logs.iter().zip([-1.313_261_6, -0.313_261_7, -1.313_261_6, -0.313_261_7]) {
            assert!((log - expected).abs() < 1e-6, "{logs:?}");
        }
        assert_eq!(apply(LogSoftmax { axis: 0 }, &[2, 2], &x).unwrap(), [-1000.0, -1000.0, 0.0, 0.0]);
        assert!(apply(Softmax { axis: 1 }, &[2, 0], &[]).unwrap().is_empty());
    }

    #[test]
    fn refuses_an_axis_outside() {
        for axis in [2, -3, i64::MAX, i64::MIN] {
            assert!(apply(Softmax { axis }, &[1, 1], &[0.0]).is_err(), "{axis}");
        }
        assert!(apply(Softmax { axis: 0 }, &[], &[0.0]).is_err());
    }
}
