//! Largest element of each plane; the first of equal ones takes the gradient.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct GlobalMax {
    gpu: Gpu,
    plane: usize,
    /// Place in its plane of the largest element.
    winners: Buffer<f32>,
}

/// GlobalMaxPool.
pub fn build(_op: &ops::pool::GlobalMaxPool, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let plane: usize = x.get(2..).unwrap_or(&[]).iter().product();
    if plane == 0 {
        return Err(OpError::new("planes that are not empty", format!("{x:?}")).into());
    }
    let winners = Buffer::on(gpu, site.output.iter().product())?;
    Ok(Box::new(GlobalMax { gpu: gpu.clone(), plane, winners }))
}

impl Kernel<f32> for GlobalMax {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let planes = y.len();
        let args = Args::none().read(x.get(0)).write(y).write(self.winners.raw_mut()).numbers(&[planes, self.plane]);
        // SAFETY: plane_max_forward: x in planes, an element of each for the others.
        unsafe { self.gpu.groups("plane_max_forward", planes, &args) };
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        let n = d.len();
        let args = Args::none().read(d_y).read(self.winners.raw()).write(d).numbers(&[n, self.plane]).flag(add);
        // SAFETY: plane_max_backward: d of n elements in planes, an element of each for the others.
        unsafe { self.gpu.each("plane_max_backward", n, &args) };
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
