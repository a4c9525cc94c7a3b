//! What does nothing at inference.

use alloc::vec::Vec;

use super::rules::{copy_first, of_types, one_element, optional, optional_f32, required};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::ElementType;

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

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        TensorType::one(x.element, x.shape)
    }

    fn is_alias(&self) -> bool {
        true
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        Ok(())
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

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        if let Some(ratio) = optional_f32(inputs, 1)? {
            one_element("a ratio", &ratio)?;
        }
        if optional(inputs, 2).is_some() {
            let training = of_types(inputs, 2, &[ElementType::Bool])?;
            if training.value.and_then(|value| value.get::<bool>()) != Some(&[false]) {
                let found = if training.value.is_some() { "another" } else { "one that is computed" };
                return Err(OpError::new("a training_mode that is false", found));
            }
        }
        let mask = TensorType { element: ElementType::Bool, shape: x.shape.to_vec() };
        Ok(alloc::vec![TensorType { element: x.element, ..mask.clone() }, mask])
    }

    fn is_alias(&self) -> bool {
        true
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        if frame.output_count() > 1 {
            frame.output(1).get::<bool>().fill(true);
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
    fn keeps_everything_at_inference() {
        let (x, ratio) = (Tensor::from_vec(&[2], alloc::vec![1.0_f32, -2.0]), Tensor::scalar(0.75_f32));
        let all = Tensor::from_vec(&[2], alloc::vec![true, true]);
        let op = || Dropout { seed: Some(1) }.into();
        assert_eq!(eval(&op(), &[Some(&x)]).unwrap(), [x.clone(), all.clone()]);
        let no = Tensor::scalar(false);
        assert_eq!(eval(&op(), &[Some(&x), Some(&ratio), Some(&no)]).unwrap(), [x.clone(), all]);
        assert!(eval(&op(), &[Some(&x), None, Some(&Tensor::scalar(true))]).is_err());
        assert!(eval(&op(), &[Some(&x), Some(&no)]).is_err());
        assert_eq!(eval(&Identity.into(), &[Some(&no)]).unwrap(), [no]);
    }
}
