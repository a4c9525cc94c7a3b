//! Element-wise arithmetic with broadcasting; f32, u8, i8, i32, i64. Integers wrap.

use alloc::vec::Vec;

use super::rules::{for_number, of_types};
use super::walk::{Walk, broadcast_strides};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::shape::broadcast;
use crate::graph::{Element, ElementType};

/// What the four operators do to a pair.
trait Number: Element {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
    /// Whether nothing may be divided by it.
    fn is_no_divisor(self) -> bool;
}

impl Number for f32 {
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn minus(self, other: Self) -> Self {
        self - other
    }
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn over(self, other: Self) -> Self {
        self / other
    }
    fn is_no_divisor(self) -> bool {
        false
    }
}

macro_rules! wrapping {
    ($($type:ty)+) => {$(
        impl Number for $type {
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn over(self, other: Self) -> Self { self.wrapping_div(other) }
            fn is_no_divisor(self) -> bool { self == 0 }
        }
    )+};
}
wrapping!(u8 i8 i32 i64);

const NUMBERS: &[ElementType] =
    &[ElementType::F32, ElementType::U8, ElementType::I8, ElementType::I32, ElementType::I64];

fn infer_pair(inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
    let a = of_types(inputs, 0, NUMBERS)?;
    let b = of_types(inputs, 1, &[a.element])?;
    let shape = broadcast(a.shape, b.shape).ok_or_else(|| {
        let found = alloc::format!("{:?} and {:?}", a.shape, b.shape);
        OpError::new("shapes that broadcast (sizes equal or 1, aligned at the end)", found)
    })?;
    TensorType::one(a.element, &shape)
}

/// Applies `f` to every pair.
pub(super) fn eval_pairs<T: Element>(frame: &mut Frame<'_>, f: impl Fn(T, T) -> T) {
    let (a, b) = (frame.input(0), frame.input(1));
    let out = frame.output(0);
    let strides = [broadcast_strides(a.shape, out.shape), broadcast_strides(b.shape, out.shape)];
    let walk = Walk::new(out.shape, strides, [0, 0]);
    let (a, b, y) = (a.get::<T>(), b.get::<T>(), out.get::<T>());
    let (len, [step_a, step_b]) = (walk.row_len(), walk.row_steps());
    for (row, [a0, b0]) in y.chunks_exact_mut(len).zip(walk.starts()) {
        let (a0, b0) = (a0 as usize, b0 as usize);
        match (step_a, step_b) {
            (1, 1) => {
                let pairs = a[a0..a0 + len].iter().zip(&b[b0..b0 + len]);
                row.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y = f(a, b));
            }
            (1, 0) => row.iter_mut().zip(&a[a0..a0 + len]).for_each(|(y, &a)| *y = f(a, b[b0])),
            (0, 1) => row.iter_mut().zip(&b[b0..b0 + len]).for_each(|(y, &b)| *y = f(a[a0], b)),
            _ => row.fill(f(a[a0], b[b0])),
        }
    }
}

/// `y = a + b`, broadcast. ONNX Add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Add;

impl Add {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Add {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_pair(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => eval_pairs::<T>(frame, Number::plus));
        Ok(())
    }
}

/// `y = a - b`, broadcast. ONNX Sub.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sub;

impl Sub {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Sub {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_pair(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => eval_pairs::<T>(frame, Number::minus));
        Ok(())
    }
}

/// `y = a * b`, broadcast. ONNX Mul.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mul;

impl Mul {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Mul {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_pair(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => eval_pairs::<T>(frame, Number::times));
        Ok(())
    }
}

/// `y = a / b`, broadcast; integers truncate, and an integer divisor of 0 is an error. ONNX Div.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Div;

impl Div {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Div {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        infer_pair(inputs)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        for_number!(frame.input(0).element(), T => {
            if frame.input(1).get::<T>().iter().any(|&b| b.is_no_divisor()) {
                return Err(OpError::new("integer divisors other than 0", 0));
            }
            eval_pairs::<T>(frame, Number::over)
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    fn apply(op: impl Into<Op>, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        eval(&op.into(), &[Some(a), Some(b)]).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn broadcasts_like_numpy() {
        type Case = (&'static [usize], &'static [usize], &'static [usize], &'static [f32]);
        let cases: &[Case] = &[
            (&[2, 2], &[2, 2], &[2, 2], &[2.0, 4.0, 6.0, 8.0]),
            (&[2, 2], &[], &[2, 2], &[2.0, 3.0, 4.0, 5.0]),
            (&[2, 2], &[2], &[2, 2], &[2.0, 4.0, 4.0, 6.0]),
            (&[2, 2], &[2, 1], &[2, 2], &[2.0, 3.0, 5.0, 6.0]),
            (&[2, 1], &[1, 2], &[2, 2], &[2.0, 3.0, 3.0, 4.0]),
            (&[1], &[1, 3, 1], &[1, 3, 1], &[2.0, 3.0, 4.0]),
            (&[1], &[0], &[0], &[]),
            (&[1, 1, 1, 1, 2], &[2, 1, 1, 1, 1], &[2, 1, 1, 1, 2], &[2.0, 3.0, 3.0, 4.0]),
        ];
        let counted = |shape: &[usize]| {
            let n = shape.iter().product::<usize>();
            f32s(shape, &(1..=n).map(|i| i as f32).collect::<Vec<_>>())
        };
        for (a, b, shape, expected) in cases {
            assert_eq!(apply(Add, &counted(a), &counted(b)).unwrap(), f32s(shape, expected), "{a:?} + {b:?}");
            assert_eq!(apply(Add, &counted(b), &counted(a)).unwrap(), f32s(shape, expected), "{b:?} + {a:?}");
        }
    }

    #[test]
    fn integers_wrap_and_truncate() {
        let pair = |a: i32, b: i32| (Tensor::scalar(a), Tensor::scalar(b));
        let (a, b) = pair(i32::MIN, -1);
        assert_eq!(apply(Div, &a, &b).unwrap(), Tensor::scalar(i32::MIN));
        assert_eq!(apply(Add, &a, &b).unwrap(), Tensor::scalar(i32::MAX));
        assert_eq!(apply(Mul, &a, &b).unwrap(), Tensor::scalar(i32::MIN));
        let (a, b) = pair(-7, 2);
        assert_eq!(apply(Div, &a, &b).unwrap(), Tensor::scalar(-3));
        assert_eq!(apply(Sub, &Tensor::scalar(3_u8), &Tensor::scalar(5_u8)).unwrap(), Tensor::scalar(254_u8));
    }

    #[test]
    fn refuses_what_it_cannot_compute() {
        let x = f32s(&[2], &[1.0, 2.0]);
        let zero = Tensor::scalar(0_i64);
        assert_eq!(apply(Div, &Tensor::scalar(1_i64), &zero).unwrap_err().found, "0");
        assert!(apply(Div, &x, &f32s(&[], &[0.0])).is_ok());
        assert!(apply(Add, &x, &f32s(&[3], &[0.0; 3])).is_err());
        assert!(apply(Add, &x, &zero).is_err());
        assert!(apply(Add, &Tensor::scalar(true), &Tensor::scalar(true)).is_err());
        assert!(apply(Add, &f32s(&[1; 9], &[1.0]), &x).is_err());
    }
}
