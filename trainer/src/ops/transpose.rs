//! Reordering axes.

use kd_runtime::ops::{self, OpError};

use super::kernels::strided::{View, Walk, dense};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

/// A one-to-one map of elements: the walk goes over output and input.
pub struct Moved {
    walk: Walk,
    /// Whether every element of the input is somewhere in the output, and of the output in the input.
    whole: bool,
}

impl Moved {
    /// Over a walk of output (a) and input (b).
    pub fn new(walk: Walk, whole: bool) -> Self {
        Self { walk, whole }
    }
}

/// The kernel of a Transpose node.
pub fn build<T: Real>(op: &ops::transpose::Transpose, site: &Site<'_>) -> Built<T> {
    let from = turned(op, site)?;
    Ok(Box::new(Moved::new(Walk::new(site.output, &View::dense(site.output), &from), true)))
}

/// The input as it lies in the output.
pub fn turned(op: &ops::transpose::Transpose, site: &Site<'_>) -> Result<View, OpError> {
    let x = site.shape(0);
    let perm: Vec<usize> = if op.perm.is_empty() { (0..x.len()).rev().collect() } else { op.perm.clone() };
    if perm.len() != x.len() || perm.iter().any(|&p| p >= x.len()) {
        return Err(OpError::new(format!("an order of {} axes", x.len()), format!("{perm:?}")));
    }
    let own = dense(x);
    Ok(View { offset: 0, strides: perm.iter().map(|&p| own[p]).collect() })
}

impl<T: Real> Kernel<T> for Moved {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let x = x.get(0);
        self.walk.each(|run| {
            if run.is_dense() {
                y[run.a..run.a + run.len].copy_from_slice(&x[run.b..run.b + run.len]);
            } else {
                run.pairs().for_each(|(i, j)| y[i] = x[j]);
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
        if !self.whole && !add {
            d.fill(T::ZERO);
        }
        self.walk.each(|run| run.pairs().for_each(|(i, j)| d[j] = if add { d[j] + d_y[i] } else { d_y[i] }));
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
