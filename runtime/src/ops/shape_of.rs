//! The shape as a value.

use alloc::vec::Vec;

use super::rules::required;
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::{ElementType, Tensor};

/// The sizes of axes `start..end` as i64. ONNX Shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// First axis.
    pub start: i64,
    /// Axis after the last; the rank if left out.
    pub end: Option<i64>,
}

impl Shape {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { start: attrs.int_or("start", 0)?, end: attrs.int("end")? })
    }
}

impl Shape {
    /// The sizes asked for; bounds beyond the rank are clamped.
    fn part<'a>(&self, shape: &'a [usize]) -> &'a [usize] {
        let rank = shape.len() as i64;
        let bound = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
        let (start, end) = (bound(self.start), bound(self.end.unwrap_or(rank)));
        shape.get(start..end).unwrap_or_default()
    }
}

impl Operator for Shape {
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with_int("start", self.start);
        self.end.map_or(attrs.clone(), |end| attrs.with_int("end", end))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        TensorType::one(ElementType::I64, &[self.part(required(inputs, 0)?.shape).len()])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let sizes = self.part(frame.input(0).shape);
        frame.output(0).get::<i64>().iter_mut().zip(sizes).for_each(|(y, &size)| *y = size as i64);
        Ok(())
    }

    fn value_from_shapes(&self, inputs: &[Option<&[usize]>]) -> Option<Tensor> {
        let sizes = self.part(inputs.first().copied().flatten()?);
        Some(Tensor::from_vec(&[sizes.len()], sizes.iter().map(|&size| size as i64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::eval;

    #[test]
    fn gives_the_sizes_asked_for() {
        let x = Tensor::from_vec(&[2, 1, 3], alloc::vec![false; 6]);
        let cases: [(i64, Option<i64>, &[i64]); 7] = [
            (0, None, &[2, 1, 3]),
            (1, None, &[1, 3]),
            (-1, None, &[3]),
            (0, Some(-1), &[2, 1]),
            (-9, Some(9), &[2, 1, 3]),
            (2, Some(1), &[]),
            (i64::MIN, Some(i64::MAX), &[2, 1, 3]),
        ];
        for (start, end, expected) in cases {
            let op = Shape { start, end };
            assert_eq!(op.value_from_shapes(&[Some(x.shape())]).unwrap().get::<i64>().unwrap(), expected);
            assert_eq!(eval(&op.into(), &[Some(&x)]).unwrap()[0].get::<i64>().unwrap(), expected);
        }
    }
}
