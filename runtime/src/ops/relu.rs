//! Piecewise linear functions.

use alloc::vec::Vec;

use super::rules::{for_number, like_input, of_types, one_element, optional};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::{Element, ElementType};

/// Applies `f` to every element.
pub(super) fn map<T: Element>(frame: &mut Frame<'_>, f: impl Fn(T) -> T) {
    let x = frame.input(0).get::<T>();
    frame.output(0).get::<T>().iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

fn rectify<T: Element + PartialOrd>(frame: &mut Frame<'_>) {
    let zero = T::default();
    map::<T>(frame, |x| if x < zero { zero } else { x });
}

/// `y = max(x, 0)`; f32, i8, i32, i64; NaN stays. ONNX Relu.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relu;

impl Relu {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Relu {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32, ElementType::I8, ElementType::I32, ElementType::I64])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => {
            rectify::<T>(frame)
        });
        Ok(())
    }
}

/// `y = x` where x >= 0, else `alpha * x`; f32. ONNX LeakyRelu.
#[derive(Clone, Debug, PartialEq)]
pub struct LeakyRelu {
    /// Slope below 0.
    pub alpha: f32,
}

impl LeakyRelu {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { alpha: attrs.float_or("alpha", 0.01)? })
    }
}

impl Operator for LeakyRelu {
    fn attrs(&self) -> Attrs {
        Attrs::new().with("alpha", super::Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, |x| if x < 0.0 { self.alpha * x } else { x });
        Ok(())
    }
}

const NUMBERS: &[ElementType] =
    &[ElementType::F32, ElementType::U8, ElementType::I8, ElementType::I32, ElementType::I64];

fn clip<T: Element + PartialOrd>(frame: &mut Frame<'_>, low: Option<T>, high: Option<T>) {
    map::<T>(frame, |x| {
        let x = low.filter(|low| x < *low).unwrap_or(x);
        high.filter(|high| x > *high).unwrap_or(x)
    });
}

/// `y = min(max(x, low), high)`, bounds are scalar inputs 1 and 2 (none if left out); f32, u8, i8, i32, i64; NaN stays. ONNX Clip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clip;

impl Clip {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Clip {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = of_types(inputs, 0, NUMBERS)?;
        for i in [1, 2] {
            if optional(inputs, i).is_some() {
                one_element("a bound", &of_types(inputs, i, &[x.element])?)?;
            }
        }
        TensorType::one(x.element, x.shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => {
            let bound = |i| frame.optional(i).and_then(|b| b.get::<T>().first().copied());
            let (low, high) = (bound(1), bound(2));
            clip::<T>(frame, low, high)
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    fn apply(op: impl Into<Op>, inputs: &[Option<&Tensor>]) -> Result<Tensor, OpError> {
        eval(&op.into(), inputs).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn clips_with_any_bounds() {
        let x = Tensor::from_vec(&[4], alloc::vec![-2.0_f32, 0.5, 3.0, f32::NEG_INFINITY]);
        let (low, high) = (Tensor::scalar(-1.0_f32), Tensor::scalar(1.0_f32));
        let cases: &[(&[Option<&Tensor>], [f32; 4])] = &[
            (&[Some(&x), Some(&low), Some(&high)], [-1.0, 0.5, 1.0, -1.0]),
            (&[Some(&x), None, Some(&high)], [-2.0, 0.5, 1.0, f32::NEG_INFINITY]),
            (&[Some(&x), Some(&low)], [-1.0, 0.5, 3.0, -1.0]),
            (&[Some(&x)], [-2.0, 0.5, 3.0, f32::NEG_INFINITY]),
            (&[Some(&x), Some(&high), Some(&low)], [-1.0; 4]),
        ];
        for (inputs, expected) in cases {
            assert_eq!(apply(Clip, inputs).unwrap().get::<f32>().unwrap(), expected);
        }
        assert!(apply(Clip, &[Some(&x), Some(&Tensor::scalar(0_i32))]).is_err());
        assert!(apply(Clip, &[Some(&x), Some(&x)]).is_err());
    }

    #[test]
    fn rectifies() {
        let x = Tensor::from_vec(&[3], alloc::vec![-2.0_f32, f32::NAN, 3.0]);
        let y = apply(Relu, &[Some(&x)]).unwrap();
        assert!(matches!(y.get::<f32>().unwrap(), [0.0, nan, 3.0] if nan.is_nan()));
        let y = apply(LeakyRelu { alpha: 0.5 }, &[Some(&x)]).unwrap();
        assert!(matches!(y.get::<f32>().unwrap(), [-1.0, nan, 3.0] if nan.is_nan()));
        let y = apply(Relu, &[Some(&Tensor::from_vec(&[2], alloc::vec![-5_i8, 5]))]).unwrap();
        assert_eq!(y.get::<i8>().unwrap(), [0, 5]);
        assert!(apply(Relu, &[Some(&Tensor::scalar(1_u8))]).is_err());
    }
}
