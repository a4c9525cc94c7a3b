//! Piecewise linear functions.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y = max(x, 0)`; f32, i32, i8. ONNX Relu.
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// `y = min(max(x, low), high)`, bounds are scalar inputs 1 and 2; f32, i32, i64, u8, i8. ONNX Clip.
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
