//! Joining along an axis.

use alloc::vec::Vec;

use super::rules::{for_any, of_types, required};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::Element;

fn join<T: Element>(frame: &mut Frame<'_>, axis: usize) {
    let mut offset = 0;
    for i in 0..frame.input_count() {
        let x = frame.input(i);
        let out = frame.output(0);
        let (len, row) = (x.shape[axis..].iter().product::<usize>(), out.shape[axis..].iter().product::<usize>());
        let rows = x.get::<T>().chunks_exact(len.max(1)).zip(out.get::<T>().chunks_exact_mut(row.max(1)));
        rows.for_each(|(x, y)| y[offset..offset + len].copy_from_slice(x));
        offset += len;
    }
}

/// Joins inputs along an axis; any type. ONNX Concat.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Concat {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int("axis")?.ok_or_else(|| OpError::new("attribute `axis`", "none"))?;
        Ok(Self { axis })
    }
}

impl Operator for Concat {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let first = required(inputs, 0)?;
        let axis = attrs::axis(self.axis, first.shape.len())?;
        let mut shape = first.shape.to_vec();
        for i in 1..inputs.len() {
            let x = of_types(inputs, i, &[first.element])?;
            let fits = |k: usize| k == axis || x.shape[k] == first.shape[k];
            if x.shape.len() != shape.len() || !(0..shape.len()).all(fits) {
                let expected = alloc::format!("input {i} of shape {:?}, but for axis {axis}", first.shape);
                return Err(OpError::new(expected, alloc::format!("{:?}", x.shape)));
            }
            let size = shape[axis].checked_add(x.shape[axis]);
            shape[axis] = size.ok_or_else(|| OpError::new("sizes whose sum is a size", "larger ones"))?;
        }
        TensorType::one(first.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let axis = attrs::axis(self.axis, x.shape.len())?;
        for_any!(x.element(), T => join::<T>(frame, axis));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    #[test]
    fn joins_along_any_axis() {
        let a = Tensor::from_vec(&[2, 2], vec![1_i64, 2, 3, 4]);
        let b = Tensor::from_vec(&[2, 1], vec![5_i64, 6]);
        let empty = Tensor::from_vec::<i64>(&[2, 0], vec![]);
        let join = |axis, inputs: &[&Tensor]| {
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            eval(&Concat { axis }.into(), &inputs).map(|mut y| y.remove(0))
        };
        let across = Tensor::from_vec(&[2, 3], vec![1_i64, 2, 5, 3, 4, 6]);
        assert_eq!(join(1, &[&a, &b, &empty]).unwrap(), across);
        assert_eq!(join(-1, &[&empty, &a, &b]).unwrap(), across);
        assert_eq!(join(0, &[&a, &a]).unwrap(), Tensor::from_vec(&[4, 2], vec![1_i64, 2, 3, 4, 1, 2, 3, 4]));
        assert_eq!(join(1, &[&empty, &empty]).unwrap(), empty);
        assert!(join(0, &[&a, &b]).is_err());
        assert!(join(2, &[&a, &a]).is_err());
        assert!(join(0, &[&a, &Tensor::from_vec(&[2, 2], vec![0_i32; 4])]).is_err());
        assert!(join(0, &[&Tensor::scalar(1_i64), &Tensor::scalar(1_i64)]).is_err());
        assert!(eval(&Concat { axis: 0 }.into(), &[Some(&a), None]).is_err());
    }
}
