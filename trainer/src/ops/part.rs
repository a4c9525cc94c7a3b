//! One of several outputs that a kernel writes one after another: a step that the executor puts in for each that is read.

use super::kernels::pointwise;
use super::{Context, Gradient, Inputs, Keeps, Kernel};
use crate::exec::Real;

/// The output that begins at this element of the kernel's.
pub struct Part {
    /// Its first element.
    pub from: usize,
}

impl<T: Real> Kernel<T> for Part {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let len = y.len();
        pointwise::copy(y, false, &x.get(0)[self.from..][..len]);
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
            // The parts that nobody gave a gradient have none.
            d[..self.from].fill(T::ZERO);
            d[self.from + d_y.len()..].fill(T::ZERO);
        }
        pointwise::copy(&mut d[self.from..][..d_y.len()], add, d_y);
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
