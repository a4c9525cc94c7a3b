//! Batch normalisation over images with their channels last, alone or with the sum and the ReLU that follow it:
//! `y = relu(scale * (x - mean) / sqrt(var + epsilon) + bias + residual)`.
//!
//! In training mean and var (biased) are the batch's, and the gradient flows through both:
//! `d_x = scale / σ * (d - mean(d) - x̂ * mean(d * x̂))` with `d = d_y` where `y > 0`; else they are the running values,
//! constants. What is one number a channel is repeated over a block of pixels, so that every loop is over plain rows.

use kd_runtime::ops::{self, OpError};

use super::kernels::frame::Frame;
use super::kernels::rows::wide;
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site, with_lane};
use crate::exec::{Mode, Real};

/// Pieces that a batch is cut into.
const MOST_CHUNKS: usize = 16;
/// Floats of a block of pixels, about.
const BLOCK: usize = 512;

struct BatchNorm<T> {
    batch: usize,
    x: Frame,
    y: Frame,
    residual: Option<Frame>,
    relu: bool,
    epsilon: T,
    momentum: T,
    /// Gradients of x, scale, bias.
    wanted: [bool; 3],
    /// Whether the last forward pass used the batch's statistics.
    trained: bool,
    /// Of the last forward pass: mean and 1/σ as used.
    mean: Vec<T>,
    inverse: Vec<T>,
    /// Unbiased variance of the batch.
    unbiased: Vec<T>,
    /// Numbers of channels, repeated over a block.
    repeated: [Vec<T>; 4],
}

/// The kernel of a BatchNormalization node.
pub fn build<T: Real>(op: &ops::batch_norm::BatchNormalization, site: &Site<'_>) -> Built<T> {
    fused(op, site, false)
}

/// The kernel of a BatchNormalization node, of the Add of input 5 where there is one, and of the Relu that follows.
pub fn fused<T: Real>(op: &ops::batch_norm::BatchNormalization, site: &Site<'_>, relu: bool) -> Built<T> {
    if site.wanted(3) || site.wanted(4) {
        return Err(OpError::new("running statistics that are initializers", "ones that are computed from parameters"));
    }
    let (Some(x), Some(y)) = (site.frame(0), site.frame) else {
        return Err(OpError::new("x [N, C], [N, C, T] or [N, C, H, W]", format!("{:?}", site.shape(0))));
    };
    let channels = x.c;
    let block = (BLOCK / channels.max(1)).clamp(1, x.w) * channels;
    Ok(Box::new(BatchNorm {
        batch: site.shape(0)[0],
        x,
        y,
        residual: site.frame(5),
        relu,
        epsilon: T::from_f32(op.epsilon),
        momentum: T::from_f32(op.momentum),
        wanted: [site.wanted(0), site.wanted(1), site.wanted(2)],
        trained: false,
        mean: vec![T::ZERO; channels],
        inverse: vec![T::ZERO; channels],
        unbiased: vec![T::ZERO; channels],
        repeated: std::array::from_fn(|_| vec![T::ZERO; block]),
    }))
}

/// Adds two sums a channel, held for each place of a block, to f64 sums a channel.
fn fold<T: Real>(sums: &mut [f64], blocks: &[T], channels: usize) {
    for block in blocks.chunks_exact(channels) {
        sums.iter_mut().zip(block).for_each(|(sum, &b)| *sum += b.to_f64());
    }
}

impl<T: Real> BatchNorm<T> {
    fn chunk(&self) -> usize {
        self.batch.div_ceil(MOST_CHUNKS).max(1)
    }

    /// For each piece of the batch, two sums a channel: `add(row of x, row of others, first sums, second sums)` is called
    /// for blocks of pixels. The pieces' sums are added in order, in f64.
    fn sums(
        &self,
        x: &[T],
        others: [&[T]; 2],
        context: &mut Context<'_, T>,
        add: impl Fn([&[T]; 3], [&mut [T]; 2]) + Sync,
    ) -> Vec<[f64; 2]> {
        let channels = self.x.c;
        let block = self.repeated[1].len();
        let (chunk, images) = (self.chunk(), self.batch);
        let lanes = &context.scratch.lanes;
        let mut pieces = vec![0.0; images.div_ceil(chunk) * 2 * channels];
        threads::chunks(&mut pieces, 2 * channels, |piece, sums| {
            let first = piece * chunk;
            with_lane(lanes, |lane| {
                let (a, b) = lane[..2 * block].split_at_mut(block);
                a.fill(T::ZERO);
                b.fill(T::ZERO);
                wide(|| {
                    for image in first..(first + chunk).min(images) {
                        for y in 0..self.x.h {
                            let own = line_of(x, &self.x, image, y);
                            let rows = others
                                .map(|other| if other.is_empty() { &[] } else { line_of(other, &self.y, image, y) });
                            for (i, x) in own.chunks(block).enumerate() {
                                let n = x.len();
                                let part = |row: &'_ [T]| -> std::ops::Range<usize> {
                                    if row.is_empty() { 0..0 } else { i * block..i * block + n }
                                };
                                let [first, second] = rows;
                                let others = [&first[part(first)], &second[part(second)]];
                                add([x, others[0], others[1]], [&mut a[..n], &mut b[..n]]);
                            }
                        }
                    }
                });
                fold(&mut sums[..channels], a, channels);
                fold(&mut sums[channels..], b, channels);
            });
        });
        let total = |i: usize| pieces.chunks_exact(2 * channels).map(|piece| piece[i]).sum::<f64>();
        (0..channels).map(|c| [total(c), total(channels + c)]).collect()
    }

    fn measure(&mut self, x: &[T], context: &mut Context<'_, T>) {
        // Deviations from the first pixel, so that squares do not cancel.
        let first = x[self.x.origin()..][..self.x.c].to_vec();
        repeat(&mut self.repeated[0], &first);
        let shift = &self.repeated[0];
        let sums = self.sums(x, [&[], &[]], context, |[x, ..], [s, q]| {
            for (((s, q), &x), &shift) in s.iter_mut().zip(q).zip(x).zip(shift) {
                let d = x - shift;
                *s += d;
                *q += d * d;
            }
        });
        let n = (self.batch * self.x.h * self.x.w) as f64;
        for (c, [s, q]) in sums.into_iter().enumerate() {
            let squares = (q - s * s / n).max(0.0);
            self.mean[c] = T::from_f64(first[c].to_f64() + s / n);
            self.inverse[c] = T::ONE / (T::from_f64(squares / n) + self.epsilon).sqrt();
            // As torch: a batch of one element has no unbiased variance; the biased one (0) stands in.
            self.unbiased[c] = T::from_f64(squares / (n - 1.0).max(1.0));
        }
    }
}

/// A row of an image without its halo.
#[inline]
fn line_of<'a, T>(x: &'a [T], frame: &Frame, image: usize, y: usize) -> &'a [T] {
    &x[image * frame.image() + frame.pixel(y, 0)..][..frame.span()]
}

/// Repeats a number a channel over a block.
fn repeat<T: Real>(block: &mut [T], channels: &[T]) {
    block.chunks_exact_mut(channels.len()).for_each(|pixel| pixel.copy_from_slice(channels));
}

impl<T: Real> Kernel<T> for BatchNorm<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let (input, scale, bias, residual) = (x.get(0), x.get(1), x.get(2), x.get(5));
        self.trained = matches!(context.mode, Mode::Train { .. });
        if self.trained {
            self.measure(input, context);
        } else {
            for (c, (&mean, &var)) in x.get(3).iter().zip(x.get(4)).enumerate() {
                self.mean[c] = mean;
                self.inverse[c] = T::ONE / (var + self.epsilon).sqrt();
            }
        }
        let factors: Vec<T> = scale.iter().zip(&self.inverse).map(|(&s, &i)| s * i).collect();
        let shifts: Vec<T> = (factors.iter().zip(&self.mean).zip(bias)).map(|((&f, &m), &b)| b - f * m).collect();
        repeat(&mut self.repeated[0], &factors);
        repeat(&mut self.repeated[1], &shifts);
        let (factors, shifts) = (&self.repeated[0], &self.repeated[1]);
        let block = factors.len();
        let (to, from, relu, chunk) = (&self.y, &self.x, self.relu, self.chunk());
        threads::chunks(y, chunk * to.image(), |piece, y| {
            wide(|| {
                for (i, y) in y.chunks_exact_mut(to.image()).enumerate() {
                    let image = piece * chunk + i;
                    if to.value_halo {
                        to.clear_halo(y);
                    }
                    for line in 0..to.h {
                        let x = line_of(input, from, image, line);
                        let y = &mut y[to.pixel(line, 0)..][..to.span()];
                        let terms = y.chunks_mut(block).zip(x.chunks(block));
                        if let Some(frame) = &self.residual {
                            let residual = line_of(residual, frame, image, line);
                            for ((y, x), r) in terms.zip(residual.chunks(block)) {
                                let all = y.iter_mut().zip(x).zip(r).zip(factors.iter().zip(shifts));
                                if relu {
                                    all.for_each(|(((y, &x), &r), (&f, &s))| *y = above_zero(x * f + s + r));
                                } else {
                                    all.for_each(|(((y, &x), &r), (&f, &s))| *y = x * f + s + r);
                                }
                            }
                        } else {
                            for (y, x) in terms {
                                let all = y.iter_mut().zip(x).zip(factors.iter().zip(shifts));
                                if relu {
                                    all.for_each(|((y, &x), (&f, &s))| *y = above_zero(x * f + s));
                                } else {
                                    all.for_each(|((y, &x), (&f, &s))| *y = x * f + s);
                                }
                            }
                        }
                    }
                }
            });
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let (input, scale) = (x.get(0), x.get(1));
        let channels = self.x.c;
        let mut means = std::mem::take(&mut self.repeated[0]);
        repeat(&mut means, &self.mean);
        let relu = self.relu;
        // Per channel: Σ d and Σ d * (x - mean).
        let outputs: &[T] = if relu { y } else { &[] };
        let sums = self.sums(input, [d_y, outputs], context, |[x, d, y], [s, p]| {
            let all = s.iter_mut().zip(p).zip(x.iter().zip(d)).zip(&means);
            if relu {
                for ((((s, p), (&x, &d)), &mean), &y) in all.zip(y) {
                    let d = if y > T::ZERO { d } else { T::ZERO };
                    *s += d;
                    *p += d * (x - mean);
                }
            } else {
                for (((s, p), (&x, &d)), &mean) in all {
                    *s += d;
                    *p += d * (x - mean);
                }
            }
        });
        for (i, place) in [(1, 1), (2, 0)] {
            if let Some((d, add)) = d_x[i].target() {
                for ((d, sums), &inverse) in d.iter_mut().zip(&sums).zip(&self.inverse) {
                    let own = T::from_f64(sums[place]) * if place == 1 { inverse } else { T::ONE };
                    *d = if add { *d + own } else { own };
                }
            }
        }
        // d_x = f d + b (x - mean) + c0
        let n = (self.batch * self.x.h * self.x.w) as f64;
        let mut numbers = vec![[T::ZERO; 3]; channels];
        for (c, numbers) in numbers.iter_mut().enumerate() {
            let factor = scale[c] * self.inverse[c];
            let of_batch = |sum: f64| if self.trained { T::from_f64(-sum / n) * factor } else { T::ZERO };
            let b = of_batch(sums[c][1]) * self.inverse[c] * self.inverse[c];
            *numbers = [factor, b, of_batch(sums[c][0])];
        }
        for k in 0..3 {
            let channel: Vec<T> = numbers.iter().map(|numbers| numbers[k]).collect();
            repeat(&mut self.repeated[k + 1], &channel);
        }
        self.repeated[0] = means;
        let (mut to_x, mut to_residual) = (None, None);
        let (first, rest) = d_x.split_at_mut(1);
        if let Some(target) = first[0].target() {
            to_x = Some(target);
        }
        if let Some(target) = rest.get_mut(4).and_then(Gradient::target) {
            to_residual = Some(target);
        }
        self.spread(input, d_y, outputs, to_x, to_residual);
    }

    fn keeps(&self) -> Keeps {
        let any = self.wanted.iter().any(|&w| w);
        Keeps { output: self.relu, ..Keeps::inputs(&[(0, any), (1, self.wanted[0])]) }
    }

    fn scratch(&self) -> ScratchSize {
        ScratchSize { shared: 0, lane: 2 * self.repeated[0].len() }
    }

    fn statistics(&self) -> Option<(&[T], &[T], T)> {
        self.trained.then_some((&self.mean, &self.unbiased, self.momentum))
    }
}

/// A gradient to be written, and whether to add to what is there.
type Target<'a, T> = Option<(&'a mut [T], bool)>;

impl<T: Real> BatchNorm<T> {
    /// Writes the gradients of x and of the residual from the numbers of each channel.
    fn spread(&self, input: &[T], d_y: &[T], y: &[T], d_x: Target<'_, T>, d_residual: Target<'_, T>) {
        let (chunk, relu) = (self.chunk(), self.relu);
        let masked = |d: T, y: T| if !relu || y > T::ZERO { d } else { T::ZERO };
        let outputs = |image: usize, line: usize| line_of(if relu { y } else { d_y }, &self.y, image, line);
        if let (Some((d, add)), Some(to)) = (d_residual, &self.residual) {
            threads::chunks(d, chunk * to.image(), |piece, d| {
                wide(|| {
                    for (i, d) in d.chunks_exact_mut(to.image()).enumerate() {
                        let image = piece * chunk + i;
                        if to.gradient_halo && !add {
                            to.clear_halo(d);
                        }
                        for line in 0..to.h {
                            let rows = line_of(d_y, &self.y, image, line).iter().zip(outputs(image, line));
                            let d = d[to.pixel(line, 0)..][..to.span()].iter_mut().zip(rows);
                            if add {
                                d.for_each(|(d, (&d_y, &y))| *d += masked(d_y, y));
                            } else {
                                d.for_each(|(d, (&d_y, &y))| *d = masked(d_y, y));
                            }
                        }
                    }
                });
            });
        }
        let (Some((d, add)), to) = (d_x, &self.x) else { return };
        let [means, factors, slopes, shifts] = &self.repeated;
        let block = factors.len();
        threads::chunks(d, chunk * to.image(), |piece, d| {
            wide(|| {
                for (i, d) in d.chunks_exact_mut(to.image()).enumerate() {
                    let image = piece * chunk + i;
                    if to.gradient_halo && !add {
                        to.clear_halo(d);
                    }
                    for line in 0..to.h {
                        let rows =
                            line_of(d_y, &self.y, image, line).chunks(block).zip(outputs(image, line).chunks(block));
                        let rows = rows.zip(line_of(input, &self.x, image, line).chunks(block));
                        let d = &mut d[to.pixel(line, 0)..][..to.span()];
                        for (d, ((d_y, y), x)) in d.chunks_mut(block).zip(rows) {
                            let numbers = factors.iter().zip(slopes).zip(means.iter().zip(shifts));
                            let all = d.iter_mut().zip(d_y.iter().zip(y)).zip(x).zip(numbers);
                            if add {
                                all.for_each(|(((d, (&d_y, &y)), &x), ((&f, &b), (&m, &c)))| {
                                    *d += masked(d_y, y) * f + (x - m) * b + c
                                });
                            } else {
                                all.for_each(|(((d, (&d_y, &y)), &x), ((&f, &b), (&m, &c)))| {
                                    *d = masked(d_y, y) * f + (x - m) * b + c
                                });
                            }
                        }
                    }
                }
            });
        });
    }
}

/// `max(x, 0)`; a NaN passes, so that a loss which is not finite is noticed.
#[inline]
fn above_zero<T: Real>(x: T) -> T {
    if x <= T::ZERO { T::ZERO } else { x }
}
