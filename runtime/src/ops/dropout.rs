//! What does nothing at inference.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y = x`; any type. ONNX Identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity;

impl Identity {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Identity {
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

/// `y = x` at inference; the mask, if asked for, is all true. Inputs x, ratio (f32 scalar, 0.5 if left out), training_mode (must be false). Training zeroes elements with probability ratio. ONNX Dropout.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Of the mask in training.
    pub seed: Option<i64>,
}

impl Dropout {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { seed: attrs.int("seed")? })
    }
}

impl Operator for Dropout {
    fn attrs(&self) -> Attrs {
        self.seed.map_or_else(Attrs::new, |seed| Attrs::new().with_int("seed", seed))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
