//! Dropout: the same elements as on the host.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::exec::Mode;
use crate::exec::random::Stream;
use crate::gpu::{Args, Gpu};
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Dropout {
    gpu: Gpu,
    ratio: f32,
    batch: usize,
}

/// Dropout; its ratio is a constant, and 0.5 if left out.
pub fn build(_op: &ops::dropout::Dropout, site: &Site<'_>, gpu: &Gpu) -> Made {
    let ratio = site.scalar(1, "a ratio")?.unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(OpError::new("a dropout ratio of 0 to below 1", ratio).into());
    }
    Ok(Box::new(Dropout { gpu: gpu.clone(), ratio, batch: site.output.first().copied().unwrap_or(1) }))
}

impl Dropout {
    /// Of n elements of a batch; `args` are what is read and what is written.
    fn run(&self, args: Args, n: usize, add: bool, context: &Context<'_, f32>) {
        let (seed, ratio) = match context.mode {
            Mode::Train { seed } => (seed, self.ratio),
            Mode::Eval => (0, 0.0),
        };
        let key = Stream::new(seed, context.node as u64).key();
        let first = context.share.map_or(0, |share| share.first * (n / self.batch.max(1)));
        let args = args.number(n).signed(key as isize).number(first).flag(add).float(ratio).float(1.0 / (1.0 - ratio));
        // SAFETY: dropout: arrays of n elements; each is read before it is written.
        unsafe { self.gpu.each("dropout", n, &args) };
    }
}

impl Kernel<f32> for Dropout {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], context: &mut Context<'_, f32>) {
        let n = y.len();
        self.run(Args::none().read(x.get(0)).write(y), n, false, context);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        context: &mut Context<'_, f32>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        self.run(Args::none().read(d_y).write(d), d_y.len(), add, context);
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn in_place(&self) -> bool {
        true
    }

    fn forward_in_place(&mut self, _x: &Inputs<'_, f32>, y: &mut [f32], context: &mut Context<'_, f32>) {
        let n = y.len();
        self.run(Args::none().read(y).write(y), n, false, context);
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d: &mut [f32],
        _d_x: &mut [Gradient<f32>],
        context: &mut Context<'_, f32>,
    ) {
        let n = d.len();
        self.run(Args::none().read(d).write(d), n, false, context);
    }
}
