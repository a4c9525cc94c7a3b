//! Transposed convolution over one or two axes: a matrix product gives every tap's share of every input, which is spread
//! over the output; backward gathers it again.

use kd_runtime::ops::{self, OpError, window::MOST_SPATIAL};

use super::kernels::gemm::{Matrix, multiply};
use super::kernels::pointwise;
use super::kernels::threads;
use super::kernels::window::{Window2, span};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site, with_lane};
use crate::exec::Real;

/// Pieces of the batch that sum a gradient of the weights of their own; a number of the shapes alone.
const PIECES: usize = 8;

struct ConvTranspose {
    /// The convolution from the output of this to its input.
    window: Window2,
    group: usize,
    channels: usize,
    filters: usize,
    batch: usize,
    wanted: [bool; 2],
}

/// The kernel of a ConvTranspose node.
pub fn build<T: Real>(op: &ops::conv_transpose::ConvTranspose, site: &Site<'_>) -> Built<T> {
    let (x, w) = (site.shape(0), site.shape(1));
    if x.contains(&0) || w.contains(&0) {
        return Err(OpError::new("sizes above 0", format!("{x:?} and {w:?}")));
    }
    let spatial = x.get(2..).unwrap_or(&[]);
    let axes = op.resolve(spatial, w.get(2..).unwrap_or(&[]))?;
    let window = Window2::new(&axes[MOST_SPATIAL - spatial.len()..]);
    let window = window.ok_or_else(|| OpError::new("1 or 2 spatial axes", spatial.len()))?;
    Ok(Box::new(ConvTranspose {
        window,
        group: op.group,
        channels: x[1],
        filters: w[1] * op.group,
        batch: x[0],
        wanted: [site.wanted(0), site.wanted(1)],
    }))
}

impl ConvTranspose {
    /// Channels and filters of a group, and the rows of shares: taps of its filters.
    fn group_sizes(&self) -> [usize; 3] {
        let per_group = self.filters / self.group;
        [self.channels / self.group, per_group, per_group * self.window.taps()]
    }

    /// Elements of one sample's input and output.
    fn sample(&self) -> [usize; 2] {
        [self.channels * self.window.output(), self.filters * self.window.input()]
    }

    /// Elements of the shares of a group.
    fn shares(&self) -> usize {
        self.group_sizes()[2] * self.window.output()
    }

    /// Calls `f` for each row of shares with the row's part and where it lies in the planes of a group: the first
    /// element and the step.
    fn each(&self, mut f: impl FnMut(std::ops::Range<usize>, usize, usize)) {
        let Window2 { y, x } = &self.window;
        let (small, taps) = (self.window.output(), self.window.taps());
        for row in 0..self.group_sizes()[2] {
            let (filter, tap) = (row / taps, row % taps);
            let ((top, bottom, y0), (left, right, x0)) = (span(y, tap / x.kernel), span(x, tap % x.kernel));
            if left == right {
                continue;
            }
            for (i, line) in (top..bottom).enumerate() {
                let first = row * small + line * x.output;
                let place = filter * self.window.input() + (y0 + i * y.stride) * x.input + x0;
                f(first + left..first + right, place, x.stride);
            }
        }
    }

    /// The shares of a group that its output's gradient has.
    fn gather<T: Real>(&self, shares: &mut [T], d_y: &[T]) {
        shares.fill(T::ZERO);
        self.each(|part, place, step| {
            let from = d_y[place..].iter().step_by(step);
            shares[part].iter_mut().zip(from).for_each(|(share, &d)| *share = d);
        });
    }

    /// The weights of a group, `[channels, filters taps]`.
    fn weights<'a, T>(&self, w: &'a [T], g: usize) -> Matrix<'a, T> {
        let [depth, _, rows] = self.group_sizes();
        Matrix::rows(&w[g * depth * rows..][..depth * rows], rows)
    }

    fn d_x<T: Real>(&self, w: &[T], d_y: &[T], d_x: &mut [T], add: bool, context: &Context<'_, T>) {
        let lanes = &context.scratch.lanes;
        let ([depth, per_group, rows], small) = (self.group_sizes(), self.window.output());
        let [x_len, y_len] = self.sample();
        threads::chunks(d_x, x_len, |i, d_x| {
            let d_y = &d_y[i * y_len..][..y_len];
            with_lane(lanes, |lane| {
                let shares = &mut lane[..self.shares()];
                let planes = d_y.chunks_exact(per_group * self.window.input());
                for (g, (d_x, d_y)) in d_x.chunks_exact_mut(depth * small).zip(planes).enumerate() {
                    self.gather(shares, d_y);
                    multiply(d_x, self.weights(w, g), Matrix::rows(shares, small), [depth, small, rows], T::ONE, add);
                }
            });
        });
    }

    /// Every piece of the batch sums into a part of `sums`, which are then added in their order.
    fn d_w<T: Real>(&self, x: &[T], d_y: &[T], d_w: &mut [T], add: bool, context: &mut Context<'_, T>) {
        let ([depth, per_group, rows], small) = (self.group_sizes(), self.window.output());
        let [x_len, y_len] = self.sample();
        let samples = self.batch.div_ceil(PIECES).max(1);
        let len = d_w.len();
        let sums = &mut context.scratch.shared[..self.batch.div_ceil(samples) * len];
        let lanes = &context.scratch.lanes;
        threads::chunks(sums, len, |piece, sums| {
            let batch = x.chunks_exact(x_len).zip(d_y.chunks_exact(y_len)).skip(piece * samples).take(samples);
            with_lane(lanes, |lane| {
                let shares = &mut lane[..self.shares()];
                for (i, (x, d_y)) in batch.enumerate() {
                    let planes = x.chunks_exact(depth * small).zip(d_y.chunks_exact(per_group * self.window.input()));
                    for (sums, (x, d_y)) in sums.chunks_exact_mut(depth * rows).zip(planes) {
                        self.gather(shares, d_y);
                        let shares = Matrix::rows(shares, small).t();
                        multiply(sums, Matrix::rows(x, small), shares, [depth, rows, small], T::ONE, i > 0);
                    }
                }
            });
        });
        for (i, sums) in sums.chunks_exact(len.max(1)).enumerate() {
            pointwise::copy(d_w, add || i > 0, sums);
        }
    }
}

impl<T: Real> Kernel<T> for ConvTranspose {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let ([depth, per_group, rows], small) = (self.group_sizes(), self.window.output());
        let [x_len, y_len] = self.sample();
        let (w, bias, lanes) = (x.get(1), x.get(2), &context.scratch.lanes);
        let x = x.get(0);
        threads::chunks(y, y_len, |sample, y| {
            let x = &x[sample * x_len..][..x_len];
            for (filter, plane) in y.chunks_exact_mut(self.window.input()).enumerate() {
                plane.fill(bias.get(filter).copied().unwrap_or(T::ZERO));
            }
            with_lane(lanes, |lane| {
                let shares = &mut lane[..self.shares()];
                let planes = y.chunks_exact_mut(per_group * self.window.input());
                for (g, (y, x)) in planes.zip(x.chunks_exact(depth * small)).enumerate() {
                    let x = Matrix::rows(x, small);
                    multiply(shares, self.weights(w, g).t(), x, [rows, small, depth], T::ONE, false);
                    self.each(|part, place, step| {
                        let to = y[place..].iter_mut().step_by(step);
                        to.zip(&shares[part]).for_each(|(y, &share)| *y += share);
                    });
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
        if let Some((d, add)) = d_x[0].target() {
            self.d_x(x.get(1), d_y, d, add, context);
        }
        if let Some((d, add)) = d_x[1].target() {
            self.d_w(x.get(0), d_y, d, add, context);
        }
        if let Some((d, add)) = d_x.get_mut(2).and_then(Gradient::target) {
            let plane = self.window.input();
            threads::chunks(d, 1, |filter, d| {
                let planes = d_y.chunks_exact(plane).skip(filter).step_by(self.filters);
                let sum = T::from_f64(planes.map(|plane| pointwise::sum(plane).to_f64()).sum());
                d.iter_mut().for_each(|d| *d = if add { *d + sum } else { sum });
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.wanted[1]), (1, self.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let weights = self.channels * self.group_sizes()[2];
        let shared = if self.wanted[1] { PIECES.min(self.batch) * weights } else { 0 };
        ScratchSize { shared, lane: self.shares() }
    }
}
