//! Pooling over one or two spatial axes.

use kd_runtime::ops::{self, OpError};
use rayon::prelude::*;

use super::kernels::im2col::{Window2, span};
use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

fn resolve(window: &ops::window::Window, x: &[usize]) -> Result<Window2, OpError> {
    let spatial = x.get(2..).unwrap_or(&[]);
    let axes = window.resolve(spatial, None)?;
    Window2::new(&axes).ok_or_else(|| OpError::new("a pool over 1 or 2 spatial axes", axes.len()))
}

/// Largest element of each window; the first of equal ones in row-major order takes the gradient. Pads never win.
struct Max {
    window: Window2,
    /// Place in its input plane of each output.
    winners: Vec<u32>,
}

/// The kernel of a MaxPool node.
pub fn max<T: Real>(op: &ops::pool::MaxPool, site: &Site<'_>) -> Built<T> {
    let window = resolve(&op.window, site.shape(0))?;
    Ok(Box::new(Max { window, winners: vec![0; site.output.iter().product()] }))
}

/// Places along an axis that the window of output `o` covers.
fn covered(axis: &ops::window::Axis, o: usize) -> impl Iterator<Item = usize> + Clone + use<> {
    let (start, pad, input) = (o * axis.stride, axis.pad_begin, axis.input);
    let dilation = axis.dilation;
    (0..axis.kernel)
        .map(move |k| start + k * dilation)
        .filter(move |&i| i >= pad && i < pad + input)
        .map(move |i| i - pad)
}

impl Max {
    fn plane<T: Real>(&self, x: &[T], y: &mut [T], winners: &mut [u32]) {
        let (width, ow) = (self.window.x.input, self.window.x.output);
        for (oy, (y, winners)) in y.chunks_exact_mut(ow).zip(winners.chunks_exact_mut(ow)).enumerate() {
            for (ox, (y, winner)) in y.iter_mut().zip(winners).enumerate() {
                let mut best: Option<(T, usize)> = None;
                for iy in covered(&self.window.y, oy) {
                    for ix in covered(&self.window.x, ox) {
                        let at = iy * width + ix;
                        let value = x[at];
                        // A NaN wins and stays: a loss that is not finite must be noticed.
                        if best.is_none_or(|(b, _)| value > b || (value.is_nan() && !b.is_nan())) {
                            best = Some((value, at));
                        }
                    }
                }
                let (value, at) = best.unwrap_or((T::ZERO, 0));
                *y = value;
                *winner = at as u32;
            }
        }
    }
}

impl<T: Real> Kernel<T> for Max {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (inner, outer) = (self.window.input(), self.window.output());
        let mut winners = std::mem::take(&mut self.winners);
        let planes = y.par_chunks_mut(outer).zip(winners.par_chunks_mut(outer)).zip(x.get(0).par_chunks(inner));
        planes.for_each(|((y, winners), x)| self.plane(x, y, winners));
        self.winners = winners;
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let (inner, outer) = (self.window.input(), self.window.output());
        let Some((d_x, add)) = d_x[0].target() else { return };
        let planes = d_x.par_chunks_mut(inner).zip(d_y.par_chunks(outer)).zip(self.winners.par_chunks(outer));
        planes.for_each(|((d_x, d_y), winners)| {
            if !add {
                d_x.fill(T::ZERO);
            }
            for (&d, &at) in d_y.iter().zip(winners) {
                d_x[at as usize] += d;
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// Mean of each window.
struct Average<T> {
    window: Window2,
    /// 1 / elements that count, of each output of a plane.
    weights: Vec<T>,
}

/// The kernel of an AveragePool node.
pub fn average<T: Real>(op: &ops::pool::AveragePool, site: &Site<'_>) -> Built<T> {
    let window = resolve(&op.window, site.shape(0))?;
    let count = |axis: &ops::window::Axis, o: usize| {
        if op.count_include_pad {
            // The end pad counts; what a last window of `ceil_mode` reaches beyond it does not.
            let end = axis.pad_begin + axis.input + axis.pad_end;
            (0..axis.kernel).filter(|k| o * axis.stride + k * axis.dilation < end).count()
        } else {
            covered(axis, o).count()
        }
    };
    let cells = (0..window.y.output).flat_map(|oy| (0..window.x.output).map(move |ox| (oy, ox)));
    let weights =
        cells.map(|(oy, ox)| T::ONE / T::from_usize((count(&window.y, oy) * count(&window.x, ox)).max(1))).collect();
    Ok(Box::new(Average { window, weights }))
}

impl<T: Real> Average<T> {
    /// Calls `f(output, input, len)` for each tap and row: output places go up by 1, input places by the stride.
    fn rows(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (width, ow) = (self.window.x.input, self.window.x.output);
        for ky in 0..self.window.y.kernel {
            let (y_from, y_to, iy) = span(&self.window.y, ky);
            for kx in 0..self.window.x.kernel {
                let (from, to, ix) = span(&self.window.x, kx);
                for oy in y_from..y_to {
                    f(oy * ow + from, (iy + (oy - y_from) * self.window.y.stride) * width + ix, to - from);
                }
            }
        }
    }
}

impl<T: Real> Kernel<T> for Average<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (inner, outer, stride) = (self.window.input(), self.window.output(), self.window.x.stride);
        y.par_chunks_mut(outer).zip(x.get(0).par_chunks(inner)).for_each(|(y, x)| {
            y.fill(T::ZERO);
            self.rows(|o, i, len| {
                let pairs = y[o..o + len].iter_mut().zip(x[i..].iter().step_by(stride));
                pairs.for_each(|(y, &x)| *y += x);
            });
            y.iter_mut().zip(&self.weights).for_each(|(y, &w)| *y *= w);
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let (inner, outer, stride) = (self.window.input(), self.window.output(), self.window.x.stride);
        let Some((d_x, add)) = d_x[0].target() else { return };
        d_x.par_chunks_mut(inner).zip(d_y.par_chunks(outer)).for_each(|(d_x, d_y)| {
            if !add {
                d_x.fill(T::ZERO);
            }
            self.rows(|o, i, len| {
                let weighted = d_y[o..o + len].iter().zip(&self.weights[o..]);
                let pairs = d_x[i..].iter_mut().step_by(stride).zip(weighted);
                pairs.for_each(|(x, (&d, &w))| *x += d * w);
            });
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// Mean over all spatial axes.
struct GlobalAverage {
    plane: usize,
}

/// The kernel of a GlobalAveragePool node.
pub fn global_average<T: Real>(_op: &ops::pool::GlobalAveragePool, site: &Site<'_>) -> Built<T> {
    let plane: usize = site.shape(0).get(2..).unwrap_or(&[]).iter().product();
    if plane == 0 {
        return Err(OpError::new("planes that are not empty", format!("{:?}", site.shape(0))));
    }
    Ok(Box::new(GlobalAverage { plane }))
}

impl<T: Real> Kernel<T> for GlobalAverage {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let n = T::from_usize(self.plane);
        let rows = (pointwise::PIECE / self.plane).max(1);
        y.par_chunks_mut(rows).zip(x.get(0).par_chunks(rows * self.plane)).for_each(|(y, x)| {
            for (y, plane) in y.iter_mut().zip(x.chunks_exact(self.plane)) {
                *y = pointwise::sum(plane) / n;
            }
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let n = T::from_usize(self.plane);
        let Some((d_x, add)) = d_x[0].target() else { return };
        let rows = (pointwise::PIECE / self.plane).max(1);
        d_x.par_chunks_mut(rows * self.plane).zip(d_y.par_chunks(rows)).for_each(|(d_x, d_y)| {
            for (plane, &d) in d_x.chunks_exact_mut(self.plane).zip(d_y) {
                let d = d / n;
                if add {
                    plane.iter_mut().for_each(|x| *x += d);
                } else {
                    plane.fill(d);
                }
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
