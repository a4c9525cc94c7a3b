//! Slicing.

use alloc::vec::Vec;

use super::rules::{axis_mask, changed, for_any, int_list, ints, optional, required};
use super::walk::{self, MOST_AXES, Walk};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};

/// What is taken of one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    start: usize,
    step: isize,
    len: usize,
}

impl Part {
    /// The bounds clamped to an axis of `size`; an error if `step` is 0.
    fn new(size: usize, start: i64, end: i64, step: i64) -> Result<Self, OpError> {
        let n = size as i64;
        let from_start = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
        let (start, end) = (from_start(start), from_start(end));
        let (start, way) = match step {
            0 => return Err(OpError::new("steps other than 0", 0)),
            1.. => (start.clamp(0, n), end.clamp(0, n) - start.clamp(0, n)),
            _ if n == 0 => (0, 0),
            _ => (start.clamp(0, n - 1), start.clamp(0, n - 1) - end.clamp(-1, n - 1)),
        };
        let len = (way.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
        let step = if len > 1 { step as isize } else { 1 };
        Ok(Self { start: if len == 0 { 0 } else { start as usize }, step, len })
    }
}

/// What is taken of every axis. `axes` are the first ones if left out, `steps` ones.
fn parts(
    shape: &[usize],
    bounds: impl Iterator<Item = (i64, i64)>,
    axes: Option<impl Iterator<Item = i64>>,
    steps: Option<impl Iterator<Item = i64>>,
) -> Result<[Part; MOST_AXES], OpError> {
    let mut parts = [Part { start: 0, step: 1, len: 1 }; MOST_AXES];
    for (part, &size) in parts.iter_mut().zip(shape) {
        part.len = size;
    }
    let mut axes = axes.into_iter().flatten();
    let mut steps = steps.into_iter().flatten();
    for (i, (start, end)) in bounds.enumerate() {
        let axis = attrs::axis(axes.next().unwrap_or(i as i64), shape.len())?;
        parts[axis] = Part::new(shape[axis], start, end, steps.next().unwrap_or(1))?;
    }
    Ok(parts)
}

/// Every `step`-th element from `start` to `end` along axes; any type. Inputs x, starts, ends, axes, steps (i64 or i32). ONNX Slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice;

impl Slice {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Slice {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let list = |i, what| optional(inputs, i).map(|input| int_list(&input, what)).transpose();
        let (starts, ends) = (int_list(&required(inputs, 1)?, "starts")?, int_list(&required(inputs, 2)?, "ends")?);
        let (axes, steps) = (list(3, "axes")?, list(4, "steps")?);
        let lens = [Some(ends.len()), axes.as_ref().map(Vec::len), steps.as_ref().map(Vec::len)];
        if let Some(len) = lens.into_iter().flatten().find(|&len| len != starts.len()) {
            return Err(OpError::new(alloc::format!("ends, axes and steps for {} starts", starts.len()), len));
        }
        if let Some(axes) = &axes {
            axis_mask(axes.iter().copied(), x.shape.len())?;
        }
        let bounds = starts.into_iter().zip(ends);
        let parts = parts(x.shape, bounds, axes.map(Vec::into_iter), steps.map(Vec::into_iter))?;
        let shape: Vec<usize> = parts[..x.shape.len()].iter().map(|part| part.len).collect();
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let bounds = ints(frame.input(1)).zip(ints(frame.input(2)));
        let parts = parts(x.shape, bounds, frame.optional(3).map(ints), frame.optional(4).map(ints))?;
        let out = frame.output(0);
        if !parts[..x.shape.len()].iter().map(|part| part.len).eq(out.shape.iter().copied()) {
            return Err(changed("bounds"));
        }
        let own = walk::strides(x.shape);
        let begin = own.iter().zip(&parts).map(|(&stride, part)| stride * part.start as isize).sum();
        let strides = core::array::from_fn(|i| own[i] * parts[i].step);
        let walk = Walk::new(out.shape, [strides], [begin]);
        for_any!(x.element(), T => walk::copy::<T>(&walk, x.get(), out.get()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;

    fn slice(x: &Tensor, lists: [Option<&[i64]>; 4]) -> Result<Tensor, OpError> {
        let lists = lists.map(|list| list.map(|list| Tensor::from_vec(&[list.len()], list.to_vec())));
        let inputs: Vec<_> = core::iter::once(Some(x)).chain(lists.iter().map(Option::as_ref)).collect();
        eval(&Slice.into(), &inputs).map(|mut y| y.remove(0))
    }

    #[test]
    fn slices_one_axis_like_python() {
        let x = Tensor::from_vec(&[6], alloc::vec![0_u8, 1, 2, 3, 4, 5]);
        let cases: [(i64, i64, i64, &[u8]); 16] = [
            (1, 4, 1, &[1, 2, 3]),
            (0, i64::MAX, 2, &[0, 2, 4]),
            (-2, i64::MAX, 1, &[4, 5]),
            (i64::MIN, -4, 1, &[0, 1]),
            (5, 0, -2, &[5, 3, 1]),
            (-1, i64::MIN, -1, &[5, 4, 3, 2, 1, 0]),
            (i64::MAX, i64::MIN, -5, &[5, 0]),
            (i64::MAX, i64::MIN, i64::MIN, &[5]),
            (0, i64::MAX, i64::MAX, &[0]),
            (4, 1, 1, &[]),
            (1, 4, -1, &[]),
            (9, 12, 1, &[]),
            (-9, 2, -1, &[]),
            (3, 3, 1, &[]),
            (0, -7, -1, &[0]),
            (i64::MIN, i64::MIN, i64::MIN, &[0]),
        ];
        for (start, end, step, expected) in cases {
            let y = slice(&x, [Some(&[start]), Some(&[end]), Some(&[0]), Some(&[step])]).unwrap();
            assert_eq!(y.get::<u8>().unwrap(), expected, "{start}:{end}:{step}");
        }
    }

    #[test]
    fn slices_several_axes() {
        let x = Tensor::from_vec(&[2, 3, 2], (0..12_i64).collect());
        let y = slice(&x, [Some(&[-1, 1]), Some(&[i64::MIN, 3]), Some(&[2, -2]), Some(&[-1, 1])]).unwrap();
        assert_eq!((y.shape(), y.get::<i64>().unwrap()), (&[2, 2, 2][..], &[3, 2, 5, 4, 9, 8, 11, 10][..]));
        let y = slice(&x, [Some(&[1, 2]), Some(&[2, 3]), None, None]).unwrap();
        assert_eq!((y.shape(), y.get::<i64>().unwrap()), (&[1, 1, 2][..], &[10, 11][..]));
    }

    #[test]
    fn refuses_lists_that_do_not_fit() {
        let x = Tensor::from_vec(&[2, 3], alloc::vec![0_i32; 6]);
        let one = Some(&[1][..]);
        for lists in [
            [one, Some(&[1, 2]), None, None],
            [one, one, Some(&[2]), None],
            [one, one, Some(&[-3]), None],
            [one, one, None, Some(&[0])],
            [one, one, None, Some(&[1, 1])],
            [Some(&[0, 0]), Some(&[1, 1]), Some(&[1, -1]), None],
            [Some(&[0, 0, 0]), Some(&[1, 1, 1]), None, None],
        ] {
            assert!(slice(&x, lists).is_err(), "{lists:?}");
        }
    }
}
