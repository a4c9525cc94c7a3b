//! Softmax and its logarithm along an axis.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::gpu::{Args, Gpu};
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Softmax {
    gpu: Gpu,
    logarithm: bool,
    /// Rows, their elements, and how far apart those lie.
    sizes: [usize; 3],
}

/// Softmax.
pub fn softmax(op: &ops::softmax::Softmax, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(false, op.axis, site, gpu)
}

/// LogSoftmax.
pub fn log_softmax(op: &ops::softmax::LogSoftmax, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(true, op.axis, site, gpu)
}

fn build(logarithm: bool, axis: i64, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    if x.is_empty() {
        return Err(OpError::new("an axis", "a scalar").into());
    }
    let axis = ops::attrs::axis(axis, x.len())?;
    let inner: usize = x[axis + 1..].iter().product();
    let sizes = [x[..axis].iter().product::<usize>() * inner, x[axis], inner];
    Ok(Box::new(Softmax { gpu: gpu.clone(), logarithm, sizes }))
}

impl Kernel<f32> for Softmax {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let args = Args::none().read(x.get(0)).write(y).numbers(&self.sizes).flag(self.logarithm);
        // SAFETY: softmax_forward: arrays of these sizes.
        unsafe { self.gpu.each("softmax_forward", self.sizes[0], &args) };
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        let args = Args::none().read(y).read(d_y).write(d).numbers(&self.sizes).flag(self.logarithm).flag(add);
        // SAFETY: softmax_backward: arrays of these sizes.
        unsafe { self.gpu.each("softmax_backward", self.sizes[0], &args) };
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }
}
