//! The same elements under another shape; any type.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// To the shape of input 1 (i64): 0 copies a size (unless `allowzero`), one -1 is inferred. ONNX Reshape.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// Whether 0 means a size of 0.
    pub allowzero: bool,
}

impl Reshape {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { allowzero: attrs.flag("allowzero", false)? })
    }
}

impl Operator for Reshape {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("allowzero", i64::from(self.allowzero))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// To two axes: the product of the sizes before `axis`, and of those from it on. ONNX Flatten.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Flatten {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { axis: attrs.int_or("axis", 1)? })
    }
}

impl Operator for Flatten {
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

/// Drops axes of size 1: those of input 1 (i64), or all. ONNX Squeeze.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Squeeze;

impl Squeeze {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Squeeze {
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

/// Adds axes of size 1 at the places of input 1 (i64) in the output. ONNX Unsqueeze.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unsqueeze;

impl Unsqueeze {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Unsqueeze {
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
