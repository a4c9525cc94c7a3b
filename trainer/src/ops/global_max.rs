//! Largest element of each plane; the first of equal ones takes the gradient.

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise::PIECE;
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct GlobalMax {
    plane: usize,
    /// Place in its plane of the largest element.
    winners: Vec<usize>,
}

/// The kernel of a GlobalMaxPool node.
pub fn build<T: Real>(_op: &ops::pool::GlobalMaxPool, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let plane: usize = x.get(2..).unwrap_or(&[]).iter().product();
    if plane == 0 {
        return Err(OpError::new("planes that are not empty", format!("{x:?}")));
    }
    Ok(Box::new(GlobalMax { plane, winners: vec![0; site.output.iter().product()] }))
}

impl<T: Real> Kernel<T> for GlobalMax {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (x, plane) = (x.get(0), self.plane);
        let planes = (PIECE / plane).max(1);
        threads::pairs((y, planes), (&mut self.winners, planes), |i, y, winners| {
            let all = y.iter_mut().zip(winners).zip(x[i * planes * plane..].chunks_exact(plane));
            for ((y, winner), x) in all {
                *winner = 0;
                for (i, value) in x.iter().enumerate() {
                    // A NaN wins and stays: a loss that is not finite must be noticed.
                    if *value > x[*winner] || (value.is_nan() && !x[*winner].is_nan()) {
                        *winner = i;
                    }
                }
                *y = x[*winner];
            }
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
        for ((d, &winner), &d_y) in d.chunks_exact_mut(self.plane).zip(&self.winners).zip(d_y) {
            d[winner] += d_y;
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
