//! Batch normalization, alone or with the sum and the ReLU that follow it.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::exec::Mode;
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

/// Chunks that the rows are cut into at most, and rows that are worth one.
const MOST_CHUNKS: usize = 256;
const CHUNK: usize = 64;

struct BatchNorm {
    gpu: Gpu,
    rows: usize,
    channels: usize,
    /// Rows of a chunk.
    chunk: usize,
    relu: bool,
    has_residual: bool,
    epsilon: f32,
    momentum: f32,
    wanted: [bool; 3],
    trained: bool,
    /// The [`Gpu::version`]s of the running statistics that the numbers are of.
    running: [usize; 2],
    /// `[5, channels]`: mean, 1/σ, unbiased variance; of the backward pass slope and offset.
    numbers: Buffer<f32>,
    /// `[chunks, 2, channels]`.
    sums: Buffer<f32>,
}

/// BatchNormalization.
pub fn build(op: &ops::batch_norm::BatchNormalization, site: &Site<'_>, gpu: &Gpu) -> Made {
    fused(op, site, gpu, false)
}

/// BatchNormalization, the Add of input 5 where there is one, and the Relu that follows.
pub fn fused(op: &ops::batch_norm::BatchNormalization, site: &Site<'_>, gpu: &Gpu, relu: bool) -> Made {
    if site.wanted(3) || site.wanted(4) {
        let expected = "running statistics that are initializers";
        return Err(OpError::new(expected, "ones that are computed from parameters").into());
    }
    let Some(x) = site.frame(0) else {
        return Err(OpError::new("x [N, C], [N, C, T] or [N, C, H, W]", format!("{:?}", site.shape(0))).into());
    };
    let (rows, channels) = (site.shape(0)[0] * x.h * x.w, x.c);
    let chunk = rows.div_ceil(MOST_CHUNKS).max(CHUNK);
    Ok(Box::new(BatchNorm {
        gpu: gpu.clone(),
        rows,
        channels,
        chunk,
        relu,
        has_residual: site.port(5).is_some(),
        epsilon: op.epsilon,
        momentum: op.momentum,
        wanted: [site.wanted(0), site.wanted(1), site.wanted(2)],
        trained: false,
        running: [0; 2],
        numbers: Buffer::on(gpu, 5 * channels)?,
        sums: Buffer::on(gpu, rows.div_ceil(chunk) * 2 * channels)?,
    }))
}

impl BatchNorm {
    fn chunks(&self) -> usize {
        self.rows.div_ceil(self.chunk)
    }

    /// Groups of a kernel that sums channels.
    fn groups(&self) -> usize {
        self.chunks() * self.channels.div_ceil(self.gpu.threads())
    }

    /// Whether the output says where the ReLU let the gradient pass; without a residual x says it too.
    fn masks_by_output(&self) -> bool {
        self.relu && self.has_residual
    }

    fn measure(&mut self, x: &[f32]) {
        let (rows, channels) = (self.rows, self.channels);
        let groups = self.groups();
        let args = Args::none().write(self.sums.raw_mut()).read(x).numbers(&[rows, channels, self.chunk]);
        let numbers = Args::none().read(self.sums.raw()).read(x).write(self.numbers.raw_mut());
        let numbers = numbers.numbers(&[rows, channels, self.chunk, rows.div_ceil(self.chunk)]).float(self.epsilon);
        // SAFETY: norm_sums, norm_statistics: x of rows times channels, buffers of their sizes.
        unsafe {
            self.gpu.groups("norm_sums", groups, &args);
            self.gpu.groups("norm_statistics", channels, &numbers);
        }
    }

    /// What a backward pass reads: x, scale, bias, numbers, y where it says what the ReLU let pass, the output's gradient.
    fn seen(&self, x: &Inputs<'_, f32>, y: &[f32], d_y: &[f32]) -> Args {
        let y = if self.masks_by_output() { y } else { &[] };
        Args::none().read(x.get(0)).read(x.get(1)).read(x.get(2)).read(self.numbers.raw()).read(y).read(d_y)
    }

    /// Gradients of scale and bias, and the numbers that that of x needs.
    fn sum(&mut self, x: &Inputs<'_, f32>, y: &[f32], d_y: &[f32], d_x: &mut [Gradient<f32>]) {
        let (rows, channels, chunks) = (self.rows, self.channels, self.chunks());
        let args =
            self.seen(x, y, d_y).write(self.sums.raw_mut()).numbers(&[rows, channels, self.chunk]).flag(self.relu);
        let args_of = |d: Option<&mut Gradient<f32>>, args: Args| match d.and_then(Gradient::target) {
            Some((d, add)) => (args.write(d), add),
            None => (args.write::<f32>(&mut []), false),
        };
        let (rest, own) = self.numbers.raw_mut().split_at_mut(3 * channels);
        let numbers = Args::none().read(self.sums.raw()).read(x.get(1)).read::<f32>(&[]).read(rest);
        let (numbers, add_scale) = args_of(d_x.get_mut(1), numbers);
        let (numbers, add_bias) = args_of(d_x.get_mut(2), numbers);
        let numbers = numbers.write(own).numbers(&[rows, channels, chunks]);
        let numbers = numbers.flag(self.trained).flag(add_scale).flag(add_bias);
        // SAFETY: norm_backward_sums, norm_gradients: arrays of rows times channels, of a number a channel, and sums.
        unsafe {
            self.gpu.groups("norm_backward_sums", self.groups(), &args);
            self.gpu.groups("norm_gradients", channels, &numbers);
        }
    }

    /// The gradients of x and of the residual; `args` are what is read, and where that of x is written.
    fn spread(&self, args: Args, add: bool, residual: Option<(&mut [f32], bool)>) {
        let n = self.rows * self.channels;
        let (args, add_residual) = match residual {
            Some((d, add)) => (args.write(d), add),
            None => (args.write::<f32>(&mut []), false),
        };
        let args = args.numbers(&[n, self.channels]).flag(self.relu).number(0).flag(add).flag(add_residual);
        // SAFETY: norm_backward: all arrays but those of a number a channel have n elements; each thread reads its elements
        // before it writes them.
        unsafe { self.gpu.each("norm_backward", n, &args) };
    }
}

impl Kernel<f32> for BatchNorm {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], context: &mut Context<'_, f32>) {
        self.trained = matches!(context.mode, Mode::Train { .. });
        if self.trained {
            self.measure(x.get(0));
            self.running = [0; 2];
        } else {
            let running = [3, 4].map(|input| self.gpu.version(x.get(input)));
            if running != self.running {
                let args = Args::none().read(x.get(3)).read(x.get(4)).write(self.numbers.raw_mut());
                let args = args.numbers(&[self.rows, self.channels]).float(self.epsilon);
                // SAFETY: norm_running: arrays of a number a channel.
                unsafe { self.gpu.each("norm_running", self.channels, &args) };
                self.running = running;
            }
        }
        let n = y.len();
        let args = Args::none().read(x.get(0)).read(x.get(1)).read(x.get(2)).read(self.numbers.raw()).read(x.get(5));
        let args = args.write(y).numbers(&[n, self.channels]).flag(self.relu);
        // SAFETY: norm_forward: x, residual and y of n elements, the others of a number a channel.
        unsafe { self.gpu.each("norm_forward", n, &args) };
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        self.sum(x, y, d_y, d_x);
        let (first, rest) = d_x.split_at_mut(1);
        let residual = rest.get_mut(4).and_then(Gradient::target);
        let seen = self.seen(x, y, d_y);
        let (args, add) = match first[0].target() {
            Some((d, add)) => (seen.write(d), add),
            None => (seen.write::<f32>(&mut []), false),
        };
        self.spread(args, add, residual);
    }

    fn gradient_in_place(&self) -> bool {
        true
    }

    fn backward_in_place(
        &mut self,
        x: &Inputs<'_, f32>,
        y: &[f32],
        d: &mut [f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        self.sum(x, y, d, d_x);
        let residual = d_x.get_mut(5).and_then(Gradient::target);
        let args = self.seen(x, y, d).write(d);
        self.spread(args, false, residual);
    }

    fn keeps(&self) -> Keeps {
        let any = self.wanted.iter().any(|&w| w);
        Keeps { output: self.masks_by_output(), ..Keeps::inputs(&[(0, any), (1, any), (2, any)]) }
    }

    fn statistics(&self) -> Option<(&[f32], &[f32], f32)> {
        let c = self.channels;
        self.trained.then_some((&self.numbers.raw()[..c], &self.numbers.raw()[2 * c..3 * c], self.momentum))
    }
}
