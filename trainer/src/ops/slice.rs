//! Slicing: what is cut away has no gradient.

use kd_runtime::ops::{self, OpError};

use super::kernels::strided::{View, Walk, dense};
use super::transpose::Moved;
use super::{Built, Site};
use crate::exec::Real;

/// The kernel of a Slice node; starts, ends, axes and steps are constants.
pub fn build<T: Real>(_op: &ops::slice::Slice, site: &Site<'_>) -> Built<T> {
    let walk = Walk::new(site.output, &View::dense(site.output), &cut(site)?);
    let whole = site.output.iter().product::<usize>() == site.shape(0).iter().product::<usize>();
    Ok(Box::new(Moved::new(walk, whole)))
}

/// What of the input the output is.
pub fn cut(site: &Site<'_>) -> Result<View, OpError> {
    let x = site.shape(0);
    let starts = site.ints(1, "starts")?.unwrap_or_default();
    let axes = site.ints(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = site.ints(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut from = View { offset: 0, strides: dense(x) };
    for (i, (&axis, &start)) in axes.iter().zip(&starts).enumerate() {
        let axis = ops::attrs::axis(axis, x.len())?;
        let size = x[axis] as i64;
        let step = steps.get(i).copied().filter(|&s| s != 0).ok_or_else(|| OpError::new("a step other than 0", 0))?;
        let start = if start < 0 { start.saturating_add(size) } else { start };
        // As ONNX: clamped to the elements that a walk in this direction may begin at.
        let start = if step > 0 { start.clamp(0, size) } else { start.clamp(-1, size - 1) };
        if site.output[axis] > 0 {
            from.offset += start as isize * from.strides[axis];
        }
        from.strides[axis] *= step as isize;
    }
    Ok(from)
}
