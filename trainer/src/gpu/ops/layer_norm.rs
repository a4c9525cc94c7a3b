//! Normalization over the last axes of each sample, with the biased variance.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct LayerNorm {
    gpu: Gpu,
    /// Rows and their elements.
    sizes: [usize; 2],
    epsilon: f32,
    /// Mean and 1/σ of each row.
    statistics: Buffer<f32>,
    wanted: [bool; 3],
}

/// LayerNormalization.
pub fn build(op: &ops::layer_norm::LayerNormalization, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let sizes = [x[..axis].iter().product::<usize>(), x[axis..].iter().product::<usize>()];
    if sizes[1] == 0 {
        return Err(OpError::new("rows that are not empty", format!("{x:?}")).into());
    }
    let statistics = Buffer::on(gpu, 2 * sizes[0])?;
    let wanted = [site.wanted(0), site.wanted(1), site.wanted(2)];
    Ok(Box::new(LayerNorm { gpu: gpu.clone(), sizes, epsilon: op.epsilon, statistics, wanted }))
}

impl Kernel<f32> for LayerNorm {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let args = Args::none().read(x.get(0)).read(x.get(1)).read(x.get(2)).write(y).write(self.statistics.raw_mut());
        // SAFETY: layer_norm_forward: arrays of these sizes.
        unsafe { self.gpu.groups("layer_norm_forward", self.sizes[0], &args.numbers(&self.sizes).float(self.epsilon)) };
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let [rows, len] = self.sizes;
        if self.wanted[1] || self.wanted[2] {
            let mut args = Args::none().read(x.get(0)).read(d_y).read(self.statistics.raw());
            let mut adds = [false; 2];
            for (k, added) in adds.iter_mut().enumerate() {
                args = match d_x.get_mut(1 + k).and_then(Gradient::target) {
                    Some((d, add)) => {
                        *added = add;
                        args.write(d)
                    }
                    None => args.write::<f32>(&mut []),
                };
            }
            let args = args.numbers(&self.sizes).flag(adds[0]).flag(adds[1]);
            // SAFETY: layer_norm_gradients: arrays of these sizes.
            unsafe { self.gpu.groups("layer_norm_gradients", len, &args) };
        }
        if let Some((d, add)) = d_x[0].target() {
            let args = Args::none().read(x.get(0)).read(x.get(1)).read(d_y).read(self.statistics.raw()).write(d);
            // SAFETY: layer_norm_backward: arrays of these sizes.
            unsafe { self.gpu.groups("layer_norm_backward", rows, &args.numbers(&self.sizes).flag(add)) };
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, true), (1, self.wanted[0])])
    }
}
