//! Softmax and its logarithm along an axis.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
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

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
