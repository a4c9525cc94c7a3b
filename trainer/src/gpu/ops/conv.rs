//! Convolution over one or two spatial axes.

use kd_runtime::ops::{self, OpError};

use super::{Made, Walk, walk};
use crate::gpu::{Args, Convolution, Direction, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::strided::View;
use crate::ops::kernels::window::Window2;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Conv {
    gpu: Gpu,
    /// Images, input h, w, c, output h, w, c, channels of a group in and out, kernel, strides, dilations, pads.
    sizes: [usize; 17],
    /// Over the weights as they are packed, `[M, kernel, C / groups]`: themselves, and as they lie in the graph.
    packing: Walk,
    packed: Buffer<f32>,
    d_packed: Buffer<f32>,
    wanted: [bool; 2],
}

/// Conv.
pub fn build(op: &ops::conv::Conv, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (x, w) = (site.shape(0), site.shape(1));
    if x.len() != w.len() || x.len() < 3 || x[1] % op.group != 0 || w[0] % op.group != 0 || w[1] * op.group != x[1] {
        return Err(OpError::new("x [N, C, …] and weights [M, C/group, …]", format!("{x:?} and {w:?}")).into());
    }
    let axes = op.window.resolve(&x[2..], Some(&w[2..]))?;
    let Some(Window2 { y: rows, x: columns }) = Window2::new(&axes) else {
        return Err(OpError::new("a convolution over 1 or 2 spatial axes", axes.len()).into());
    };
    let sizes = [
        x[0],
        rows.input,
        columns.input,
        x[1],
        rows.output,
        columns.output,
        w[0],
        w[1],
        w[0] / op.group,
        rows.kernel,
        columns.kernel,
        rows.stride,
        columns.stride,
        rows.dilation,
        columns.dilation,
        rows.pad_begin,
        columns.pad_begin,
    ];
    let taps = rows.kernel * columns.kernel;
    let shape = [w[0], taps, w[1]];
    let own = View { offset: 0, strides: [w[1] * taps, 1, taps].map(|stride| stride as isize).to_vec() };
    let packing = walk(&shape, &View::dense(&shape), &own)?;
    let wanted = [site.wanted(0), site.wanted(1)];
    let packed = Buffer::on(gpu, packing.elements())?;
    let d_packed = Buffer::on(gpu, if wanted[1] { packing.elements() } else { 0 })?;
    Ok(Box::new(Conv { gpu: gpu.clone(), sizes, packing, packed, d_packed, wanted }))
}

impl Conv {
    /// Queues what a direction computes: the vendor's library does it, or `kernel`, for `n` elements or as many groups.
    fn run(&self, direction: Direction, inputs: [&[f32]; 2], output: &mut [f32], add: bool) {
        let n = output.len();
        let convolution = Convolution {
            direction,
            sizes: self.sizes,
            inputs: inputs.map(|input| input.as_ptr().cast()),
            output: output.as_mut_ptr().cast(),
            add,
        };
        // SAFETY: arrays of these sizes.
        unsafe {
            if self.gpu.convolve(&convolution) {
                return;
            }
            let args = Args::none().read(inputs[0]).read(inputs[1]).write(output);
            let args = args.number(n).numbers(&self.sizes).flag(add);
            match direction {
                Direction::Forward => self.gpu.each("conv_forward", n, &args),
                Direction::Input => self.gpu.each("conv_backward_x", n, &args),
                Direction::Weights => self.gpu.groups("conv_backward_w", n, &args),
            }
        }
    }

    /// Weights between `[M, C / groups, kernel]` and `[M, kernel, C / groups]`.
    fn turn(&self, kernel: &'static str, from: &[f32], to: &mut [f32], add: bool) {
        let n = self.packing.elements();
        let args = self.packing.tell(Args::none().read(from).write(to).number(n).flag(add));
        // SAFETY: move_forward, move_backward: both of the weights' elements.
        unsafe { self.gpu.each(kernel, n, &args) };
    }
}

impl Kernel<f32> for Conv {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let mut packed = std::mem::take(&mut self.packed);
        self.turn("move_forward", x.get(1), packed.raw_mut(), false);
        self.run(Direction::Forward, [x.get(0), packed.raw()], y, false);
        self.packed = packed;
        if !x.get(2).is_empty() {
            let n = y.len();
            let args = Args::none().write(y).read(x.get(2)).numbers(&[n, self.sizes[6]]);
            // SAFETY: add_channels: y of n elements, a number a channel.
            unsafe { self.gpu.each("add_channels", n, &args) };
        }
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        if let Some((d, add)) = d_x.get_mut(2).and_then(Gradient::target) {
            let channels = self.sizes[6];
            let args = Args::none().read(d_y).write(d).numbers(&[d_y.len() / channels.max(1), channels]).flag(add);
            // SAFETY: column_sums: d_y of rows of channels.
            unsafe { self.gpu.groups("column_sums", channels, &args) };
        }
        if let Some((d, add)) = d_x[1].target() {
            let mut packed = std::mem::take(&mut self.d_packed);
            self.run(Direction::Weights, [d_y, x.get(0)], packed.raw_mut(), false);
            self.turn("move_backward", packed.raw(), d, add);
            self.d_packed = packed;
        }
        if let Some((d, add)) = d_x[0].target() {
            // Those of the forward pass: nobody has stepped since.
            self.run(Direction::Input, [d_y, self.packed.raw()], d, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }
}
