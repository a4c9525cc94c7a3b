//! Joining along an axis.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// Joins inputs along an axis; any type. ONNX Concat.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Concat {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int("axis")?.ok_or_else(|| OpError::new("attribute `axis`", "none"))?;
        Ok(Self { axis })
    }
}

impl Operator for Concat {
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
