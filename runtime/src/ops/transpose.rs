//! Reordering axes.

use alloc::vec::Vec;

use super::rules::{for_any, required};
use super::walk::{self, MOST_AXES, Walk};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y` has axis `perm[i]` of x as its axis i (reversed if empty); any type. ONNX Transpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The order; empty reverses.
    pub perm: Vec<usize>,
}

impl Transpose {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { perm: attrs.sizes("perm", 0)? })
    }
}

impl Transpose {
    /// The axis of x that becomes axis `i` of `rank`.
    fn source(&self, i: usize, rank: usize) -> usize {
        if self.perm.is_empty() { rank - 1 - i } else { self.perm[i] }
    }
}

impl Operator for Transpose {
    fn attrs(&self) -> Attrs {
        if self.perm.is_empty() { Attrs::new() } else { Attrs::new().with_sizes("perm", &self.perm) }
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let rank = x.shape.len();
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !self.perm.is_empty() && !sorted.iter().copied().eq(0..rank) {
            let expected = alloc::format!("a perm of the axes below {rank}, each once");
            return Err(OpError::new(expected, alloc::format!("{:?}", self.perm)));
        }
        let shape: Vec<usize> = (0..rank).map(|i| x.shape[self.source(i, rank)]).collect();
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let (own, rank) = (walk::strides(x.shape), x.shape.len());
        let mut strides = [0; MOST_AXES];
        strides.iter_mut().enumerate().take(rank).for_each(|(i, stride)| *stride = own[self.source(i, rank)]);
        let out = frame.output(0);
        let walk = Walk::new(out.shape, [strides], [0]);
        for_any!(x.element(), T => walk::copy::<T>(&walk, x.get(), out.get()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;

    fn transpose(perm: &[usize], shape: &[usize]) -> Result<Tensor, OpError> {
        let x = Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| i as u8).collect());
        eval(&Transpose { perm: perm.to_vec() }.into(), &[Some(&x)]).map(|mut y| y.remove(0))
    }

    #[test]
    fn reorders_axes() {
        let y = transpose(&[], &[2, 3]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[3, 2], alloc::vec![0_u8, 3, 1, 4, 2, 5]));
        let y = transpose(&[0, 2, 1], &[2, 1, 3]).unwrap();
        assert_eq!((y.shape(), y.get::<u8>().unwrap()), (&[2, 3, 1][..], &[0, 1, 2, 3, 4, 5][..]));
        let y = transpose(&[2, 0, 1], &[2, 2, 2]).unwrap();
        assert_eq!(y.get::<u8>().unwrap(), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(transpose(&[], &[]).unwrap(), Tensor::scalar(0_u8));
        assert_eq!(transpose(&[1, 0], &[2, 0]).unwrap().shape(), [0, 2]);
    }

    #[test]
    fn refuses_what_is_no_permutation() {
        for perm in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 2], &[1, 1 << 31]] {
            assert!(transpose(perm, &[2, 3]).is_err(), "{perm:?}");
        }
    }
}
