//! Cutting along an axis.

use alloc::vec::Vec;

use super::rules::{changed, for_any, int_list, ints, optional, required};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::Element;

/// Most parts of a node.
pub const MOST_PARTS: usize = 1 << 10;

/// Cuts x along an axis into parts of the sizes of input 1 (i64), or into so many of one size, the last perhaps smaller;
/// any type. ONNX Split (since opset 18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Number of parts, where input 1 does not give their sizes.
    pub num_outputs: Option<usize>,
}

impl Split {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let num_outputs = match attrs.int("num_outputs")? {
            None => None,
            Some(n) => match usize::try_from(n).ok().filter(|n| (1..=MOST_PARTS).contains(n)) {
                Some(n) => Some(n),
                None => return Err(OpError::new(alloc::format!("num_outputs of 1 to {MOST_PARTS}"), n)),
            },
        };
        Ok(Self { axis: attrs.int_or("axis", 0)?, num_outputs })
    }

    /// Sizes of the parts of an axis of `len`; `sizes` are those of input 1.
    pub fn parts(&self, len: usize, sizes: Option<&[i64]>) -> Result<Vec<usize>, OpError> {
        match (sizes, self.num_outputs) {
            (Some(sizes), None) => {
                let parts: Option<Vec<usize>> = sizes.iter().map(|&n| usize::try_from(n).ok()).collect();
                let sum =
                    |parts: &Vec<usize>| parts.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n)) == Some(len);
                let parts = parts.filter(|parts| !parts.is_empty() && parts.len() <= MOST_PARTS && sum(parts));
                parts.ok_or_else(|| {
                    let expected = alloc::format!("1 to {MOST_PARTS} sizes whose sum is {len}");
                    OpError::new(expected, alloc::format!("{:?}", &sizes[..sizes.len().min(8)]))
                })
            }
            (None, Some(count)) => {
                let size = len.div_ceil(count);
                if size * (count - 1) > len {
                    return Err(OpError::new(alloc::format!("an axis that {count} parts of {size} fit in"), len));
                }
                Ok((0..count).map(|i| size.min(len - size * i)).collect())
            }
            (sizes, _) => {
                let found = if sizes.is_some() { "both" } else { "neither" };
                Err(OpError::new("either num_outputs or the sizes of the parts", found))
            }
        }
    }
}

fn cut<T: Element>(frame: &mut Frame<'_>, axis: usize) {
    let mut offset = 0;
    let x = frame.input(0);
    let row = x.shape[axis..].iter().product::<usize>().max(1);
    for i in 0..frame.output_count() {
        let out = frame.output(i);
        let len = out.shape[axis..].iter().product::<usize>();
        let rows = x.get::<T>().chunks_exact(row).zip(out.get::<T>().chunks_exact_mut(len.max(1)));
        rows.for_each(|(x, y)| y.copy_from_slice(&x[offset..offset + len]));
        offset += len;
    }
}

impl Operator for Split {
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with_int("axis", self.axis);
        match self.num_outputs {
            Some(n) => attrs.with_int("num_outputs", n as i64),
            None => attrs,
        }
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let axis = attrs::axis(self.axis, x.shape.len())?;
        let sizes = optional(inputs, 1).map(|sizes| int_list(&sizes, "sizes")).transpose()?;
        let parts = self.parts(x.shape[axis], sizes.as_deref())?;
        let part = |size: usize| {
            let mut shape = x.shape.to_vec();
            shape[axis] = size;
            TensorType { element: x.element, shape }
        };
        Ok(parts.into_iter().map(part).collect())
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let axis = attrs::axis(self.axis, x.shape.len())?;
        if let Some(sizes) = frame.optional(1) {
            let mut sizes = ints(sizes);
            for i in 0..frame.output_count() {
                let size = frame.output(i).shape[axis] as i64;
                if sizes.next() != Some(size) {
                    return Err(changed("sizes"));
                }
            }
        }
        for_any!(x.element(), T => cut::<T>(frame, axis));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};
    use alloc::vec;

    #[test]
    fn cuts_along_any_axis() {
        let x = Tensor::from_vec(&[2, 3], vec![1_i64, 2, 3, 4, 5, 6]);
        let sizes = Tensor::from_vec(&[3], vec![1_i64, 0, 2]);
        let y = eval(&Split { axis: -1, num_outputs: None }.into(), &[Some(&x), Some(&sizes)]).unwrap();
        assert_eq!(y[0], Tensor::from_vec(&[2, 1], vec![1_i64, 4]));
        assert_eq!(y[1].shape(), [2, 0]);
        assert_eq!(y[2], Tensor::from_vec(&[2, 2], vec![2_i64, 3, 5, 6]));
        let y = eval(&Split { axis: 1, num_outputs: Some(2) }.into(), &[Some(&x)]).unwrap();
        assert_eq!((y[0].shape(), y[1].shape()), (&[2, 2][..], &[2, 1][..]));
        let y = eval(&Split { axis: 0, num_outputs: Some(2) }.into(), &[Some(&x)]).unwrap();
        assert_eq!(y[1], Tensor::from_vec(&[1, 3], vec![4_i64, 5, 6]));
    }

    #[test]
    fn refuses_sizes_that_do_not_fit() {
        let x = Tensor::from_vec(&[5], vec![0.0_f32; 5]);
        for sizes in [vec![], vec![4], vec![6, -1], vec![i64::MAX, i64::MAX], vec![2, 2]] {
            let sizes = Tensor::from_vec(&[sizes.len()], sizes);
            assert!(
                eval(&Split { axis: 0, num_outputs: None }.into(), &[Some(&x), Some(&sizes)]).is_err(),
                "{sizes:?}"
            );
        }
        for (axis, num_outputs) in [(0, None), (1, Some(1)), (0, Some(4))] {
            assert!(eval(&Split { axis, num_outputs }.into(), &[Some(&x)]).is_err(), "{axis} {num_outputs:?}");
        }
        for count in [0, -1, i64::MAX] {
            assert!(Op::read("Split", Attrs::new().with_int("num_outputs", count)).unwrap().is_err());
        }
    }
}
