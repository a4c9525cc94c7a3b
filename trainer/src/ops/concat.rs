//! Joining along an axis: each input takes its part of the gradient.

use kd_runtime::ops;

use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Concat {
    /// Elements that each input gives to one block of the output.
    parts: Vec<usize>,
}

/// The kernel of a Concat node.
pub fn build<T: Real>(op: &ops::concat::Concat, site: &Site<'_>) -> Built<T> {
    let axis = ops::attrs::axis(op.axis, site.output.len())?;
    let parts = (0..site.inputs.len()).map(|i| site.shape(i)[axis..].iter().product()).collect();
    Ok(Box::new(Concat { parts }))
}

impl Concat {
    fn block(&self) -> usize {
        self.parts.iter().sum::<usize>().max(1)
    }
}

impl<T: Real> Kernel<T> for Concat {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let block = self.block();
        let mut offset = 0;
        for (i, &part) in self.parts.iter().enumerate().filter(|(_, part)| **part > 0) {
            for (y, x) in y.chunks_exact_mut(block).zip(x.get(i).chunks_exact(part)) {
                y[offset..offset + part].copy_from_slice(x);
            }
            offset += part;
        }
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let block = self.block();
        let mut offset = 0;
        for (&part, gradient) in self.parts.iter().zip(d_x).filter(|(part, _)| **part > 0) {
            if let Some((d, add)) = gradient.target() {
                for (d, d_y) in d.chunks_exact_mut(part).zip(d_y.chunks_exact(block)) {
                    let d_y = &d_y[offset..offset + part];
                    if add {
                        d.iter_mut().zip(d_y).for_each(|(d, &v)| *d += v);
                    } else {
                        d.copy_from_slice(d_y);
                    }
                }
            }
            offset += part;
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
