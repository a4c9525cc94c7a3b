//! Repeating elements: each takes the sum of its copies' gradients.

use kd_runtime::ops;

use super::kernels::strided::{View, Walk, dense};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Repeat {
    /// Output, then input, whose strides are 0 along the copies.
    walk: Walk,
}

/// The kernel of a Resize node, whose factors its shapes tell.
pub fn build<T: Real>(_op: &ops::resize::Resize, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let (mut shape, mut strides) = (Vec::new(), Vec::new());
    for ((&n, &m), step) in x.iter().zip(site.output).zip(dense(x)) {
        shape.extend([n, m.checked_div(n).unwrap_or(0)]);
        strides.extend([step, 0]);
    }
    let walk = Walk::new(&shape, &View::dense(&shape), &View { offset: 0, strides });
    Ok(Box::new(Repeat { walk }))
}

impl<T: Real> Kernel<T> for Repeat {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let x = x.get(0);
        self.walk.each(|run| run.pairs().for_each(|(i, j)| y[i] = x[j]));
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
        self.walk.each(|run| run.pairs().for_each(|(i, j)| d[j] += d_y[i]));
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
