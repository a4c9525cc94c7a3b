//! Batch normalisation with given statistics.

use alloc::vec::Vec;

use super::rules::{f32_input, same_shape};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::math;

/// `y = scale * (x - mean) / sqrt(var + epsilon) + bias` per channel (axis 1; one channel if there is no such axis); f32. Inputs x, scale, bias, mean, var. ONNX BatchNormalization, inference form.
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

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = f32_input(inputs, 0)?;
        if x.shape.is_empty() {
            return Err(OpError::new("an input of at least one axis", "a scalar"));
        }
        let channels = x.shape.get(1).copied().unwrap_or(1);
        for (i, what) in [(1, "a scale"), (2, "a bias"), (3, "a mean"), (4, "a variance")] {
            same_shape(what, f32_input(inputs, i)?.shape, &[channels])?;
        }
        TensorType::one(x.element, x.shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let channels = x.shape.get(1).copied().unwrap_or(1);
        let inner = x.shape.iter().skip(2).product::<usize>().max(1);
        let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i| frame.input(i).get::<f32>());
        let rows = x.get::<f32>().chunks_exact(inner).zip(frame.output(0).get::<f32>().chunks_exact_mut(inner));
        for ((x, y), c) in rows.zip((0..channels).cycle()) {
            let (factor, mean, bias) = (scale[c] / math::sqrt(variance[c] + self.epsilon), mean[c], bias[c]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * factor + bias);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;

    #[test]
    fn normalizes_each_channel() {
        let op = BatchNormalization { epsilon: 0.0, momentum: 0.9 };
        let channel = |a: f32, b: f32| Tensor::from_vec(&[2], alloc::vec![a, b]);
        let x = Tensor::from_vec(&[2, 2, 2], (0..8).map(|i| i as f32).collect());
        let (scale, bias, mean, var) = (channel(2.0, 1.0), channel(0.5, 0.0), channel(1.0, 3.0), channel(4.0, 0.25));
        let all = [&x, &scale, &bias, &mean, &var].map(Some);
        let y = eval(&op.clone().into(), &all).unwrap();
        assert_eq!(y[0].get::<f32>().unwrap(), [-0.5, 0.5, -2.0, 0.0, 3.5, 4.5, 6.0, 8.0]);
        let short = Tensor::from_vec(&[1], alloc::vec![1.0_f32]);
        let error = eval(&op.into(), &[&x, &scale, &short, &mean, &var].map(Some)).unwrap_err();
        assert_eq!((&error.expected[..], &error.found[..]), ("a bias of shape [2]", "[1]"));
    }

    #[test]
    fn refuses_training() {
        let mut attrs = Attrs::new().with_int("training_mode", 1);
        assert!(BatchNormalization::read(&mut attrs).is_err());
    }
}
