//! Convolution over one or two spatial axes, on images with their channels last.
//!
//! `y[n, o, m] = b[m] + Σ w[m, c, k] x[n, o * stride + k * dilation - pad, c]`. The input has its pads as a halo of
//! zeros, so a window's rows are runs in memory: no patches are copied. The gradient by the input is the same sum over
//! the output's gradient, one for each phase of the strides; the gradient by the weights is a sum of outer products over
//! pixels. Each chunk of images sums a weight gradient of its own; they are added in order.

use std::sync::Mutex;

use kd_runtime::ops::{self, OpError};

use super::kernels::buffer::Buffer;
use super::kernels::frame::Frame;
use super::kernels::prefetch::Next;
use super::kernels::rows::{self, Row};
use super::kernels::taps::{self, Sweep};
use super::kernels::threads;
use super::kernels::tile::{Outer, Pixel, Product, Start};
use super::kernels::window::Window2;
use super::{
    Built, Context, Gradient, Inputs, Keeps, Kernel, Scratch, ScratchSize, Site, depthwise, moments, winograd,
    with_lane,
};
use crate::exec::Real;

/// Pieces that a batch is cut into.
const MOST_CHUNKS: usize = 16;
/// All chunks' weight gradients together hold at most so many floats (or one chunk's).
const CHUNK_FLOATS: usize = 1 << 20;
/// Pixels that are worth a weight gradient of their own.
const CHUNK_PIXELS: usize = 256;
/// Tasks that a weight gradient is cut into at least, if it has the rows.
const FEWEST_TASKS: usize = 8;
/// Rows of the weight gradient of such a task: whole tiles of every tile height.
const TASK_ROWS: usize = 48;
/// Pixels of a call: whole tiles of 12 and of 14. Between calls the next images are asked for.
const PART: usize = 84;
/// Small images are taken together until a tile has so many pixels to choose from.
const PIXELS: usize = 128;

/// A convolution at its sizes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Images.
    pub batch: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Input channels of a group.
    pub c: usize,
    /// Output channels of a group.
    pub m: usize,
    /// Window over the planes.
    pub window: Window2,
    /// The input's layout.
    pub x: Frame,
    /// The output's layout.
    pub y: Frame,
    /// Images of a chunk.
    pub chunk: usize,
    /// Images that share a weight gradient: the gradients of all chunks are kept until they are added.
    pub sum_chunk: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether gradients of x, w and b are wanted.
    pub wanted: [bool; 3],
}

impl Shape {
    /// Floats of the weights.
    pub fn weights(&self) -> usize {
        self.groups * self.m * self.depth()
    }

    /// Weights that one output sees.
    pub fn depth(&self) -> usize {
        self.c * self.window.taps()
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.groups * self.m
    }

    /// Floats of the gradients of weights and bias of all chunks.
    pub fn partials(&self) -> usize {
        self.sum_chunks() * (self.weights() + self.outputs())
    }

    /// Chunks of images.
    pub fn chunks(&self) -> usize {
        self.batch.div_ceil(self.chunk)
    }

    /// Sums a chunk's outputs, if somebody wants that.
    pub fn measure<T: Real>(&self, y: &[T], sums: &mut [f64], lanes: &[Mutex<Buffer<T>>]) {
        if !sums.is_empty() {
            with_lane(lanes, |lane| moments::measure(&self.y, y, sums, lane));
        }
    }

    /// A chunk's images of a tensor.
    pub fn chunk_of<'a, T>(&self, frame: &Frame, chunk: usize, data: &'a [T]) -> &'a [T] {
        images_of(self.batch, self.chunk, frame, chunk, data)
    }

    /// The images of a tensor that share a weight gradient.
    pub fn sum_chunk_of<'a, T>(&self, frame: &Frame, chunk: usize, data: &'a [T]) -> &'a [T] {
        images_of(self.batch, self.sum_chunk, frame, chunk, data)
    }

    /// Chunks that have a weight gradient of their own.
    pub fn sum_chunks(&self) -> usize {
        self.batch.div_ceil(self.sum_chunk)
    }

    /// The gradient of the bias, chunk by chunk, then their sum.
    pub fn d_bias<T: Real>(&self, d_y: &[T], target: Option<(&mut [T], bool)>, partials: &mut [T]) {
        let Some((d, add)) = target else { return };
        let partials = &mut partials[..self.sum_chunks() * self.outputs()];
        threads::chunks(partials, self.outputs(), |chunk, d_b| {
            d_b.fill(T::ZERO);
            add_bias_gradient(d_b, self.sum_chunk_of(&self.y, chunk, d_y), &self.y);
        });
        reduce_partials(d, add, partials, self.outputs(), |i| i);
    }
}

/// A chunk's images of a tensor.
fn images_of<'a, T>(batch: usize, size: usize, frame: &Frame, chunk: usize, data: &'a [T]) -> &'a [T] {
    let (from, len) = (chunk * size, size.min(batch - chunk * size));
    &data[from * frame.image()..][..len * frame.image()]
}

/// The kernel of a Conv node.
pub fn build<T: Real>(op: &ops::conv::Conv, site: &Site<'_>) -> Built<T> {
    let (x, w) = (site.shape(0), site.shape(1));
    if x.len() != w.len() || x.len() < 3 || x[1] % op.group != 0 || w[0] % op.group != 0 || w[1] * op.group != x[1] {
        return Err(OpError::new("x [N, C, …] and weights [M, C/group, …]", format!("{x:?} and {w:?}")));
    }
    let axes = op.window.resolve(&x[2..], Some(&w[2..]))?;
    let window =
        Window2::new(&axes).ok_or_else(|| OpError::new("a convolution over 1 or 2 spatial axes", axes.len()))?;
    let (Some(x_frame), Some(y_frame)) = (site.frame(0), site.frame) else {
        return Err(OpError::new("images of at most 2^32 elements", format!("{x:?}")));
    };
    let weights: usize = w.iter().product();
    let pixels = x[0] * window.output();
    let sums = (CHUNK_FLOATS / weights.max(1)).min(pixels / CHUNK_PIXELS).clamp(1, MOST_CHUNKS);
    let shape = Shape {
        batch: x[0],
        groups: op.group,
        c: w[1],
        m: w[0] / op.group,
        window,
        x: x_frame,
        y: y_frame,
        chunk: x[0].div_ceil(MOST_CHUNKS).max(1),
        sum_chunk: x[0].div_ceil(sums).max(1),
        bias: site.port(2).is_some(),
        wanted: [site.wanted(0), site.wanted(1), site.wanted(2)],
    };
    if shape.c == 1 && shape.m == 1 {
        return Ok(depthwise::build(shape));
    }
    if let Some(kernel) = winograd::build(&shape) {
        return Ok(kernel);
    }
    Ok(Box::new(Conv::<T>::new(shape)))
}

/// A sweep over blocks of images: the pixels of as many images as make a tile's work.
struct Blocks {
    sweep: Sweep,
    images: usize,
}

impl Blocks {
    fn new(mut sweep: Sweep, read: &Frame, write: &Frame, chunk: usize) -> Self {
        let one = sweep.pixels.len().max(1);
        let images = (PIXELS / one).clamp(1, chunk);
        let first = std::mem::take(&mut sweep.pixels);
        for image in 0..images {
            let (x, y) = ((image * read.image()) as u32, (image * write.image()) as u32);
            sweep.pixels.extend(first.iter().map(|pixel| Pixel { x: pixel.x + x, y: pixel.y + y }));
        }
        Self { sweep, images }
    }

    /// The pixels of the first images of a block.
    fn pixels(&self, images: usize) -> &[Pixel] {
        &self.sweep.pixels[..self.sweep.pixels.len() / self.images * images]
    }
}

struct Conv<T: Real> {
    shape: Shape,
    forward: Blocks,
    backward: Vec<Blocks>,
    /// For products with the output channels as columns, and with the input channels.
    row: &'static Row<T>,
    back_row: &'static Row<T>,
}

/// Weights of one sweep in panels: `[group][panel][tap * rows][width]`.
struct Packing {
    /// Rows of a tap.
    rows: usize,
    /// Columns of a group.
    columns: usize,
    width: usize,
    taps: usize,
}

impl Packing {
    fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    fn panel(&self) -> usize {
        self.taps * self.rows * self.width
    }

    fn floats(&self, groups: usize) -> usize {
        groups * self.panels() * self.panel()
    }

    /// Packs; `place(group, column, row, tap)` is where the weight lies.
    fn pack<T: Real>(
        &self,
        to: &mut [T],
        w: &[T],
        taps: &[usize],
        place: impl Fn(usize, usize, usize, usize) -> usize + Sync,
    ) {
        threads::chunks(to, self.panel(), |i, panel| {
            let (group, first) = (i / self.panels(), i % self.panels() * self.width);
            let columns = self.width.min(self.columns - first);
            for (t, &tap) in taps.iter().enumerate() {
                for row in 0..self.rows {
                    let line = &mut panel[(t * self.rows + row) * self.width..][..self.width];
                    for (j, value) in line[..columns].iter_mut().enumerate() {
                        *value = w[place(group, first + j, row, tap)];
                    }
                    line[columns..].fill(T::ZERO);
                }
            }
        });
    }
}

impl<T: Real> Conv<T> {
    fn new(shape: Shape) -> Self {
        let merge = shape.groups == 1;
        let forward = taps::forward(&shape.window, &shape.x, &shape.y, merge);
        let backward =
            if shape.wanted[0] { taps::backward(&shape.window, &shape.x, &shape.y, merge) } else { Vec::new() };
        let block = |sweep, read, write| Blocks::new(sweep, read, write, shape.chunk);
        Self {
            forward: block(forward, &shape.x, &shape.y),
            backward: backward.into_iter().map(|sweep| block(sweep, &shape.y, &shape.x)).collect(),
            row: rows::choose(shape.m),
            back_row: rows::choose(shape.c),
            shape,
        }
    }

    fn packing(&self) -> Packing {
        let s = &self.shape;
        Packing { rows: s.c, columns: s.m, width: self.row.width, taps: s.window.taps() }
    }

    fn back_packing(&self, blocks: &Blocks) -> Packing {
        let s = &self.shape;
        Packing { rows: s.m, columns: s.c, width: self.back_row.width, taps: blocks.sweep.taps.len() }
    }

    fn back_floats(&self) -> usize {
        self.backward.iter().map(|blocks| self.back_packing(blocks).floats(self.shape.groups)).sum()
    }

    /// Where a weight lies in `[M, C/group, …]`.
    fn place(&self, group: usize, m: usize, c: usize, tap: usize) -> usize {
        let s = &self.shape;
        ((group * s.m + m) * s.c + c) * s.window.taps() + tap
    }

    /// Floats of the weight gradient that a task sums.
    fn task(&self) -> usize {
        let s = &self.shape;
        if s.sum_chunks() >= FEWEST_TASKS { s.weights() } else { (TASK_ROWS * s.m).min(s.weights()) }
    }

    /// A part of a chunk's weight gradient, `[group][tap][input channel][output channel]`: from float `from` on.
    fn d_weights(&self, x: &[T], d_y: &[T], from: usize, d_w: &mut [T]) {
        let s = &self.shape;
        let blocks = &self.forward;
        let len = blocks.sweep.merged * s.c;
        let depth = s.depth();
        let all = d_y.len() / s.y.image();
        for first in (0..all).step_by(blocks.images) {
            let images = blocks.images.min(all - first);
            let pixels = blocks.pixels(images);
            let mut next_x =
                Next::new(x, (first + images) * s.x.image(), images * s.x.image(), blocks.sweep.runs.len());
            let mut next_y =
                Next::new(d_y, (first + images) * s.y.image(), images * s.y.image(), blocks.sweep.runs.len());
            let (x, d_y) = (&x[first * s.x.image()..], &d_y[first * s.y.image()..]);
            for group in 0..s.groups {
                for (r, &run) in blocks.sweep.runs.iter().enumerate() {
                    next_x.ask();
                    next_y.ask();
                    // Rows of the run that lie in this part.
                    let at = (group * depth + r * len) * s.m;
                    let (begin, end) = (at.max(from), (at + len * s.m).min(from + d_w.len()));
                    if begin >= end {
                        continue;
                    }
                    let call = Outer {
                        x: x[group * s.c + run as usize + (begin - at) / s.m..].as_ptr(),
                        y: d_y[group * s.m..].as_ptr(),
                        pixels,
                        d: d_w[begin - from..end - from].as_mut_ptr(),
                        pitch: s.m,
                        rows: (end - begin) / s.m,
                        columns: s.m,
                        add: first > 0,
                    };
                    // SAFETY: a pixel's run and channels lie inside its image by `taps::forward`, whose frames are
                    // those of the slices; begin and end are rows of d_w.
                    unsafe { self.row.outer(&call) };
                }
            }
        }
    }
}

/// One sweep of a product over images.
struct Job<'a, T: Real> {
    row: &'static Row<T>,
    blocks: &'a Blocks,
    packing: &'a Packing,
    packed: &'a [T],
    groups: usize,
    read: &'a Frame,
    write: &'a Frame,
    bias: Option<&'a [T]>,
    add: bool,
}

impl<T: Real> Job<'_, T> {
    fn run(&self, x: &[T], y: &mut [T]) {
        let images = y.len() / self.write.image();
        let (rows, columns) = (self.packing.rows, self.packing.columns);
        let (panels, size) = (self.packing.panels(), self.packing.panel());
        for first in (0..images).step_by(self.blocks.images) {
            let block = self.blocks.images.min(images - first);
            let pixels = self.blocks.pixels(block);
            let calls = self.groups * panels * pixels.len().div_ceil(PART);
            let mut next_x = Next::new(x, (first + block) * self.read.image(), block * self.read.image(), calls);
            let (y, later) = y[first * self.write.image()..].split_at_mut(block * self.write.image());
            let mut next_y = Next::new(later, 0, block * self.write.image(), calls);
            let x = &x[first * self.read.image()..];
            for group in 0..self.groups {
                for panel in 0..panels {
                    let at = group * columns + panel * self.row.width;
                    let mut call = Product {
                        x: x[group * rows..].as_ptr(),
                        y: y[at..].as_mut_ptr(),
                        pixels: &[],
                        runs: &self.blocks.sweep.runs,
                        len: self.blocks.sweep.merged * rows,
                        panel: self.packed[(group * panels + panel) * size..][..size].as_ptr(),
                        columns: self.row.width.min(columns - panel * self.row.width),
                        start: match self.bias {
                            _ if self.add => Start::There,
                            Some(bias) => Start::Bias(bias[at..].as_ptr()),
                            None => Start::Zero,
                        },
                    };
                    for part in pixels.chunks(PART) {
                        next_x.ask();
                        next_y.ask();
                        call.pixels = part;
                        // SAFETY: pixels and runs lie inside images of the frames by `taps`; the panel has a row for
                        // each element of the runs.
                        unsafe { self.row.product(&call) };
                    }
                }
            }
        }
    }
}

/// Adds the sum of each channel of `d_y` to its gradient.
pub fn add_bias_gradient<T: Real>(d_b: &mut [T], d_y: &[T], frame: &Frame) {
    rows::wide(|| {
        for image in d_y.chunks_exact(frame.image()) {
            for start in frame.rows() {
                for pixel in image[start..start + frame.span()].chunks_exact(d_b.len()) {
                    d_b.iter_mut().zip(pixel).for_each(|(d, &p)| *d += p);
                }
            }
        }
    });
}

/// Adds the chunks' partial gradients, of `partial` floats each, in order; `place(i)` is where float `i` of the result lies in a partial.
pub fn reduce_partials<T: Real>(
    d: &mut [T],
    add: bool,
    partials: &[T],
    partial: usize,
    place: impl Fn(usize) -> usize + Sync,
) {
    const PIECE: usize = 1 << 10;
    threads::chunks(d, PIECE, |piece, d| {
        for (i, d) in d.iter_mut().enumerate() {
            let at = place(piece * PIECE + i);
            let mut sum = T::ZERO;
            for partial in partials.chunks_exact(partial) {
                sum += partial[at];
            }
            *d = if add { *d + sum } else { sum };
        }
    });
}

impl<T: Real> Kernel<T> for Conv<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let s = &self.shape;
        let (input, w, b) = (x.get(0), x.get(1), x.get(2));
        let packing = self.packing();
        let Scratch { shared, lanes, moments } = &mut *context.scratch;
        let packed = &mut shared[..packing.floats(s.groups)];
        packing.pack(packed, w, &self.forward.sweep.taps, |g, m, c, tap| self.place(g, m, c, tap));
        let job = Job {
            row: self.row,
            blocks: &self.forward,
            packing: &packing,
            packed,
            groups: s.groups,
            read: &s.x,
            write: &s.y,
            bias: s.bias.then_some(b),
            add: false,
        };
        let sums = moments.start_if_wanted(s.chunks(), &s.y);
        threads::pairs((y, s.chunk * s.y.image()), (sums, moments::piece(&s.y)), |chunk, y, sums| {
            job.run(s.chunk_of(&s.x, chunk, input), y);
            if s.y.value_halo {
                y.chunks_exact_mut(s.y.image()).for_each(|image| s.y.clear_halo(image));
            }
            s.measure(y, sums, lanes);
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let s = &self.shape;
        let (input, w) = (x.get(0), x.get(1));
        let [want_x, want_w, want_b] = s.wanted;
        let shared = &mut context.scratch.shared;
        if want_w || want_b {
            s.d_bias(d_y, d_x.get_mut(2).and_then(Gradient::target), shared);
        }
        if want_w {
            let partials = &mut shared[..s.sum_chunks() * s.weights()];
            let tasks = s.weights().div_ceil(self.task());
            threads::parts(partials, s.weights(), self.task(), |i, d_w| {
                let (chunk, task) = (i / tasks, i % tasks);
                let (x, d_y) = (s.sum_chunk_of(&s.x, chunk, input), s.sum_chunk_of(&s.y, chunk, d_y));
                self.d_weights(x, d_y, task * self.task(), d_w);
            });
            let (taps, depth) = (s.window.taps(), s.depth());
            let mut order = vec![0; taps];
            self.forward.sweep.taps.iter().enumerate().for_each(|(i, &tap)| order[tap] = i);
            if let Some((d, add)) = d_x.get_mut(1).and_then(Gradient::target) {
                reduce_partials(d, add, partials, s.weights(), |i| {
                    let (out, c, tap) = (i / depth, i % depth / taps, i % taps);
                    let (group, m) = (out / s.m, out % s.m);
                    (group * depth + order[tap] * s.c + c) * s.m + m
                });
            }
        }
        if !want_x {
            return;
        }
        let Some((d_x, add)) = d_x[0].target() else { return };
        let packings: Vec<Packing> = self.backward.iter().map(|blocks| self.back_packing(blocks)).collect();
        let mut rest = &mut shared[..self.back_floats()];
        let mut packed = Vec::with_capacity(packings.len());
        for (blocks, packing) in self.backward.iter().zip(&packings) {
            let (own, after) = rest.split_at_mut(packing.floats(s.groups));
            packing.pack(own, w, &blocks.sweep.taps, |g, c, m, tap| self.place(g, m, c, tap));
            packed.push(&*own);
            rest = after;
        }
        threads::chunks(d_x, s.chunk * s.x.image(), |chunk, d_x| {
            let d_y = s.chunk_of(&s.y, chunk, d_y);
            for ((blocks, packing), packed) in self.backward.iter().zip(&packings).zip(&packed) {
                let job = Job {
                    row: self.back_row,
                    blocks,
                    packing,
                    packed,
                    groups: s.groups,
                    read: &s.y,
                    write: &s.x,
                    bias: None,
                    add,
                };
                job.run(d_y, d_x);
            }
            if s.x.gradient_halo && !add {
                d_x.chunks_exact_mut(s.x.image()).for_each(|image| s.x.clear_halo(image));
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.shape.wanted[1]), (1, self.shape.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let s = &self.shape;
        let partials = if s.wanted[1] || s.wanted[2] { s.partials() } else { 0 };
        let packed = self.packing().floats(s.groups).max(self.back_floats());
        ScratchSize { shared: partials.max(packed), lane: moments::lane(&s.y) }
    }
}
