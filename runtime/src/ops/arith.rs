//! Element-wise arithmetic with broadcasting; f32, i32, i64 (u8, i8 where ONNX has them).

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// `y = a / b`, broadcast. ONNX Div.
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
