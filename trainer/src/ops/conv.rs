//! Convolution over one or two spatial axes.
//!
//! `y[n, m, o] = b[m] + Σ w[m, c, k] x[n, c, o * stride + k * dilation - pad]`. Images are taken in chunks; within one
//! the patches of an image become a matrix (none for 1x1), so that `y = w · patches`, `d_w += d_y · patchesᵀ` and
//! `d_x = scatter(wᵀ · d_y)`. Each chunk sums a weight gradient of its own; they are added in order.

use kd_runtime::ops::{self, OpError};
use rayon::prelude::*;

use super::kernels::gemm::{Matrix, multiply};
use super::kernels::im2col::{Window2, gather, scatter};
use super::kernels::pointwise::{self, PIECE};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site, depthwise, with_lane};
use crate::exec::Real;

/// Pieces that a batch is cut into.
const MOST_CHUNKS: usize = 16;
/// All chunks' weight gradients together hold at most so many floats (or one chunk's).
const CHUNK_FLOATS: usize = 1 << 24;

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
    /// Images of a chunk.
    pub chunk: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether gradients of x, w and b are wanted.
    pub wanted: [bool; 3],
}

impl Shape {
    /// Floats of an input image.
    pub fn x_image(&self) -> usize {
        self.groups * self.c * self.window.input()
    }

    /// Floats of an output image.
    pub fn y_image(&self) -> usize {
        self.groups * self.m * self.window.output()
    }

    /// Floats of the weights.
    pub fn weights(&self) -> usize {
        self.groups * self.m * self.c * self.window.taps()
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.groups * self.m
    }

    /// Floats of a chunk's own gradient of weights and bias.
    pub fn partial(&self) -> usize {
        self.weights() + self.outputs()
    }

    /// Chunks of the batch.
    pub fn chunks(&self) -> usize {
        self.batch.div_ceil(self.chunk)
    }
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
    let weights: usize = w.iter().product();
    let chunks = (CHUNK_FLOATS / weights.max(1)).clamp(1, MOST_CHUNKS);
    let shape = Shape {
        batch: x[0],
        groups: op.group,
        c: w[1],
        m: w[0] / op.group,
        window,
        chunk: x[0].div_ceil(chunks).max(1),
        bias: site.port(2).is_some(),
        wanted: [site.wanted(0), site.wanted(1), site.wanted(2)],
    };
    if shape.c == 1 && shape.m <= 2 && shape.groups > 1 {
        return Ok(depthwise::build(shape));
    }
    Ok(Box::new(Conv { shape }))
}

struct Conv {
    shape: Shape,
}

impl Conv {
    /// Rows of the patch matrix of one group.
    fn depth(&self) -> usize {
        self.shape.c * self.shape.window.taps()
    }

    fn columns(&self) -> usize {
        if self.shape.window.is_pointwise() { 0 } else { self.depth() * self.shape.window.output() }
    }

    fn forward_image<T: Real>(&self, x: &[T], w: &[T], y: &mut [T], columns: &mut [T]) {
        let s = &self.shape;
        let (inner, out, depth) = (s.c * s.window.input(), s.window.output(), self.depth());
        for g in 0..s.groups {
            let x = &x[g * inner..][..inner];
            let w = &w[g * s.m * depth..][..s.m * depth];
            let y = &mut y[g * s.m * out..][..s.m * out];
            let patches = if s.window.is_pointwise() {
                x
            } else {
                gather(columns, x, s.c, &s.window);
                &columns[..]
            };
            multiply(y, Matrix::rows(w, depth), Matrix::rows(patches, out), [s.m, out, depth], T::ONE, s.bias);
        }
    }

    fn d_weights<T: Real>(&self, x: &[T], d_y: &[T], d_w: &mut [T], columns: &mut [T]) {
        let s = &self.shape;
        let (inner, out, depth) = (s.c * s.window.input(), s.window.output(), self.depth());
        for g in 0..s.groups {
            let x = &x[g * inner..][..inner];
            let d_y = &d_y[g * s.m * out..][..s.m * out];
            let d_w = &mut d_w[g * s.m * depth..][..s.m * depth];
            let patches = if s.window.is_pointwise() {
                x
            } else {
                gather(columns, x, s.c, &s.window);
                &columns[..]
            };
            multiply(d_w, Matrix::rows(d_y, out), Matrix::rows(patches, out).t(), [s.m, depth, out], T::ONE, true);
        }
    }

    fn d_input<T: Real>(&self, w: &[T], d_y: &[T], d_x: &mut [T], add: bool, columns: &mut [T]) {
        let s = &self.shape;
        let (inner, out, depth) = (s.c * s.window.input(), s.window.output(), self.depth());
        for g in 0..s.groups {
            let w = Matrix::rows(&w[g * s.m * depth..][..s.m * depth], depth).t();
            let d_y = Matrix::rows(&d_y[g * s.m * out..][..s.m * out], out);
            let d_x = &mut d_x[g * inner..][..inner];
            if s.window.is_pointwise() {
                multiply(d_x, w, d_y, [depth, out, s.m], T::ONE, add);
                continue;
            }
            multiply(columns, w, d_y, [depth, out, s.m], T::ONE, false);
            if !add {
                d_x.fill(T::ZERO);
            }
            scatter(d_x, columns, s.c, &s.window);
        }
    }
}

/// Fills each plane of `y` with its channel's bias.
pub fn start_with_bias<T: Real>(y: &mut [T], bias: &[T], plane: usize) {
    for (plane, &b) in y.chunks_exact_mut(plane).zip(bias.iter().cycle()) {
        plane.fill(b);
    }
}

/// Adds the sum of each plane of `d_y` to its channel's gradient.
pub fn add_bias_gradient<T: Real>(d_b: &mut [T], d_y: &[T], plane: usize) {
    for image in d_y.chunks_exact(plane * d_b.len()) {
        for (d, plane) in d_b.iter_mut().zip(image.chunks_exact(plane)) {
            *d += pointwise::sum(plane);
        }
    }
}

/// Adds the chunks' partial gradients, in order, into the gradients of weights and bias.
pub fn reduce_partials<T: Real>(partials: &[T], shape: &Shape, d_x: &mut [Gradient<T>]) {
    let (pitch, weights) = (shape.partial(), shape.weights());
    for (i, (offset, len)) in [(1, (0, weights)), (2, (weights, shape.outputs()))] {
        let Some((d, add)) = d_x.get_mut(i).and_then(Gradient::target) else { continue };
        debug_assert_eq!(d.len(), len);
        d.par_chunks_mut(PIECE).enumerate().for_each(|(piece, d)| {
            let at = offset + piece * PIECE;
            for (chunk, partial) in partials.chunks_exact(pitch).take(shape.chunks()).enumerate() {
                let part = &partial[at..at + d.len()];
                if chunk == 0 && !add {
                    d.copy_from_slice(part);
                } else {
                    d.iter_mut().zip(part).for_each(|(d, &p)| *d += p);
                }
            }
        });
    }
}

impl<T: Real> Kernel<T> for Conv {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let s = &self.shape;
        let (input, w, b) = (x.get(0), x.get(1), x.get(2));
        let chunks = y.par_chunks_mut(s.chunk * s.y_image()).zip(input.par_chunks(s.chunk * s.x_image()));
        let lanes = &context.scratch.lanes;
        chunks.for_each(|(y, x)| {
            with_lane(lanes, |lane| {
                for (y, x) in y.chunks_exact_mut(s.y_image()).zip(x.chunks_exact(s.x_image())) {
                    if s.bias {
                        start_with_bias(y, b, s.window.output());
                    }
                    self.forward_image(x, w, y, &mut lane[..self.columns()]);
                }
            });
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
        let super::Scratch { shared, lanes } = &mut *context.scratch;
        let lanes = &*lanes;
        if want_w || want_b {
            let partials = &mut shared[..s.chunks() * s.partial()];
            let chunks = partials.par_chunks_mut(s.partial()).zip(d_y.par_chunks(s.chunk * s.y_image()));
            chunks.enumerate().for_each(|(i, (partial, d_y))| {
                partial.fill(T::ZERO);
                let (d_w, d_b) = partial.split_at_mut(s.weights());
                if want_b {
                    add_bias_gradient(d_b, d_y, s.window.output());
                }
                if want_w {
                    let x = &input[i * s.chunk * s.x_image()..];
                    with_lane(lanes, |lane| {
                        for (d_y, x) in d_y.chunks_exact(s.y_image()).zip(x.chunks_exact(s.x_image())) {
                            self.d_weights(x, d_y, d_w, &mut lane[..self.columns()]);
                        }
                    });
                }
            });
            reduce_partials(partials, s, d_x);
        }
        if !want_x {
            return;
        }
        if let Some((d_x, add)) = d_x[0].target() {
            let chunks = d_x.par_chunks_mut(s.chunk * s.x_image()).zip(d_y.par_chunks(s.chunk * s.y_image()));
            chunks.for_each(|(d_x, d_y)| {
                with_lane(lanes, |lane| {
                    for (d_x, d_y) in d_x.chunks_exact_mut(s.x_image()).zip(d_y.chunks_exact(s.y_image())) {
                        self.d_input(w, d_y, d_x, add, &mut lane[..self.columns()]);
                    }
                });
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.shape.wanted[1]), (1, self.shape.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let partials =
            if self.shape.wanted[1] || self.shape.wanted[2] { self.shape.chunks() * self.shape.partial() } else { 0 };
        ScratchSize { shared: partials, lane: self.columns() }
    }
}
