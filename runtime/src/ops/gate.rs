//! Saturating functions.

use alloc::vec::Vec;

use super::relu::map;
use super::rules::like_input;
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::ElementType;
use crate::math;

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + math::exp(-x))
}

/// `y = 1 / (1 + e^-x)`; f32. ONNX Sigmoid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sigmoid;

impl Sigmoid {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Sigmoid {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, sigmoid);
        Ok(())
    }
}

/// `y = tanh(x)`; f32. ONNX Tanh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tanh;

impl Tanh {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Tanh {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, math::tanh);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    #[test]
    fn saturate_without_nan() {
        let x = Tensor::from_vec(&[5], alloc::vec![f32::NEG_INFINITY, -200.0, 0.0, 200.0, f32::INFINITY]);
        let cases: [(Op, [f32; 5]); 2] =
            [(Sigmoid.into(), [0.0, 0.0, 0.5, 1.0, 1.0]), (Tanh.into(), [-1.0, -1.0, 0.0, 1.0, 1.0])];
        for (op, expected) in cases {
            let y = eval(&op, &[Some(&x)]).unwrap();
            assert_eq!(y[0].get::<f32>().unwrap(), expected, "{}", op.name());
        }
    }
}
