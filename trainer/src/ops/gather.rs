//! Picking slices by index: an embedding's rows, whose gradients add up over repeated indices, in their order.

use kd_runtime::graph::Tensor;
use kd_runtime::ops;

use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Gather {
    /// Blocks of the table, the length of its axis, and elements of a slice.
    outer: usize,
    len: usize,
    inner: usize,
    /// The indices, if they are constant.
    known: Option<Vec<usize>>,
    /// The indices of the last forward pass; those outside the axis are its length.
    picked: Vec<usize>,
}

/// The kernel of a Gather node. Indices outside the axis, which only computed ones can be, give NaN: a run notices a loss
/// that is not finite.
pub fn build<T: Real>(op: &ops::gather::Gather, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let len = x[axis];
    let known = match site.port(1).and_then(|port| port.value) {
        Some(indices) => {
            let all = integers(indices).map(|i| ops::attrs::axis(i, len));
            Some(all.collect::<Result<Vec<_>, _>>()?)
        }
        None => None,
    };
    let (outer, inner) = (x[..axis].iter().product(), x[axis + 1..].iter().product());
    Ok(Box::new(Gather { outer, len, inner, known, picked: Vec::new() }))
}

/// The elements of an i64 or i32 tensor.
pub fn integers(tensor: &Tensor) -> impl Iterator<Item = i64> + '_ {
    let long = tensor.get::<i64>().unwrap_or(&[]).iter().copied();
    long.chain(tensor.get::<i32>().unwrap_or(&[]).iter().map(|&i| i64::from(i)))
}

impl Gather {
    /// Calls `f` with the slice of the table (`None` outside it) and the slice of the output of every index.
    fn slices(&self, mut f: impl FnMut(Option<usize>, usize)) {
        for block in 0..self.outer {
            for (i, &index) in self.picked.iter().enumerate() {
                let from = (index < self.len).then(|| (block * self.len + index) * self.inner);
                f(from, (block * self.picked.len() + i) * self.inner);
            }
        }
    }
}

impl<T: Real> Kernel<T> for Gather {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        self.picked.clear();
        match (&self.known, x.tensor(1)) {
            (Some(known), _) => self.picked.extend(known),
            (None, Some(indices)) => {
                self.picked.extend(integers(indices).map(|i| ops::attrs::axis(i, self.len).unwrap_or(self.len)));
            }
            (None, None) => {}
        }
        let (table, inner) = (x.get(0), self.inner);
        self.slices(|from, to| match from {
            Some(from) => y[to..to + inner].copy_from_slice(&table[from..from + inner]),
            None => y[to..to + inner].fill(T::from_f32(f32::NAN)),
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        if !add {
            d.fill(T::ZERO);
        }
        let inner = self.inner;
        self.slices(|to, from| {
            if let Some(to) = to {
                d[to..to + inner].iter_mut().zip(&d_y[from..]).for_each(|(d, &v)| *d += v);
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
