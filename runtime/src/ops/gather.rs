//! Picking slices by index.

use alloc::vec::Vec;

use super::rules::{for_any, ints, of_types, required};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::{Element, ElementType};

fn pick<T: Element>(frame: &mut Frame<'_>, axis: usize) -> Result<(), OpError> {
    let (x, indices) = (frame.input(0), ints(frame.input(1)));
    let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let count: usize = frame.input(1).shape.iter().product();
    if let Some(index) = indices.clone().find(|&i| attrs::axis(i, len).is_err()) {
        return Err(OpError::new(alloc::format!("indices within an axis of {len}"), index));
    }
    let y = frame.output(0).get::<T>();
    let (block, row) = (len * inner, count * inner);
    if y.is_empty() {
        return Ok(());
    }
    for (x, y) in x.get::<T>().chunks_exact(block.max(1)).zip(y.chunks_exact_mut(row.max(1))) {
        for (index, y) in indices.clone().zip(y.chunks_exact_mut(inner.max(1))) {
            let i = if index < 0 { index + len as i64 } else { index } as usize;
            y.copy_from_slice(&x[i * inner..][..inner]);
        }
    }
    Ok(())
}

/// Picks slices of x along an axis by i64 or i32 indices (negative count from the end); any type. ONNX Gather.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Gather {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { axis: attrs.int_or("axis", 0)? })
    }
}

impl Operator for Gather {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let indices = of_types(inputs, 1, &[ElementType::I64, ElementType::I32])?;
        let axis = attrs::axis(self.axis, x.shape.len())?;
        let shape = [&x.shape[..axis], indices.shape, &x.shape[axis + 1..]].concat();
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let axis = attrs::axis(self.axis, x.shape.len())?;
        for_any!(x.element(), T => pick::<T>(frame, axis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    #[test]
    fn picks_along_any_axis() {
        let x = Tensor::from_vec(&[2, 3], vec![0_i8, 1, 2, 3, 4, 5]);
        let pick =
            |axis, indices: &Tensor| eval(&Gather { axis }.into(), &[Some(&x), Some(indices)]).map(|mut y| y.remove(0));
        assert_eq!(pick(0, &Tensor::scalar(1_i64)).unwrap(), Tensor::from_vec(&[3], vec![3_i8, 4, 5]));
        let columns = Tensor::from_vec(&[1, 2], vec![-1_i32, 0]);
        assert_eq!(pick(1, &columns).unwrap(), Tensor::from_vec(&[2, 1, 2], vec![2_i8, 0, 5, 3]));
        assert_eq!(pick(-1, &Tensor::from_vec::<i64>(&[0], vec![])).unwrap().shape(), [2, 0]);
        for (axis, index) in [(0, 2), (0, -3), (1, i64::MIN), (1, i64::MAX), (2, 0)] {
            assert!(pick(axis, &Tensor::scalar(index)).is_err(), "{index} of axis {axis}");
        }
        assert!(pick(0, &Tensor::scalar(0.0_f32)).is_err());
    }
}
