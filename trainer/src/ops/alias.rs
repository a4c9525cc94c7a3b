//! Flatten, Identity, Reshape, Squeeze, Unsqueeze: the same elements under another shape. The executor gives both
//! values one buffer; a kernel is asked for only where that cannot be (the source is a graph input that is tapped).

use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Alias;

/// Whatever the operator, the elements are copied.
pub fn build<T: Real, Op>(_op: &Op, _site: &Site<'_>) -> Built<T> {
    Ok(Box::new(Alias))
}

impl<T: Real> Kernel<T> for Alias {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        pointwise::copy(y, false, x.get(0));
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        if let Some((d, add)) = d_x[0].target() {
            pointwise::copy(d, add, d_y);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
