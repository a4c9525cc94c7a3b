//! Walking operands of up to eight axes by strides, row by row: broadcasting, transposing, slicing, reducing.

use crate::graph::Element;

/// Most axes of an operand; shape rules refuse more.
pub const MOST_AXES: usize = 8;

/// Row-major strides of a shape of at most [`MOST_AXES`] axes; 0 past its rank.
pub fn strides(shape: &[usize]) -> [isize; MOST_AXES] {
    let mut strides = [0; MOST_AXES];
    let mut step = 1_usize;
    for (i, &n) in shape.iter().enumerate().rev() {
        strides[i] = step as isize;
        step = step.wrapping_mul(n);
    }
    strides
}

/// Strides of an operand under the axes of the shape that it is broadcast to: 0 where it is stretched.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> [isize; MOST_AXES] {
    let own = strides(from);
    let lead = to.len() - from.len();
    let mut stretched = [0; MOST_AXES];
    for (i, &n) in from.iter().enumerate() {
        if n != 1 {
            stretched[lead + i] = own[i];
        }
    }
    stretched
}

/// A walk over all indices of a shape in row-major order, with the places of `K` operands. Axes that every operand
/// steps through as if they were one are joined, so that the rows (the last axis) are long.
#[derive(Clone, Copy, Debug)]
pub struct Walk<const K: usize> {
    outer: usize,
    sizes: [usize; MOST_AXES],
    steps: [[isize; K]; MOST_AXES],
    row_len: usize,
    row_steps: [isize; K],
    begin: [isize; K],
}

impl<const K: usize> Walk<K> {
    /// A walk over `shape` (at most [`MOST_AXES`] axes) that starts at `begin` and moves operand k along axis i by
    /// `strides[k][i]` elements.
    pub fn new(shape: &[usize], strides: [[isize; MOST_AXES]; K], begin: [isize; K]) -> Self {
        let (mut sizes, mut steps, mut rank) = ([1; MOST_AXES], [[0; K]; MOST_AXES], 0);
        for (i, &n) in shape.iter().enumerate().filter(|(_, n)| **n != 1) {
            let step = core::array::from_fn(|k| strides[k][i]);
            let joins = |last: &[isize; K]| (0..K).all(|k| last[k] == step[k].wrapping_mul(n as isize));
            if rank > 0 && joins(&steps[rank - 1]) {
                sizes[rank - 1] *= n;
                steps[rank - 1] = step;
            } else {
                (sizes[rank], steps[rank]) = (n, step);
                rank += 1;
            }
        }
        if rank == 0 {
            return Self { outer: 0, sizes, steps, row_len: 1, row_steps: [1; K], begin };
        }
        let outer = rank - 1;
        Self { outer, sizes, steps, row_len: sizes[outer].max(1), row_steps: steps[outer], begin }
    }

    /// Elements of a row, at least 1 (a walk over no element has no row).
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// By how much each operand moves from one element of a row to the next.
    pub fn row_steps(&self) -> [isize; K] {
        self.row_steps
    }

    /// Where each row starts in each operand; after the last row it starts over.
    pub fn starts(&self) -> Starts<'_, K> {
        Starts { walk: self, index: [0; MOST_AXES], place: self.begin }
    }

    /// The place of every element in each operand.
    pub fn places(&self) -> impl Iterator<Item = [isize; K]> + '_ {
        let steps = self.row_steps;
        self.starts().flat_map(move |start| {
            (0..self.row_len).map(move |i| core::array::from_fn(|k| start[k] + i as isize * steps[k]))
        })
    }
}

/// See [`Walk::starts`].
#[derive(Clone, Debug)]
pub struct Starts<'a, const K: usize> {
    walk: &'a Walk<K>,
    index: [usize; MOST_AXES],
    place: [isize; K],
}

impl<const K: usize> Iterator for Starts<'_, K> {
    type Item = [isize; K];

    fn next(&mut self) -> Option<[isize; K]> {
        let place = self.place;
        for axis in (0..self.walk.outer).rev() {
            let (size, steps) = (self.walk.sizes[axis], &self.walk.steps[axis]);
            self.index[axis] += 1;
            if self.index[axis] < size {
                (0..K).for_each(|k| self.place[k] += steps[k]);
                break;
            }
            self.index[axis] = 0;
            (0..K).for_each(|k| self.place[k] -= steps[k] * (size as isize - 1));
        }
        Some(place)
    }
}

/// Copies the elements that a walk over `source` visits, in order.
pub fn copy<T: Element>(walk: &Walk<1>, source: &[T], to: &mut [T]) {
    let (len, [step]) = (walk.row_len(), walk.row_steps());
    for (row, [start]) in to.chunks_exact_mut(len).zip(walk.starts()) {
        let first = start as usize;
        match step {
            1 => row.copy_from_slice(&source[first..first + len]),
            0 => row.fill(source[first]),
            _ => (row.iter_mut().enumerate()).for_each(|(i, y)| *y = source[(start + i as isize * step) as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn joins_axes_and_visits_every_place() {
        let walk = Walk::new(&[2, 3, 4], [strides(&[2, 3, 4])], [0]);
        assert_eq!((walk.row_len(), walk.row_steps()), (24, [1]));
        let walk = Walk::new(&[2, 3], [[1, 2, 0, 0, 0, 0, 0, 0]], [0]);
        assert_eq!(walk.places().take(6).map(|[p]| p).collect::<Vec<_>>(), [0, 2, 4, 1, 3, 5]);
        let walk = Walk::new(&[2, 1, 3], [broadcast_strides(&[3], &[2, 1, 3])], [0]);
        assert_eq!(walk.places().take(6).map(|[p]| p).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn walks_a_scalar_and_nothing() {
        assert_eq!(Walk::new(&[], [strides(&[])], [0]).places().next(), Some([0]));
        assert_eq!(Walk::new(&[2, 0], [strides(&[2, 0])], [0]).row_len(), 1);
    }
}
