//! Reordering axes.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y` has axis `perm[i]` of x as its axis i (reversed if empty); any type. ONNX Transpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The order; empty reverses.
    pub perm: Vec<usize>,
}

impl Transpose {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { perm: attrs.sizes("perm", 0)? })
    }
}

impl Operator for Transpose {
    fn attrs(&self) -> Attrs {
        if self.perm.is_empty() { Attrs::new() } else { Attrs::new().with_sizes("perm", &self.perm) }
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
