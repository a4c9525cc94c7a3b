//! Cutting along an axis: the parts lie one after another.

use kd_runtime::ops;

use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Split {
    /// Blocks that are cut.
    blocks: usize,
    /// Elements of a block.
    block: usize,
    /// Elements of each part of a block; only those of the outputs that are written.
    parts: Vec<usize>,
}

/// The kernel of a Split node.
pub fn build<T: Real>(op: &ops::split::Split, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let parts = op.parts(x[axis], site.ints(1, "sizes")?.as_deref())?;
    let inner: usize = x[axis + 1..].iter().product();
    let parts = parts.into_iter().take(site.outputs).map(|size| size * inner).collect();
    Ok(Box::new(Split { blocks: x[..axis].iter().product(), block: x[axis] * inner, parts }))
}

impl Split {
    /// Calls `f` with the place in x, the place in the outputs and the length of every run.
    fn runs(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (mut offset, mut start) = (0, 0);
        for &part in &self.parts {
            for block in 0..self.blocks {
                f(block * self.block + offset, start + block * part, part);
            }
            offset += part;
            start += self.blocks * part;
        }
    }
}

impl<T: Real> Kernel<T> for Split {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let x = x.get(0);
        self.runs(|from, to, len| y[to..to + len].copy_from_slice(&x[from..from + len]));
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
        self.runs(|to, from, len| d[to..to + len].iter_mut().zip(&d_y[from..]).for_each(|(d, &v)| *d += v));
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
