//! Mean over axes.

use kd_runtime::ops::{self, OpError};

use super::kernels::strided::{View, Walk, dense};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Mean<T> {
    /// Input, then output (whose strides are 0 along the reduced axes).
    walk: Walk,
    weight: T,
}

/// The kernel of a ReduceMean node; its axes are constants.
pub fn mean<T: Real>(op: &ops::reduce::ReduceMean, site: &Site<'_>) -> Built<T> {
    let (x, reduced) = (site.shape(0), reduced(op, site)?);
    let kept: Vec<usize> = x.iter().zip(&reduced).map(|(&n, &r)| if r { 1 } else { n }).collect();
    let strides = dense(&kept).into_iter().zip(&reduced).map(|(s, &r)| if r { 0 } else { s }).collect();
    let count: usize = x.iter().zip(&reduced).filter(|(_, r)| **r).map(|(&n, _)| n).product();
    Ok(Box::new(Mean {
        walk: Walk::new(x, &View::dense(x), &View { offset: 0, strides }),
        weight: T::ONE / T::from_usize(count.max(1)),
    }))
}

/// For each axis of the input whether the mean is along it.
pub fn reduced(op: &ops::reduce::ReduceMean, site: &Site<'_>) -> Result<Vec<bool>, OpError> {
    let (rank, axes) = (site.shape(0).len(), site.ints(1, "axes")?.unwrap_or_default());
    let mut reduced = vec![axes.is_empty() && !op.noop_with_empty_axes; rank];
    for axis in axes {
        reduced[ops::attrs::axis(axis, rank)?] = true;
    }
    Ok(reduced)
}

impl<T: Real> Kernel<T> for Mean<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let x = x.get(0);
        y.fill(T::ZERO);
        self.walk.each(|run| run.pairs().for_each(|(i, j)| y[j] += x[i]));
        y.iter_mut().for_each(|y| *y *= self.weight);
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
        let weight = self.weight;
        self.walk.each(|run| {
            run.pairs().for_each(|(i, j)| d[i] = if add { d[i] + d_y[j] * weight } else { d_y[j] * weight });
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
