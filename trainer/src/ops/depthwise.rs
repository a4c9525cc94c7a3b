//! Convolution where each output channel sees one input channel: direct loops over rows, since there is no matrix.

use rayon::prelude::*;

use super::conv::{Shape, add_bias_gradient, reduce_partials, start_with_bias};
use super::kernels::im2col::{Window2, span};
use super::kernels::pointwise;
use super::{Context, Gradient, Inputs, Keeps, Kernel, ScratchSize};
use crate::exec::Real;

struct Depthwise {
    shape: Shape,
}

/// The kernel for one input channel a group.
pub fn build<T: Real>(shape: Shape) -> Box<dyn Kernel<T>> {
    Box::new(Depthwise { shape })
}

/// Calls `f(tap, output row, from, to, input row, first input place)` for each tap and output row that it reaches.
#[inline]
fn rows(window: &Window2, mut f: impl FnMut(usize, usize, usize, usize, usize, usize)) {
    for ky in 0..window.y.kernel {
        let (y_from, y_to, iy) = span(&window.y, ky);
        for kx in 0..window.x.kernel {
            let (from, to, ix) = span(&window.x, kx);
            for oy in y_from..y_to {
                f(ky * window.x.kernel + kx, oy, from, to, iy + (oy - y_from) * window.y.stride, ix);
            }
        }
    }
}

impl Depthwise {
    fn forward_plane<T: Real>(&self, x: &[T], w: &[T], y: &mut [T]) {
        let window = &self.shape.window;
        let (width, ow, stride) = (window.x.input, window.x.output, window.x.stride);
        rows(window, |tap, oy, from, to, iy, ix| {
            let line = &mut y[oy * ow + from..oy * ow + to];
            let source = &x[iy * width + ix..(iy + 1) * width];
            let weight = w[tap];
            if stride == 1 {
                line.iter_mut().zip(source).for_each(|(y, &x)| *y += weight * x);
            } else {
                line.iter_mut().zip(source.iter().step_by(stride)).for_each(|(y, &x)| *y += weight * x);
            }
        });
    }

    fn d_weights<T: Real>(&self, x: &[T], d_y: &[T], d_w: &mut [T]) {
        let window = &self.shape.window;
        let (width, ow, stride) = (window.x.input, window.x.output, window.x.stride);
        rows(window, |tap, oy, from, to, iy, ix| {
            let line = &d_y[oy * ow + from..oy * ow + to];
            let source = &x[iy * width + ix..(iy + 1) * width];
            if stride == 1 {
                d_w[tap] += pointwise::dot(line, &source[..line.len()]);
            } else {
                line.iter().zip(source.iter().step_by(stride)).for_each(|(&d, &x)| d_w[tap] += d * x);
            }
        });
    }

    fn d_input<T: Real>(&self, w: &[T], d_y: &[T], d_x: &mut [T]) {
        let window = &self.shape.window;
        let (width, ow, stride) = (window.x.input, window.x.output, window.x.stride);
        rows(window, |tap, oy, from, to, iy, ix| {
            let line = &d_y[oy * ow + from..oy * ow + to];
            let target = &mut d_x[iy * width + ix..(iy + 1) * width];
            let weight = w[tap];
            if stride == 1 {
                target.iter_mut().zip(line).for_each(|(x, &d)| *x += weight * d);
            } else {
                target.iter_mut().step_by(stride).zip(line).for_each(|(x, &d)| *x += weight * d);
            }
        });
    }
}

impl<T: Real> Kernel<T> for Depthwise {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let s = &self.shape;
        let (input, w, b) = (x.get(0), x.get(1), x.get(2));
        let (out, taps) = (s.window.output(), s.window.taps());
        y.par_chunks_mut(s.y_image()).zip(input.par_chunks(s.x_image())).for_each(|(y, x)| {
            if s.bias {
                start_with_bias(y, b, out);
            } else {
                y.fill(T::ZERO);
            }
            for (channel, (y, w)) in y.chunks_exact_mut(out).zip(w.chunks_exact(taps)).enumerate() {
                self.forward_plane(&x[channel / s.m * s.window.input()..], w, y);
            }
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
        let (out, taps, plane) = (s.window.output(), s.window.taps(), s.window.input());
        let [want_x, want_w, want_b] = s.wanted;
        if want_w || want_b {
            let partials = &mut context.scratch.shared[..s.chunks() * s.partial()];
            let chunks = partials.par_chunks_mut(s.partial()).zip(d_y.par_chunks(s.chunk * s.y_image()));
            chunks.enumerate().for_each(|(i, (partial, d_y))| {
                partial.fill(T::ZERO);
                let (d_w, d_b) = partial.split_at_mut(s.weights());
                if want_b {
                    add_bias_gradient(d_b, d_y, out);
                }
                let images = d_y.chunks_exact(s.y_image());
                let x = input.get(i * s.chunk * s.x_image()..).unwrap_or(&[]);
                for (d_y, x) in images.zip(x.chunks_exact(s.x_image())).filter(|_| want_w) {
                    for (channel, (d_y, d_w)) in d_y.chunks_exact(out).zip(d_w.chunks_exact_mut(taps)).enumerate() {
                        self.d_weights(&x[channel / s.m * plane..], d_y, d_w);
                    }
                }
            });
            reduce_partials(partials, s, d_x);
        }
        if !want_x {
            return;
        }
        if let Some((d_x, add)) = d_x[0].target() {
            d_x.par_chunks_mut(s.x_image()).zip(d_y.par_chunks(s.y_image())).for_each(|(d_x, d_y)| {
                if !add {
                    d_x.fill(T::ZERO);
                }
                for (channel, (d_y, w)) in d_y.chunks_exact(out).zip(w.chunks_exact(taps)).enumerate() {
                    self.d_input(w, d_y, &mut d_x[channel / s.m * plane..]);
                }
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.shape.wanted[1]), (1, self.shape.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let partials =
            if self.shape.wanted[1] || self.shape.wanted[2] { self.shape.chunks() * self.shape.partial() } else { 0 };
        ScratchSize { shared: partials, lane: 0 }
    }
}
