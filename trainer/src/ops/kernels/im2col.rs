//! Patches of an image as columns of a matrix, and back.

use crate::exec::Real;
use kd_runtime::ops::window::Axis;

/// The window of a convolution over two axes (a 1-D one has a first axis of size 1).
#[derive(Clone, Copy, Debug)]
pub struct Window2 {
    /// Rows.
    pub y: Axis,
    /// Columns.
    pub x: Axis,
}

impl Window2 {
    /// From one or two resolved axes; `None` for more.
    pub fn new(axes: &[Axis]) -> Option<Self> {
        let one = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };
        match *axes {
            [x] => Some(Self { y: one, x }),
            [y, x] => Some(Self { y, x }),
            _ => None,
        }
    }

    /// Elements of an input plane.
    pub fn input(&self) -> usize {
        self.y.input * self.x.input
    }

    /// Elements of an output plane.
    pub fn output(&self) -> usize {
        self.y.output * self.x.output
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.y.kernel * self.x.kernel
    }

    /// Whether the patches are the image itself.
    pub fn is_pointwise(&self) -> bool {
        [self.y, self.x].iter().all(|a| a.kernel == 1 && a.stride == 1 && a.pad_begin == 0 && a.output == a.input)
    }
}

/// The outputs `from..to` of an axis whose tap `k` falls inside the input, and the input place of `from`.
#[inline]
pub fn span(axis: &Axis, k: usize) -> (usize, usize, usize) {
    let shift = k * axis.dilation;
    let from = axis.pad_begin.saturating_sub(shift).div_ceil(axis.stride);
    let limit = axis.input + axis.pad_begin;
    let to = if limit > shift { (limit - shift).div_ceil(axis.stride).min(axis.output) } else { 0 };
    if from >= to { (0, 0, 0) } else { (from, to, from * axis.stride + shift - axis.pad_begin) }
}

/// Writes the patches of `image` `[channels, h, w]` as `columns` `[channels * kh * kw, oh * ow]`.
pub fn gather<T: Real>(columns: &mut [T], image: &[T], channels: usize, window: &Window2) {
    let (w, ow) = (window.x.input, window.x.output);
    let mut rows = columns.chunks_exact_mut(window.output());
    for plane in image.chunks_exact(window.input()).take(channels) {
        for ky in 0..window.y.kernel {
            let (y_from, y_to, iy) = span(&window.y, ky);
            for kx in 0..window.x.kernel {
                let (x_from, x_to, ix) = span(&window.x, kx);
                let Some(row) = rows.next() else { return };
                row[..y_from * ow].fill(T::ZERO);
                row[y_to * ow..].fill(T::ZERO);
                for (i, line) in row[y_from * ow..y_to * ow].chunks_exact_mut(ow).enumerate() {
                    let source = &plane[(iy + i * window.y.stride) * w..][..w];
                    line[..x_from].fill(T::ZERO);
                    line[x_to..].fill(T::ZERO);
                    copy_strided(&mut line[x_from..x_to], &source[ix.min(w)..], window.x.stride);
                }
            }
        }
    }
}

#[inline]
fn copy_strided<T: Real>(to: &mut [T], from: &[T], stride: usize) {
    if stride == 1 {
        to.copy_from_slice(&from[..to.len()]);
    } else {
        for (t, f) in to.iter_mut().zip(from.iter().step_by(stride)) {
            *t = *f;
        }
    }
}

/// Adds `columns` to the places of `image` that they were gathered from.
pub fn scatter<T: Real>(image: &mut [T], columns: &[T], channels: usize, window: &Window2) {
    let (w, ow) = (window.x.input, window.x.output);
    let mut rows = columns.chunks_exact(window.output());
    for plane in image.chunks_exact_mut(window.input()).take(channels) {
        for ky in 0..window.y.kernel {
            let (y_from, y_to, iy) = span(&window.y, ky);
            for kx in 0..window.x.kernel {
                let (x_from, x_to, ix) = span(&window.x, kx);
                let Some(row) = rows.next() else { return };
                for (i, line) in row[y_from * ow..y_to * ow].chunks_exact(ow).enumerate() {
                    let target = &mut plane[(iy + i * window.y.stride) * w..][..w];
                    add_strided(&mut target[ix.min(w)..], &line[x_from..x_to], window.x.stride);
                }
            }
        }
    }
}

#[inline]
fn add_strided<T: Real>(to: &mut [T], from: &[T], stride: usize) {
    if stride == 1 {
        for (t, f) in to.iter_mut().zip(from) {
            *t += *f;
        }
    } else {
        for (t, f) in to.iter_mut().step_by(stride).zip(from) {
            *t += *f;
        }
    }
}
