//! Normalization over the last axes of each sample.

use alloc::vec::Vec;

use super::rules::{f32_input, optional_f32, same_shape};
use super::{Attr, Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::ElementType;
use crate::math;

/// `y = (x - mean) / √(var + epsilon) * scale + bias` over the axes from `axis` on, with the biased variance; scale and
/// bias have the shape of those axes; f32. Second and third output: mean and 1 / √(var + epsilon), those axes 1.
/// ONNX LayerNormalization (since opset 17).
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    /// The first normalized axis; negative counts from the end.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNormalization {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        // The type of mean and variance: f32, the only float here.
        match attrs.int_or("stash_type", 1)? {
            1 => Ok(Self { axis: attrs.int_or("axis", -1)?, epsilon: attrs.float_or("epsilon", 1e-5)? }),
            other => Err(OpError::new("stash_type 1 (f32)", other)),
        }
    }
}

impl Operator for LayerNormalization {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis).with("epsilon", Attr::Float(self.epsilon)).with_int("stash_type", 1)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let (x, scale) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?);
        let axis = attrs::axis(self.axis, x.shape.len())?;
        same_shape("a scale", scale.shape, &x.shape[axis..])?;
        if let Some(bias) = optional_f32(inputs, 2)? {
            same_shape("a bias", bias.shape, &x.shape[axis..])?;
        }
        if scale.shape.contains(&0) {
            return Err(OpError::new("rows that are not empty", alloc::format!("shape {:?}", x.shape)));
        }
        let mut reduced = x.shape.to_vec();
        reduced[axis..].fill(1);
        let element = ElementType::F32;
        Ok([x.shape.to_vec(), reduced.clone(), reduced].map(|shape| TensorType { element, shape }).into())
    }

    fn macs(&self, inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        let x = inputs.first().copied().flatten().unwrap_or_default();
        x.iter().fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (scale, bias) = (frame.input(1).get::<f32>(), frame.optional(2).map(|b| b.get::<f32>()));
        let x = frame.input(0).get::<f32>();
        let n = scale.len();
        for (row, x) in x.chunks_exact(n.max(1)).enumerate() {
            let mean = x.iter().sum::<f32>() / n as f32;
            let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n as f32;
            let inverse = 1.0 / math::sqrt(var + self.epsilon);
            let y = &mut frame.output(0).get::<f32>()[row * n..][..n];
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = (x - mean) * inverse * scale[i] + bias.map_or(0.0, |bias| bias[i]);
            }
            for (k, value) in [(1, mean), (2, inverse)] {
                if frame.output_count() > k {
                    frame.output(k).get::<f32>()[row] = value;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    const NORM: LayerNormalization = LayerNormalization { axis: -1, epsilon: 0.0 };

    #[test]
    fn normalizes_each_row_alone() {
        let x = Tensor::from_vec(&[2, 1, 4], alloc::vec![1.0_f32, 1.0, 3.0, 3.0, -8.0, 0.0, 0.0, 8.0]);
        let scale = Tensor::from_vec(&[4], alloc::vec![1.0_f32, 2.0, 1.0, 1.0]);
        let bias = Tensor::from_vec(&[4], alloc::vec![0.0_f32, 0.5, 0.0, 0.0]);
        let y = eval(&NORM.into(), &[Some(&x), Some(&scale), Some(&bias)]).unwrap();
        let root = core::f32::consts::SQRT_2;
        for (found, expected) in y[0].get::<f32>().unwrap().iter().zip([-1.0, -1.5, 1.0, 1.0, -root, 0.5, 0.0, root]) {
            assert!((found - expected).abs() < 1e-6, "{y:?}");
        }
        assert_eq!((y[1].shape(), y[1].get::<f32>().unwrap()), (&[2, 1, 1][..], &[2.0, 0.0][..]));
        assert_eq!(y[2].get::<f32>().unwrap()[0], 1.0);
        let all = eval(
            &LayerNormalization { axis: 1, ..NORM }.into(),
            &[Some(&x), Some(&Tensor::from_vec(&[1, 4], alloc::vec![1.0_f32; 4]))],
        );
        assert!((all.unwrap()[0].get::<f32>().unwrap()[0] + 1.0).abs() < 1e-6);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = Tensor::from_vec(&[2, 3], alloc::vec![0.0_f32; 6]);
        let scale = |shape: &[usize]| Tensor::from_vec(shape, alloc::vec![1.0_f32; shape.iter().product()]);
        assert!(eval(&NORM.into(), &[Some(&x), Some(&scale(&[2]))]).is_err());
        assert!(eval(&NORM.into(), &[Some(&x), Some(&scale(&[3])), Some(&scale(&[1]))]).is_err());
        assert!(eval(&LayerNormalization { axis: 2, ..NORM }.into(), &[Some(&x), Some(&scale(&[3]))]).is_err());
        let half = Attrs::new().with_int("stash_type", 10);
        assert!(Op::read("LayerNormalization", half).unwrap().is_err());
    }
}
