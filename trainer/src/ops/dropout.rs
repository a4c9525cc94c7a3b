//! Dropout: in training each element is zeroed with probability `ratio` and the others divided by `1 - ratio`.

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise::{self, PIECE};
use super::kernels::rows::wide;
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::random::Stream;
use crate::exec::{Mode, Real};

struct Dropout {
    ratio: f32,
    batch: usize,
}

/// The kernel of a Dropout node; its ratio is a constant, and 0.5 if left out.
pub fn build<T: Real>(_op: &ops::dropout::Dropout, site: &Site<'_>) -> Built<T> {
    let ratio = site.scalar(1, "a ratio")?.unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(OpError::new("a dropout ratio of 0 to below 1", ratio));
    }
    Ok(Box::new(Dropout { ratio, batch: site.output.first().copied().unwrap_or(1) }))
}

/// `y = y / (1 - ratio)` where element i is kept, else 0. The gradient is the same map.
pub fn apply<T: Real>(y: &mut [T], ratio: f32, kept: impl Fn(usize) -> bool + Copy + Sync) {
    let factor = factor(ratio);
    each(y, move |y: &mut T, i| *y = if kept(i) { *y * factor } else { T::ZERO });
}

/// Of what is kept.
fn factor<T: Real>(ratio: f32) -> T {
    T::ONE / (T::ONE - T::from_f32(ratio))
}

/// Calls `f` with each element and its place.
fn each<T: Real>(y: &mut [T], f: impl Fn(&mut T, usize) + Copy + Sync) {
    threads::chunks(y, PIECE, |piece, y| {
        wide(move || {
            for (i, y) in (piece * PIECE..).zip(y) {
                f(y, i);
            }
        });
    });
}

impl Dropout {
    /// The number of the first element of a batch of so many: where this process has a share of a batch, that in the whole.
    fn first<T>(&self, elements: usize, context: &Context<'_, T>) -> usize {
        context.share.map_or(0, |share| share.first * (elements / self.batch.max(1)))
    }

    /// Which elements of so many are kept in the step of this seed: those whose number is at least `ratio`.
    fn kept<T>(&self, elements: usize, seed: u64, context: &Context<'_, T>) -> impl Fn(usize) -> bool + Copy + use<T> {
        let (stream, first) = (Stream::new(seed, context.node as u64), self.first(elements, context));
        let least = Stream::least(self.ratio);
        move |i| stream.bits((first + i) as u64) >= least
    }

    fn run<T: Real>(&self, y: &mut [T], context: &Context<'_, T>) {
        if let Mode::Train { seed } = context.mode
            && self.ratio > 0.0
        {
            apply(y, self.ratio, self.kept(y.len(), seed, context));
        }
    }
}

impl<T: Real> Kernel<T> for Dropout {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        pointwise::copy(y, false, x.get(0));
        self.run(y, context);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        if !add {
            pointwise::copy(d, false, d_y);
            return self.run(d, context);
        }
        match context.mode {
            Mode::Train { seed } if self.ratio > 0.0 => {
                let (kept, factor) = (self.kept(d.len(), seed, context), factor::<T>(self.ratio));
                each(d, move |d, i| {
                    if kept(i) {
                        *d += d_y[i] * factor;
                    }
                });
            }
            _ => pointwise::copy(d, true, d_y),
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn in_place(&self) -> bool {
        true
    }

    fn forward_in_place(&mut self, _x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        self.run(y, context);
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d: &mut [T],
        _d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        self.run(d, context);
    }
}
