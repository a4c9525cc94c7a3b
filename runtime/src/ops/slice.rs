//! Slicing.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// Every `step`-th element from `start` to `end` along axes; any type. Inputs x, starts, ends, axes, steps (i64 or i32). ONNX Slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice;

impl Slice {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Slice {
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
