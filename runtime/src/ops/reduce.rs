//! Reductions.

use alloc::vec::Vec;

use super::rules::{axis_mask, changed, int_list, ints, of_types, optional};
use super::walk::{MOST_AXES, Walk, strides};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::{Element, ElementType};

trait Number: Element {
    fn plus(self, other: Self) -> Self;
    fn over(self, count: usize) -> Self;
}

impl Number for f32 {
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn over(self, count: usize) -> Self {
        self / count as Self
    }
}

macro_rules! wrapping {
    ($($type:ty)+) => {$(
        impl Number for $type {
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            fn over(self, count: usize) -> Self { (i64::from(self) / count.max(1) as i64) as Self }
        }
    )+};
}
wrapping!(i32 i64);

/// Adds x, in row-major order, to what each element is reduced to, and divides.
fn mean<T: Number>(frame: &mut Frame<'_>, reduced: &[bool; MOST_AXES]) {
    let x = frame.input(0);
    let mut kept = [1; MOST_AXES];
    (0..x.shape.len()).filter(|&i| !reduced[i]).for_each(|i| kept[i] = x.shape[i]);
    let mut steps = strides(&kept[..x.shape.len()]);
    (0..x.shape.len()).filter(|&i| reduced[i]).for_each(|i| steps[i] = 0);
    let walk = Walk::new(x.shape, [steps], [0]);
    let count: usize = (0..x.shape.len()).filter(|&i| reduced[i]).map(|i| x.shape[i]).product();
    let y = frame.output(0).get::<T>();
    y.fill(T::default());
    let (len, [step]) = (walk.row_len(), walk.row_steps());
    for (row, [start]) in x.get::<T>().chunks_exact(len).zip(walk.starts()) {
        let start = start as usize;
        if step == 0 {
            y[start] = row.iter().fold(y[start], |sum, &x| sum.plus(x));
        } else {
            y[start..start + len].iter_mut().zip(row).for_each(|(y, &x)| *y = y.plus(x));
        }
    }
    y.iter_mut().for_each(|y| *y = y.over(count));
}

/// Mean over axes (input 1, i64; all if left out or empty); f32, i32, i64 (integers wrap and truncate). ONNX ReduceMean.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceMean {
    /// Whether reduced axes stay as 1.
    pub keepdims: bool,
    /// Whether empty axes mean none instead of all.
    pub noop_with_empty_axes: bool,
}

impl ReduceMean {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self {
            keepdims: attrs.flag("keepdims", true)?,
            noop_with_empty_axes: attrs.flag("noop_with_empty_axes", false)?,
        })
    }
}

impl ReduceMean {
    /// Which axes of `rank` are reduced.
    fn mask(&self, axes: Option<impl Iterator<Item = i64>>, rank: usize) -> Result<[bool; MOST_AXES], OpError> {
        let mut axes = axes.into_iter().flatten().peekable();
        if axes.peek().is_some() {
            return axis_mask(axes, rank);
        }
        Ok([!self.noop_with_empty_axes; MOST_AXES])
    }
}

impl Operator for ReduceMean {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with_int("keepdims", i64::from(self.keepdims))
            .with_int("noop_with_empty_axes", i64::from(self.noop_with_empty_axes))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = of_types(inputs, 0, &[ElementType::F32, ElementType::I32, ElementType::I64])?;
        let axes = optional(inputs, 1).map(|axes| int_list(&axes, "axes")).transpose()?;
        let reduced = self.mask(axes.map(Vec::into_iter), x.shape.len())?;
        let sizes = x.shape.iter().zip(reduced);
        if x.element != ElementType::F32 && sizes.clone().any(|(&size, reduced)| reduced && size == 0) {
            return Err(OpError::new("integers to take the mean of", "none"));
        }
        let kept = sizes.filter(|(_, reduced)| self.keepdims || !reduced);
        let shape: Vec<usize> = kept.map(|(&size, reduced)| if reduced { 1 } else { size }).collect();
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let reduced = self.mask(frame.optional(1).map(ints), x.shape.len())?;
        let kept = x.shape.iter().zip(reduced).filter(|(_, reduced)| !reduced).map(|(&size, _)| size);
        if kept.product::<usize>() != frame.output(0).data.len() {
            return Err(changed("axes"));
        }
        match x.element() {
            ElementType::I32 => mean::<i32>(frame, &reduced),
            ElementType::I64 => mean::<i64>(frame, &reduced),
            _ => mean::<f32>(frame, &reduced),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    const MEAN: ReduceMean = ReduceMean { keepdims: true, noop_with_empty_axes: false };

    fn reduce(op: &ReduceMean, x: &Tensor, axes: Option<&[i64]>) -> Result<Tensor, OpError> {
        let axes = axes.map(|axes| Tensor::from_vec(&[axes.len()], axes.to_vec()));
        eval(&op.clone().into(), &[Some(x), axes.as_ref()]).map(|mut y| y.remove(0))
    }

    #[test]
    fn takes_the_mean_over_any_axes() {
        let x = Tensor::from_vec(&[2, 2, 3], (0..12).map(|i| i as f32).collect());
        let flat = ReduceMean { keepdims: false, ..MEAN };
        type Case<'a> = (&'a ReduceMean, Option<&'a [i64]>, &'a [usize], &'a [f32]);
        let cases: [Case<'_>; 7] = [
            (&MEAN, None, &[1, 1, 1], &[5.5]),
            (&flat, Some(&[]), &[], &[5.5]),
            (&flat, Some(&[1]), &[2, 3], &[1.5, 2.5, 3.5, 7.5, 8.5, 9.5]),
            (&MEAN, Some(&[-1]), &[2, 2, 1], &[1.0, 4.0, 7.0, 10.0]),
            (&flat, Some(&[0, 2]), &[2], &[4.0, 7.0]),
            (&MEAN, Some(&[2, 1]), &[2, 1, 1], &[2.5, 8.5]),
            (&flat, Some(&[0]), &[2, 3], &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        ];
        for (op, axes, shape, expected) in cases {
            let y = reduce(op, &x, axes).unwrap();
            assert_eq!((y.shape(), y.get::<f32>().unwrap()), (shape, expected), "{axes:?}");
        }
        let noop = ReduceMean { noop_with_empty_axes: true, ..MEAN };
        assert_eq!(reduce(&noop, &x, None).unwrap(), x);
        let whole = Tensor::from_vec(&[2], vec![-3_i32, 0]);
        assert_eq!(reduce(&MEAN, &whole, None).unwrap().get::<i32>().unwrap(), [-1]);
    }

    #[test]
    fn refuses_axes_that_are_not_there() {
        let x = Tensor::from_vec(&[1, 1], vec![1.0_f32]);
        for axes in [&[2][..], &[-3], &[0, 0], &[0, -2], &[i64::MIN]] {
            assert!(reduce(&MEAN, &x, Some(axes)).is_err(), "{axes:?}");
        }
        assert!(reduce(&MEAN, &Tensor::from_vec::<i64>(&[0], vec![]), None).is_err());
        assert!(reduce(&MEAN, &Tensor::scalar(1_u8), None).is_err());
    }
}
