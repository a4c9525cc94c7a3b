//! Batch normalisation with given statistics.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y = scale * (x - mean) / sqrt(var + epsilon) + bias` per channel (axis 1); f32. Inputs x, scale, bias, mean, var. ONNX BatchNormalization, inference form.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Of the running statistics, for whoever trains: `running = running * momentum + batch * (1 - momentum)`.
    pub momentum: f32,
}

impl BatchNormalization {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        if attrs.flag("training_mode", false)? {
            return Err(OpError::new("training_mode 0", 1));
        }
        Ok(Self { epsilon: attrs.float_or("epsilon", 1e-5)?, momentum: attrs.float_or("momentum", 0.9)? })
    }
}

impl Operator for BatchNormalization {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("epsilon", super::Attr::Float(self.epsilon))
            .with("momentum", super::Attr::Float(self.momentum))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
