//! Padding.

use alloc::vec::Vec;

use super::rules::{axis_mask, changed, for_any, int_list, ints, of_types, one_element, optional, required};
use super::walk::{self, MOST_AXES};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::Element;

/// What is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value, 0 if none is given.
    Constant,
    /// The nearest element.
    Edge,
    /// The elements mirrored at the edge, which is not repeated.
    Reflect,
    /// The elements of the other end.
    Wrap,
}

/// Adds (or, with negative counts, removes) elements at the ends of axes; any type. Inputs x, pads (i64), value (scalar), axes. ONNX Pad.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// What is added.
    pub mode: PadMode,
}

impl Pad {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let mode = match attrs.string_or("mode", "constant")?.as_str() {
            "constant" => PadMode::Constant,
            "edge" => PadMode::Edge,
            "reflect" => PadMode::Reflect,
            "wrap" => PadMode::Wrap,
            other => {
                return Err(OpError::new("mode constant, edge, reflect or wrap", alloc::format!("`{other}`")));
            }
        };
        Ok(Self { mode })
    }
}

/// How many elements are added before and after each axis. `axes` are all if left out; a missing number is 0.
fn ends(
    rank: usize,
    count: usize,
    mut pads: impl Iterator<Item = i64> + Clone,
    axes: Option<impl Iterator<Item = i64>>,
) -> Result<[[i64; 2]; MOST_AXES], OpError> {
    let mut ends = [[0; 2]; MOST_AXES];
    let mut after = pads.clone().skip(count);
    let mut axes = axes.into_iter().flatten();
    for i in 0..count {
        let axis = attrs::axis(axes.next().unwrap_or(i as i64), rank)?;
        ends[axis] = [pads.next().unwrap_or(0), after.next().unwrap_or(0)];
    }
    Ok(ends)
}

impl PadMode {
    /// Where an element comes from that lies at `place` of an axis of `size`; `None`: it is the constant.
    fn source(self, place: i64, size: usize) -> Option<usize> {
        let n = size as i64;
        let place = match self {
            _ if n == 0 => return None,
            Self::Constant => place,
            Self::Edge => place.clamp(0, n - 1),
            Self::Reflect if n == 1 => 0,
            Self::Reflect => {
                let turn = place.rem_euclid(2 * (n - 1));
                turn.min(2 * (n - 1) - turn)
            }
            Self::Wrap => place.rem_euclid(n),
        };
        usize::try_from(place).ok().filter(|&place| place < size)
    }
}

/// Fills y row by row; the elements that lie inside are copied as one piece.
fn pad<T: Element>(mode: PadMode, frame: &mut Frame<'_>, ends: &[[i64; 2]; MOST_AXES]) {
    let x = frame.input(0);
    let value = frame.optional(2).and_then(|value| value.get::<T>().first().copied()).unwrap_or_default();
    let Some((&size, outer)) = x.shape.split_last() else {
        super::rules::copy_first(frame);
        return;
    };
    let out = frame.output(0);
    let row = out.shape[outer.len()];
    let (outer_out, strides, [before, _]) = (&out.shape[..outer.len()], walk::strides(x.shape), ends[outer.len()]);
    let (x, y) = (x.get::<T>(), out.get::<T>());
    let inside = before.clamp(0, row as i64) as usize;
    let skipped = (-before).clamp(0, size as i64) as usize;
    let inner = (size - skipped).min(row - inside);
    let mut index = [0_usize; MOST_AXES];
    for y in y.chunks_exact_mut(row.max(1)) {
        let place = |i: usize| Some(mode.source(index[i] as i64 - ends[i][0], outer[i])? * strides[i] as usize);
        let first: Option<usize> = (0..outer.len()).map(place).sum();
        match first {
            None => y.fill(value),
            Some(first) => {
                let x = &x[first..first + size];
                y[inside..inside + inner].copy_from_slice(&x[skipped..skipped + inner]);
                for k in (0..inside).chain(inside + inner..row) {
                    y[k] = mode.source(k as i64 - before, size).map_or(value, |place| x[place]);
                }
            }
        }
        for i in (0..outer.len()).rev() {
            index[i] += 1;
            if index[i] < outer_out[i] {
                break;
            }
            index[i] = 0;
        }
    }
}

impl Operator for Pad {
    fn attrs(&self) -> Attrs {
        let mode = match self.mode {
            PadMode::Constant => "constant",
            PadMode::Edge => "edge",
            PadMode::Reflect => "reflect",
            PadMode::Wrap => "wrap",
        };
        Attrs::new().with("mode", super::Attr::String(mode.into()))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let rank = x.shape.len();
        let pads = int_list(&required(inputs, 1)?, "pads")?;
        let axes = optional(inputs, 3).map(|axes| int_list(&axes, "axes")).transpose()?;
        let count = axes.as_ref().map_or(rank, Vec::len);
        if pads.len() != 2 * count {
            return Err(OpError::new(alloc::format!("{} pads for {count} axes", 2 * count), pads.len()));
        }
        if optional(inputs, 2).is_some() {
            one_element("a value", &of_types(inputs, 2, &[x.element])?)?;
        }
        if let Some(axes) = &axes {
            axis_mask(axes.iter().copied(), rank)?;
        }
        let ends = ends(rank, count, pads.iter().copied(), axes.map(Vec::into_iter))?;
        let mut shape = Vec::with_capacity(rank);
        for (&size, [before, after]) in x.shape.iter().zip(ends) {
            let padded = (size as i64).checked_add(before).and_then(|n| n.checked_add(after));
            // Below 2^40 no later sum or product of places can overflow; larger outputs are refused anyway.
            let within = |n: &i64| *n >= 0 && before.unsigned_abs().max(after.unsigned_abs()) < 1 << 40;
            let Some(n) = padded.filter(within).and_then(|n| usize::try_from(n).ok()) else {
                let found = alloc::format!("{before} and {after}");
                return Err(OpError::new(alloc::format!("pads that leave a size of an axis of {size}"), found));
            };
            if size == 0 && n > 0 && self.mode != PadMode::Constant {
                return Err(OpError::new("elements to pad with", "an empty axis"));
            }
            shape.push(n);
        }
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let axes = frame.optional(3);
        let count = axes.map_or(x.shape.len(), |axes| axes.shape.iter().product());
        let ends = ends(x.shape.len(), count, ints(frame.input(1)), axes.map(ints))?;
        let sizes = x.shape.iter().zip(&ends).map(|(&n, [before, after])| n as i64 + before + after);
        if !sizes.eq(frame.output(0).shape.iter().map(|&n| n as i64)) {
            return Err(changed("pads"));
        }
        for_any!(x.element(), T => pad::<T>(self.mode, frame, &ends));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    fn padded(mode: PadMode, x: &Tensor, pads: &[i64], value: Option<i32>, axes: Option<&[i64]>) -> Option<Tensor> {
        let pads = Tensor::from_vec(&[pads.len()], pads.to_vec());
        let value = value.map(Tensor::scalar);
        let axes = axes.map(|axes| Tensor::from_vec(&[axes.len()], axes.to_vec()));
        let inputs = [Some(x), Some(&pads), value.as_ref(), axes.as_ref()];
        eval(&Pad { mode }.into(), &inputs).ok().map(|mut y| y.remove(0))
    }

    #[test]
    fn pads_one_axis_in_every_mode() {
        use PadMode::{Constant, Edge, Reflect, Wrap};
        let x = Tensor::from_vec(&[3], vec![1, 2, 3]);
        let cases: [(PadMode, [i64; 2], &[i32]); 13] = [
            (Constant, [2, 1], &[9, 9, 1, 2, 3, 9]),
            (Edge, [2, 1], &[1, 1, 1, 2, 3, 3]),
            (Reflect, [2, 1], &[3, 2, 1, 2, 3, 2]),
            (Reflect, [5, 0], &[2, 1, 2, 3, 2, 1, 2, 3]),
            (Wrap, [2, 1], &[2, 3, 1, 2, 3, 1]),
            (Wrap, [0, 4], &[1, 2, 3, 1, 2, 3, 1]),
            (Constant, [-1, 0], &[2, 3]),
            (Constant, [-1, 2], &[2, 3, 9, 9]),
            (Constant, [1, -2], &[9, 1]),
            (Constant, [-3, 2], &[9, 9]),
            (Constant, [-5, 4], &[9, 9]),
            (Constant, [4, -5], &[9, 9]),
            (Edge, [-1, -2], &[]),
        ];
        for (mode, pads, expected) in cases {
            let y = padded(mode, &x, &pads, Some(9), None).unwrap();
            assert_eq!(y.get::<i32>().unwrap(), expected, "{mode:?} {pads:?}");
        }
    }

    #[test]
    fn pads_several_axes() {
        let x = Tensor::from_vec(&[2, 2], vec![1, 2, 3, 4]);
        let y = padded(PadMode::Constant, &x, &[1, 0, 0, 1], None, None).unwrap();
        assert_eq!(y, Tensor::from_vec(&[3, 3], vec![0, 0, 0, 1, 2, 0, 3, 4, 0]));
        let y = padded(PadMode::Edge, &x, &[1, 1], Some(7), Some(&[-2])).unwrap();
        assert_eq!(y, Tensor::from_vec(&[4, 2], vec![1, 2, 1, 2, 3, 4, 3, 4]));
        assert_eq!(padded(PadMode::Wrap, &Tensor::scalar(5), &[], None, None).unwrap(), Tensor::scalar(5));
        let empty = Tensor::from_vec::<i32>(&[0, 1], vec![]);
        let y = padded(PadMode::Constant, &empty, &[1, 0, 0, 1], Some(3), None).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1, 2], vec![3, 3]));
    }

    #[test]
    fn refuses_what_leaves_no_size() {
        let x = Tensor::from_vec(&[2, 2], vec![1, 2, 3, 4]);
        let pads: &[&[i64]] = &[
            &[0, 0, 0],
            &[-3, 0, 0, 0],
            &[-1, 0, -2, 0],
            &[i64::MAX, 0, 1, 0],
            &[i64::MIN, 0, i64::MAX, 0],
            &[i64::MIN, 0, 0, 0],
            &[1 << 40, 0, -(1 << 40), 0],
            &[1 << 32, 0, 0, 0],
        ];
        for pads in pads {
            assert!(padded(PadMode::Constant, &x, pads, None, None).is_none(), "{pads:?}");
        }
        assert!(padded(PadMode::Constant, &x, &[0; 4], None, Some(&[0, -2])).is_none());
        assert!(padded(PadMode::Constant, &x, &[0; 2], None, Some(&[2])).is_none());
        let empty = Tensor::from_vec::<i32>(&[0], vec![]);
        assert!(padded(PadMode::Edge, &empty, &[1, 0], None, None).is_none());
    }
}
