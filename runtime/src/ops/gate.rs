//! Saturating functions.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
