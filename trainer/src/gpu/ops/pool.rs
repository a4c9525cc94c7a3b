//! Pooling over one or two spatial axes.

use kd_runtime::ops::{self, OpError, window::Axis};

use super::{Failed, Made};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::window::Window2;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Pool {
    gpu: Gpu,
    /// Input h, w, c, output h, w, kernel, strides, dilations, pads before and behind.
    sizes: [usize; 15],
    /// Places of the largest elements, of a pool that takes them; else empty.
    winners: Buffer<f32>,
    /// Whether pads count in a mean.
    counts_pads: bool,
    is_max: bool,
}

fn sizes(window: &ops::window::Window, site: &Site<'_>) -> Result<[usize; 15], Failed> {
    let x = site.shape(0);
    let axes = window.resolve(x.get(2..).unwrap_or(&[]), None)?;
    let Some(Window2 { y, x: columns }) = Window2::new(&axes) else {
        return Err(OpError::new("a pool over 1 or 2 spatial axes", axes.len()).into());
    };
    let both = |of: fn(&Axis) -> usize| [of(&y), of(&columns)];
    let [h, w] = both(|axis| axis.input);
    let [oh, ow] = both(|axis| axis.output);
    let rest = [
        both(|axis| axis.kernel),
        both(|axis| axis.stride),
        both(|axis| axis.dilation),
        both(|axis| axis.pad_begin),
        both(|axis| axis.pad_end),
    ];
    let mut sizes = [h, w, x[1], oh, ow, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rest.concat().into_iter().zip(&mut sizes[5..]).for_each(|(size, to)| *to = size);
    Ok(sizes)
}

/// MaxPool.
pub fn max(op: &ops::pool::MaxPool, site: &Site<'_>, gpu: &Gpu) -> Made {
    let winners = Buffer::on(gpu, site.output.iter().product())?;
    let sizes = sizes(&op.window, site)?;
    Ok(Box::new(Pool { gpu: gpu.clone(), sizes, winners, counts_pads: false, is_max: true }))
}

/// AveragePool.
pub fn average(op: &ops::pool::AveragePool, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (sizes, winners) = (sizes(&op.window, site)?, Buffer::on(gpu, 0)?);
    Ok(Box::new(Pool { gpu: gpu.clone(), sizes, winners, counts_pads: op.count_include_pad, is_max: false }))
}

impl Kernel<f32> for Pool {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        let args = Args::none().read(x.get(0)).write(y).write(self.winners.raw_mut()).number(n).numbers(&self.sizes);
        let kernel = if self.is_max { "max_forward" } else { "average_forward" };
        // SAFETY: max_forward, average_forward: arrays of these sizes.
        unsafe { self.gpu.each(kernel, n, &args.number(0).flag(self.counts_pads)) };
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
        let args = Args::none().read(d_y);
        let args = if self.is_max { args.read(self.winners.raw()) } else { args };
        let args = args.write(d).number(n).numbers(&self.sizes).flag(add).flag(self.counts_pads);
        let kernel = if self.is_max { "max_backward" } else { "average_backward" };
        // SAFETY: max_backward, average_backward: arrays of these sizes.
        unsafe { self.gpu.each(kernel, n, &args) };
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

struct GlobalAverage {
    gpu: Gpu,
    /// Pixels of a plane, channels.
    sizes: [usize; 2],
}

/// GlobalAveragePool.
pub fn global_average(_op: &ops::pool::GlobalAveragePool, site: &Site<'_>, gpu: &Gpu) -> Made {
    match site.frame(0) {
        Some(x) if x.h * x.w > 0 => Ok(Box::new(GlobalAverage { gpu: gpu.clone(), sizes: [x.h * x.w, x.c] })),
        _ => Err(OpError::new("planes that are not empty", format!("{:?}", site.shape(0))).into()),
    }
}

impl Kernel<f32> for GlobalAverage {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        let args = Args::none().read(x.get(0)).write(y).number(n).numbers(&self.sizes);
        // SAFETY: plane_mean_forward: arrays of these sizes.
        unsafe { self.gpu.each("plane_mean_forward", n, &args) };
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
        let args = Args::none().read(d_y).write(d).number(n).numbers(&self.sizes).flag(add);
        // SAFETY: plane_mean_backward: arrays of these sizes.
        unsafe { self.gpu.each("plane_mean_backward", n, &args) };
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
