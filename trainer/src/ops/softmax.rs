//! Softmax and its logarithm along an axis, shifted by the largest element so that nothing overflows.

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise::PIECE;
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Softmax {
    logarithm: bool,
    len: usize,
    inner: usize,
}

/// The kernel of a Softmax node: `d_x = y (d_y - Σ d_y y)`.
pub fn softmax<T: Real>(op: &ops::softmax::Softmax, site: &Site<'_>) -> Built<T> {
    build(false, op.axis, site)
}

/// The kernel of a LogSoftmax node: `d_x = d_y - e^y Σ d_y`.
pub fn log_softmax<T: Real>(op: &ops::softmax::LogSoftmax, site: &Site<'_>) -> Built<T> {
    build(true, op.axis, site)
}

fn build<T: Real>(logarithm: bool, axis: i64, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    if x.is_empty() {
        return Err(OpError::new("an axis", "a scalar"));
    }
    let axis = ops::attrs::axis(axis, x.len())?;
    Ok(Box::new(Softmax { logarithm, len: x[axis], inner: x[axis + 1..].iter().product() }))
}

impl Softmax {
    /// Elements of a piece: whole blocks of `len * inner`.
    fn piece(&self) -> usize {
        let block = (self.len * self.inner).max(1);
        block * (PIECE / block).max(1)
    }

    /// Calls `f` with the place of the first element of each row of a piece; the others are `inner` apart.
    fn rows(&self, elements: usize, mut f: impl FnMut(usize)) {
        for start in (0..elements).step_by((self.len * self.inner).max(1)) {
            (start..start + self.inner).for_each(&mut f);
        }
    }

    fn row(&self, start: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let inner = self.inner;
        (0..self.len).map(move |i| start + i * inner)
    }

    fn forward_row<T: Real>(&self, x: &[T], y: &mut [T], start: usize) {
        let row = self.row(start);
        let top = row.clone().map(|i| x[i]).fold(x[start], |a, b| if b > a || b.is_nan() { b } else { a });
        let mut sum = T::ZERO;
        for i in row.clone() {
            let e = (x[i] - top).exp();
            y[i] = e;
            sum += e;
        }
        if self.logarithm {
            let log_sum = sum.ln();
            row.for_each(|i| y[i] = x[i] - top - log_sum);
        } else {
            row.for_each(|i| y[i] = y[i] / sum);
        }
    }

    fn backward_row<T: Real>(&self, y: &[T], d_y: &[T], d: &mut [T], add: bool, start: usize) {
        let row = self.row(start);
        let mut sum = T::ZERO;
        for i in row.clone() {
            sum += if self.logarithm { d_y[i] } else { d_y[i] * y[i] };
        }
        for i in row {
            let value = if self.logarithm { d_y[i] - y[i].exp() * sum } else { y[i] * (d_y[i] - sum) };
            d[i] = if add { d[i] + value } else { value };
        }
    }
}

impl<T: Real> Kernel<T> for Softmax {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (piece, x) = (self.piece(), x.get(0));
        threads::chunks(y, piece, |i, y| {
            let x = &x[i * piece..];
            self.rows(y.len(), |start| self.forward_row(x, y, start));
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        let piece = self.piece();
        threads::chunks(d, piece, |i, d| {
            let (y, d_y) = (&y[i * piece..], &d_y[i * piece..]);
            self.rows(d.len(), |start| self.backward_row(y, d_y, d, add, start));
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }
}
