//! Picking slices by indices that are constant; others are the host's.

use kd_runtime::ops;

use super::{Failed, Made};
use crate::gpu::{Args, Gpu};
use crate::ops::gather::integers;
use crate::ops::kernels::buffer::Buffer;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Gather {
    gpu: Gpu,
    /// Elements of a slice, slices of a block of the output and of one of the table.
    sizes: [usize; 3],
    /// Bits of the indices.
    indices: Buffer<f32>,
}

/// Gather.
pub fn build(op: &ops::gather::Gather, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let Some(indices) = site.port(1).and_then(|port| port.value) else { return Err(Failed::Host) };
    let mut bits = Vec::new();
    for index in integers(indices) {
        let index = u32::try_from(ops::attrs::axis(index, x[axis])?).map_err(|_| Failed::Host)?;
        bits.push(f32::from_bits(index));
    }
    let sizes = [x[axis + 1..].iter().product(), bits.len(), x[axis]];
    let mut indices = Buffer::on(gpu, bits.len())?;
    indices.put(&bits);
    Ok(Box::new(Gather { gpu: gpu.clone(), sizes, indices }))
}

impl Kernel<f32> for Gather {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        let args = Args::none().read(x.get(0)).read(self.indices.raw()).write(y).number(n).numbers(&self.sizes);
        // SAFETY: gather_forward: indices inside a block of the table, y of n elements.
        unsafe { self.gpu.each("gather_forward", n, &args) };
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
        let args = Args::none().read(d_y).read(self.indices.raw()).write(d).number(n).numbers(&self.sizes).flag(add);
        // SAFETY: gather_backward: the table's n elements.
        unsafe { self.gpu.each("gather_backward", n, &args) };
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
