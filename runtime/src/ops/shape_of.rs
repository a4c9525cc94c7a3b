//! The shape as a value.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// The sizes of axes `start..end` as i64. ONNX Shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// First axis.
    pub start: i64,
    /// Axis after the last; the rank if left out.
    pub end: Option<i64>,
}

impl Shape {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { start: attrs.int_or("start", 0)?, end: attrs.int("end")? })
    }
}

impl Operator for Shape {
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with_int("start", self.start);
        self.end.map_or(attrs.clone(), |end| attrs.with_int("end", end))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
