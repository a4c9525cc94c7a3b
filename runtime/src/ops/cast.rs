//! Conversion of the element type.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::ElementType;

/// Converts elements to another type; floats to integers truncate and saturate. ONNX Cast.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// The type of the output.
    pub to: ElementType,
}

impl Cast {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let code = attrs.int_or("to", 0)?;
        attrs.take("saturate");
        let to = crate::onnx::messages::element_type(code).ok_or_else(|| {
            OpError::new("a cast to f32, u8, i8, i32, i64 or bool", alloc::format!("ONNX type {code}"))
        })?;
        Ok(Self { to })
    }
}

impl Operator for Cast {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("to", crate::onnx::messages::type_code(self.to))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
