//! The same elements under another shape; any type.

use alloc::vec::Vec;

use super::rules::{axis_mask, copy_first, int_list, optional, required};
use super::walk::MOST_AXES;
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::tensor::count;

/// To the shape of input 1 (i64): 0 copies a size (unless `allowzero`), one -1 is inferred. ONNX Reshape.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// Whether 0 means a size of 0.
    pub allowzero: bool,
}

impl Reshape {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { allowzero: attrs.flag("allowzero", false)? })
    }
}

impl Reshape {
    /// The output's shape; it may have another number of elements than the input.
    fn resolve(&self, from: &[usize], target: &[i64]) -> Result<Vec<usize>, OpError> {
        let wrong = || OpError::new("a shape of sizes, at most one of them -1", alloc::format!("{target:?}"));
        let mut inferred = None;
        let mut shape = Vec::with_capacity(target.len());
        for (i, &size) in target.iter().enumerate() {
            shape.push(match size {
                -1 if inferred.replace(i).is_some() => return Err(wrong()),
                -1 => 1,
                0 if !self.allowzero => *from.get(i).ok_or_else(|| {
                    OpError::new(
                        alloc::format!("0 only for an axis of the input {from:?}"),
                        alloc::format!("{target:?}"),
                    )
                })?,
                size => usize::try_from(size).map_err(|_| wrong())?,
            });
        }
        if let Some(i) = inferred {
            let (all, others) = (count(from), count(&shape).filter(|&n| n > 0));
            let (Some(all), Some(others)) = (all, others) else {
                return Err(OpError::new("-1 only where the other sizes tell it", alloc::format!("{target:?}")));
            };
            shape[i] = all / others;
        }
        Ok(shape)
    }
}

impl Operator for Reshape {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("allowzero", i64::from(self.allowzero))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let target = int_list(&required(inputs, 1)?, "a shape")?;
        let shape = self.resolve(x.shape, &target)?;
        if count(&shape).is_none() || count(&shape) != count(x.shape) {
            let expected = alloc::format!("as many elements as {:?} has", x.shape);
            return Err(OpError::new(expected, alloc::format!("{shape:?}")));
        }
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        Ok(())
    }

    fn is_alias(&self) -> bool {
        true
    }
}

/// To two axes: the product of the sizes before `axis`, and of those from it on. ONNX Flatten.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Flatten {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { axis: attrs.int_or("axis", 1)? })
    }
}

impl Operator for Flatten {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let rank = x.shape.len();
        let axis = if self.axis == rank as i64 { rank } else { attrs::axis(self.axis, rank)? };
        let product = |sizes: &[usize]| count(sizes).ok_or_else(|| OpError::new("a smaller input", "a larger one"));
        TensorType::one(x.element, &[product(&x.shape[..axis])?, product(&x.shape[axis..])?])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        Ok(())
    }

    fn is_alias(&self) -> bool {
        true
    }
}

/// Drops axes of size 1: those of input 1 (i64), or all. ONNX Squeeze.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Squeeze;

impl Squeeze {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Squeeze {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let dropped = match optional(inputs, 1) {
            Some(axes) => axis_mask(int_list(&axes, "axes")?.into_iter(), x.shape.len())?,
            None => core::array::from_fn(|i| x.shape.get(i) == Some(&1)),
        };
        if x.shape.iter().zip(dropped).any(|(&size, dropped)| dropped && size != 1) {
            return Err(OpError::new("axes of size 1", alloc::format!("shape {:?}", x.shape)));
        }
        let kept: Vec<usize> = x.shape.iter().zip(dropped).filter(|(_, d)| !d).map(|(&size, _)| size).collect();
        TensorType::one(x.element, &kept)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        Ok(())
    }

    fn is_alias(&self) -> bool {
        true
    }
}

/// Adds axes of size 1 at the places of input 1 (i64) in the output. ONNX Unsqueeze.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unsqueeze;

impl Unsqueeze {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Unsqueeze {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let axes = int_list(&required(inputs, 1)?, "axes")?;
        let rank = x.shape.len() + axes.len();
        if rank > MOST_AXES {
            return Err(OpError::new(alloc::format!("at most {MOST_AXES} axes"), rank));
        }
        let added = axis_mask(axes.into_iter(), rank)?;
        let mut sizes = x.shape.iter();
        let shape: Vec<usize> =
            added.iter().take(rank).filter_map(|&a| if a { Some(1) } else { sizes.next().copied() }).collect();
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        copy_first(frame);
        Ok(())
    }

    fn is_alias(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    /// The output's shape, after checking that the elements are the same.
    fn shape_of(op: impl Into<Op>, x: &[usize], list: Option<&[i64]>) -> Option<Vec<usize>> {
        let x = Tensor::from_vec(x, (0..x.iter().product::<usize>()).map(|i| i as i32).collect());
        let list = list.map(|list| Tensor::from_vec(&[list.len()], list.to_vec()));
        let inputs = if list.is_some() { &[Some(&x), list.as_ref()][..] } else { &[Some(&x)] };
        let y = eval(&op.into(), inputs).ok()?.remove(0);
        assert_eq!(y.data(), x.data());
        Some(y.shape().to_vec())
    }

    #[test]
    fn reshapes() {
        type Case = (bool, &'static [usize], &'static [i64], Option<&'static [usize]>);
        let cases: &[Case] = &[
            (false, &[2, 6], &[3, 4], Some(&[3, 4])),
            (false, &[2, 6], &[0, -1, 2], Some(&[2, 3, 2])),
            (false, &[2, 6], &[-1], Some(&[12])),
            (false, &[1], &[], Some(&[])),
            (false, &[0, 3], &[0, -1], None),
            (true, &[0, 3], &[3, 0], Some(&[3, 0])),
            (true, &[0, 3], &[0, -1], None),
            (false, &[0, 3], &[3, -1], Some(&[3, 0])),
            (false, &[2, 6], &[5, -1], None),
            (false, &[2, 6], &[-1, -1], None),
            (false, &[2, 6], &[1, 1, 0], None),
            (false, &[2, 6], &[-2, 6], None),
            (false, &[2, 6], &[i64::MIN, i64::MAX], None),
            (false, &[2, 6], &[1 << 62, 1 << 62, -1], None),
            (false, &[1], &[1, 1, 1, 1, 1, 1, 1, 1, 1], None),
        ];
        for &(allowzero, x, target, expected) in cases {
            assert_eq!(shape_of(Reshape { allowzero }, x, Some(target)).as_deref(), expected, "{x:?} to {target:?}");
        }
    }

    #[test]
    fn flattens() {
        let cases: [(i64, Option<[usize; 2]>); 8] = [
            (0, Some([1, 24])),
            (1, Some([2, 12])),
            (3, Some([24, 1])),
            (-1, Some([6, 4])),
            (-3, Some([1, 24])),
            (4, None),
            (-4, None),
            (i64::MIN, None),
        ];
        for (axis, expected) in cases {
            let expected = expected.map(|shape| shape.to_vec());
            assert_eq!(shape_of(Flatten { axis }, &[2, 3, 4], None), expected, "{axis}");
        }
        assert_eq!(shape_of(Flatten { axis: 0 }, &[], None).unwrap(), [1, 1]);
    }

    #[test]
    fn drops_and_adds_axes_of_one() {
        let x = &[1, 3, 1, 2];
        assert_eq!(shape_of(Squeeze, x, None).unwrap(), [3, 2]);
        assert_eq!(shape_of(Squeeze, x, Some(&[-2])).unwrap(), [1, 3, 2]);
        assert_eq!(shape_of(Squeeze, x, Some(&[])).unwrap(), x);
        assert_eq!(shape_of(Unsqueeze, &[3, 2], Some(&[-1, 0])).unwrap(), [1, 3, 2, 1]);
        assert_eq!(shape_of(Unsqueeze, &[], Some(&[0])).unwrap(), [1]);
        for axes in [&[1][..], &[0, 0], &[0, -4], &[4], &[i64::MIN]] {
            assert_eq!(shape_of(Squeeze, x, Some(axes)), None, "{axes:?}");
        }
        for axes in [&[3][..], &[0, 0], &[0, -4], &[0, 1, 2, 3, 4, 5, 6]] {
            assert_eq!(shape_of(Unsqueeze, &[3, 2], Some(axes)), None, "{axes:?}");
        }
    }

    #[test]
    fn refuses_a_shape_that_is_computed() {
        use crate::graph::ElementType::{F32, I64};
        let [x, shape] = [(F32, &[4]), (I64, &[1])].map(|(element, shape)| Input { element, shape, value: None });
        let error = Op::from(Reshape { allowzero: false }).infer(&[Some(x), Some(shape)]).unwrap_err();
        assert_eq!(error.found, "one that is computed");
    }
}
