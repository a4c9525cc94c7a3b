//! Powers, roots and the error function.

use alloc::vec::Vec;

use super::arith::eval_pairs;
use super::relu::map;
use super::rules::{f32_input, like_input, of_types};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::shape::broadcast;
use crate::graph::{ElementType, Slice};
use crate::math;

/// `y = erf(x)`; f32. ONNX Erf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Erf;

impl Erf {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Erf {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, math::erf);
        Ok(())
    }
}

/// `y = √x`, NaN below 0; f32. ONNX Sqrt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sqrt;

impl Sqrt {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Sqrt {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, math::sqrt);
        Ok(())
    }
}

/// `y = x^p`, broadcast; x of f32, p of f32, i32 or i64 (of one element, if integer). ONNX Pow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pow;

impl Pow {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

/// `x^p`; whole exponents as products, which are exact where they can be.
fn power(x: f32, p: f32) -> f32 {
    match p {
        2.0 => x * x,
        3.0 => x * x * x,
        _ => math::pow(x, p),
    }
}

impl Operator for Pow {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = f32_input(inputs, 0)?;
        let p = of_types(inputs, 1, &[ElementType::F32, ElementType::I32, ElementType::I64])?;
        if p.element != ElementType::F32 && p.shape.iter().any(|&n| n != 1) {
            return Err(OpError::new("one exponent, if it is an integer", alloc::format!("shape {:?}", p.shape)));
        }
        let shape = broadcast(x.shape, p.shape).ok_or_else(|| {
            let found = alloc::format!("{:?} and {:?}", x.shape, p.shape);
            OpError::new("shapes that broadcast (sizes equal or 1, aligned at the end)", found)
        })?;
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let whole = match frame.input(1).data {
            Slice::I32(p) => p.first().map(|&p| p as f32),
            Slice::I64(p) => p.first().map(|&p| p as f32),
            _ => None,
        };
        match whole {
            Some(p) => map::<f32>(frame, |x| power(x, p)),
            None => eval_pairs::<f32>(frame, power),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    fn apply(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Vec<f32>, OpError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(eval(&op.into(), &inputs)?[0].get::<f32>().unwrap().to_vec())
    }

    #[test]
    fn equal_known_values() {
        let x = Tensor::from_vec(&[2], alloc::vec![-2.0_f32, 3.0]);
        assert_eq!(apply(Pow, &[&x, &Tensor::scalar(2_i64)]).unwrap(), [4.0, 9.0]);
        assert_eq!(apply(Pow, &[&x, &Tensor::scalar(3.0_f32)]).unwrap(), [-8.0, 27.0]);
        let exponents = Tensor::from_vec(&[2, 1], alloc::vec![0.0_f32, -1.0]);
        assert_eq!(apply(Pow, &[&x, &exponents]).unwrap(), [1.0, 1.0, -0.5, 1.0 / 3.0]);
        assert!(matches!(apply(Sqrt, &[&x]).unwrap()[..], [nan, y] if nan.is_nan() && (y - 1.732_050_8).abs() < 1e-6));
        let y = apply(Erf, &[&x]).unwrap();
        assert!((y[0] + 0.995_322_3).abs() < 1e-6 && (y[1] - 0.999_977_9).abs() < 1e-6, "{y:?}");
    }

    #[test]
    fn refuses_other_types_and_shapes() {
        let x = Tensor::from_vec(&[2], alloc::vec![1.0_f32, 2.0]);
        for exponent in [
            Tensor::scalar(true),
            Tensor::from_vec(&[2], alloc::vec![1_i64, 2]),
            Tensor::from_vec(&[3], alloc::vec![1.0_f32; 3]),
        ] {
            assert!(apply(Pow, &[&x, &exponent]).is_err(), "{exponent:?}");
        }
        assert!(apply(Pow, &[&Tensor::scalar(1_i32), &x]).is_err());
    }
}
