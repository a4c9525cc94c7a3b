//! Reductions.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// Mean over axes (input 1, i64; all if left out or empty); f32, i32, i64. ONNX ReduceMean.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceMean {
    /// Whether reduced axes stay as 1.
    pub keepdims: bool,
    /// Whether empty axes mean none instead of all.
    pub noop_with_empty_axes: bool,
}

impl ReduceMean {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self {
            keepdims: attrs.flag("keepdims", true)?,
            noop_with_empty_axes: attrs.flag("noop_with_empty_axes", false)?,
        })
    }
}

impl Operator for ReduceMean {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with_int("keepdims", i64::from(self.keepdims))
            .with_int("noop_with_empty_axes", i64::from(self.noop_with_empty_axes))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
