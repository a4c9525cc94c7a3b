//! Convolution over one or two spatial axes.

use kd_runtime::ops::window::Axis;
use kd_runtime::ops::{self, OpError};

use super::{Made, Walk, walk};
use crate::gpu::{Args, Convolution, Direction, Gpu, Matmul, even_output};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::strided::View;
use crate::ops::kernels::window::Window2;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Conv {
    gpu: Gpu,
    /// Images, input h, w, c, output h, w, c, channels of a group in and out, kernel, strides, dilations, pads: kernel and
    /// pads with the taps of 0.
    sizes: [usize; 17],
    /// Whether it is a product of matrices, whose rows are places and columns channels.
    is_product: bool,
    /// Over the weights as they are packed, `[M, kernel, C / groups]`, and as they lie in the graph; `None` where that is
    /// the same.
    packing: Option<Walk>,
    packed: Buffer<f32>,
    d_packed: Buffer<f32>,
    /// The [`Gpu::version`] of the weights that are packed.
    version: usize,
    wanted: [bool; 2],
}

/// Taps of 0 in front of a kernel, or behind it, with which pads of one size on both sides give the same: libraries know
/// no others. None where two for each tap do not suffice. (An infinite element that they meet makes NaN.)
fn zero_taps(axis: &Axis) -> [usize; 2] {
    let &Axis { input, output, kernel, stride, dilation, pad_begin, pad_end } = axis;
    let most = pad_begin.abs_diff(pad_end).min(2 * kernel);
    let mut taps = (0..=most).map(|n| if pad_end > pad_begin { [n, 0] } else { [0, n] });
    let does = |&[front, behind]: &[usize; 2]| {
        let pad = pad_begin + front * dilation;
        even_output(input, front + kernel + behind, stride, dilation, pad) == Some(output)
    };
    taps.find(does).unwrap_or([0, 0])
}

/// Conv.
pub fn build(op: &ops::conv::Conv, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (x, w) = (site.shape(0), site.shape(1));
    if x.len() != w.len() || x.len() < 3 || x[1] % op.group != 0 || w[0] % op.group != 0 || w[1] * op.group != x[1] {
        return Err(OpError::new("x [N, C, …] and weights [M, C/group, …]", format!("{x:?} and {w:?}")).into());
    }
    let axes = op.window.resolve(&x[2..], Some(&w[2..]))?;
    let Some(window) = Window2::new(&axes) else {
        return Err(OpError::new("a convolution over 1 or 2 spatial axes", axes.len()).into());
    };
    let Window2 { y: rows, x: columns } = window;
    let [[top, bottom], [left, right]] = [zero_taps(&rows), zero_taps(&columns)];
    let kernel = [top + rows.kernel + bottom, left + columns.kernel + right];
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
        kernel[0],
        kernel[1],
        rows.stride,
        columns.stride,
        rows.dilation,
        columns.dilation,
        rows.pad_begin + top * rows.dilation,
        columns.pad_begin + left * columns.dilation,
    ];
    let (taps, row) = (rows.kernel * columns.kernel, kernel[1] * w[1]);
    let view = |offset: usize, strides: [usize; 4]| View {
        offset: offset as isize,
        strides: strides.map(|stride| stride as isize).to_vec(),
    };
    let packed = view(top * row + left * w[1], [kernel[0] * row, row, w[1], 1]);
    let own = view(0, [w[1] * taps, columns.kernel, 1, taps]);
    let is_same = kernel == [rows.kernel, columns.kernel] && (taps == 1 || w[1] == 1);
    let packing = match is_same {
        true => None,
        false => Some(walk(&[w[0], rows.kernel, columns.kernel, w[1]], &packed, &own)?),
    };
    let wanted = [site.wanted(0), site.wanted(1)];
    let elements = if is_same { 0 } else { w[0] * kernel[0] * row };
    Ok(Box::new(Conv {
        gpu: gpu.clone(),
        sizes,
        is_product: window.is_pointwise() && op.group == 1,
        packing,
        packed: Buffer::on(gpu, elements)?,
        d_packed: Buffer::on(gpu, if wanted[1] { elements } else { 0 })?,
        version: 0,
        wanted,
    }))
}

impl Conv {
    /// Queues what a direction computes: a library of the vendor does it, or else our own kernel.
    fn run(&self, direction: Direction, inputs: [&[f32]; 2], output: &mut [f32], add: bool) {
        let [images, h, w, c, oh, ow, m, cg, _, kh, kw, ..] = self.sizes;
        let (x, weights, y) = (images * h * w * c, m * kh * kw * cg, images * oh * ow * m);
        let expected = match direction {
            Direction::Forward => [x, weights, y],
            Direction::Input => [y, weights, x],
            Direction::Weights => [y, x, weights],
        };
        assert_eq!([inputs[0].len(), inputs[1].len(), output.len()], expected, "arrays of the convolution's sizes");
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
            if self.is_product && self.gpu.matmul(&product(&convolution)) || self.gpu.convolve(&convolution) {
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

    /// The weights as a convolution reads them.
    fn weights<'a>(&'a self, x: &Inputs<'a, f32>) -> &'a [f32] {
        if self.packing.is_some() { self.packed.raw() } else { x.get(1) }
    }

    /// Weights between `[M, C / groups, kernel]` and `[M, kernel, C / groups]`, whose taps of 0 stay what they are.
    fn turn(&self, kernel: &'static str, packing: &Walk, from: &[f32], to: &mut [f32], add: bool) {
        let n = packing.elements();
        let args = packing.tell(Args::none().read(from).write(to).number(n).flag(add));
        // SAFETY: move_forward, move_backward: the weights' elements, and those with the taps of 0.
        unsafe { self.gpu.each(kernel, n, &args) };
    }
}

/// A convolution of 1x1, stride 1, without pads and of one group, as a product of matrices.
fn product(of: &Convolution) -> Matmul {
    let [images, h, w, c, _, _, m, ..] = of.sizes;
    let rows = images * h * w;
    let (sizes, strides) = match of.direction {
        Direction::Forward => ([rows, m, c], [[c, 1], [1, c]]),
        Direction::Input => ([rows, c, m], [[m, 1], [c, 1]]),
        Direction::Weights => ([m, c, rows], [[1, m], [c, 1]]),
    };
    let Convolution { inputs, output, add, .. } = *of;
    Matmul { inputs, output, sizes, strides, batch: 1, steps: [0, 0], alpha: 1.0, add }
}

impl Kernel<f32> for Conv {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        if let Some(packing) = &self.packing {
            let version = self.gpu.version(x.get(1));
            if version != self.version {
                let mut packed = std::mem::take(&mut self.packed);
                self.turn("move_forward", packing, x.get(1), packed.raw_mut(), false);
                (self.packed, self.version) = (packed, version);
            }
        }
        self.run(Direction::Forward, [x.get(0), self.weights(x)], y, false);
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
            if let Some(packing) = &self.packing {
                let mut packed = std::mem::take(&mut self.d_packed);
                self.run(Direction::Weights, [d_y, x.get(0)], packed.raw_mut(), false);
                self.turn("move_backward", packing, packed.raw(), d, add);
                self.d_packed = packed;
            } else {
                self.run(Direction::Weights, [d_y, x.get(0)], d, add);
            }
        }
        if let Some((d, add)) = d_x[0].target() {
            // Those of the forward pass: nobody has stepped since.
            self.run(Direction::Input, [d_y, self.weights(x)], d, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }
}
