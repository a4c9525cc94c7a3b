//! Batch normalisation over images with their channels last, alone or with the sum and the ReLU that follow it:
//! `y = relu(scale * (x - mean) / sqrt(var + epsilon) + bias + residual)`.
//!
//! In training mean and var (biased) are the batch's, and the gradient flows through both:
//! `d_x = scale / σ * (d - mean(d) - x̂ * mean(d * x̂))` with `d = d_y` where `y > 0`; else they are the running values,
//! constants. What is one number a channel is repeated over a block of pixels, so that every loop is over plain rows.

use kd_runtime::ops::{self, OpError};

use super::kernels::frame::Frame;
use super::kernels::prefetch::prefetch;
use super::kernels::rows::wide;
use super::kernels::threads;
use super::moments::{self, fold, line_of};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Scratch, ScratchSize, Site, with_lane};
use crate::exec::{Mode, Real};

/// Pieces that a batch is cut into.
const MOST_CHUNKS: usize = 16;

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
    /// Values of a channel in the whole batch, where this process has a share of it.
    count: f64,
    /// Numbers of channels, repeated over a block.
    repeated: [Vec<T>; 5],
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
    let block = moments::block(&x);
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
        count: 0.0,
        repeated: std::array::from_fn(|_| vec![T::ZERO; block]),
    }))
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

    /// Mean and variance of the batch, from what the convolution before left or from x.
    fn measure(&mut self, x: &[T], context: &mut Context<'_, T>) {
        let Scratch { lanes, moments, .. } = &mut *context.scratch;
        if !std::mem::take(&mut moments.there) {
            let (frame, chunk) = (&self.x, self.chunk());
            let pieces = moments.start(self.batch.div_ceil(chunk), frame);
            threads::chunks(pieces, moments::piece(frame), |piece, sums| {
                let from = piece * chunk;
                let x = &x[from * frame.image()..][..chunk.min(self.batch - from) * frame.image()];
                with_lane(lanes, |lane| moments::measure(frame, x, sums, lane));
            });
            moments.there = false;
        }
        self.count = (self.batch * self.x.h * self.x.w) as f64;
        let mut totals: Vec<[f64; 2]> = (0..self.x.c).map(|c| moments.total(self.x.c, c)).collect();
        if let Some(share) = context.share {
            self.count = share.moments(self.count, &mut totals);
        }
        let n = self.count;
        for (c, [mean, squares]) in totals.into_iter().enumerate() {
            self.mean[c] = T::from_f64(mean);
            self.inverse[c] = T::ONE / (T::from_f64(squares / n) + self.epsilon).sqrt();
            // As torch: a batch of one element has no unbiased variance; the biased one (0) stands in.
            self.unbiased[c] = T::from_f64(squares / (n - 1.0).max(1.0));
        }
    }
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
        let (factors, shifts) = self.line_of_forward(scale, bias);
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
                        prefetch(y, to.pixel(line, 0) + moments::AHEAD, to.row());
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
        let sums = self.backward_sums(x, y, d_y, d_x, context);
        self.prepare(x.get(1), &sums);
        let (first, rest) = d_x.split_at_mut(1);
        let residual = rest.get_mut(4).and_then(Gradient::target);
        let Some((d, add)) = first[0].target() else {
            return self.pass(Rows { x: x.get(0), y, d_y }, residual);
        };
        let rows = Rows { x: x.get(0), y, d_y };
        self.spread(rows, d, Some(add), residual, context);
    }

    fn gradient_in_place(&self) -> bool {
        self.x.same_places(&self.y)
    }

    fn backward_in_place(
        &mut self,
        x: &Inputs<'_, T>,
        y: &[T],
        d: &mut [T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let sums = self.backward_sums(x, y, d, d_x, context);
        self.prepare(x.get(1), &sums);
        let residual = d_x.get_mut(5).and_then(Gradient::target);
        let rows = Rows { x: x.get(0), y, d_y: &[] };
        self.spread(rows, d, None, residual, context);
    }

    fn keeps(&self) -> Keeps {
        let any = self.wanted.iter().any(|&w| w);
        Keeps { output: self.masks_by_output(), ..Keeps::inputs(&[(0, any), (1, any), (2, any)]) }
    }

    fn scratch(&self) -> ScratchSize {
        ScratchSize { shared: 0, lane: moments::lane(&self.x) }
    }

    fn statistics(&self) -> Option<(&[T], &[T], T)> {
        self.trained.then_some((&self.mean, &self.unbiased, self.momentum))
    }
}

/// A gradient to be written, and whether to add to what is there.
type Target<'a, T> = Option<(&'a mut [T], bool)>;

/// What a backward pass reads.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    x: &'a [T],
    /// Empty unless it decides the mask.
    y: &'a [T],
    /// Empty if it lies where the gradient of x is written.
    d_y: &'a [T],
}

impl<T: Real> BatchNorm<T> {
    /// Whether the output says where the ReLU let the gradient pass. Without a residual x says it too, and is read anyway.
    fn masks_by_output(&self) -> bool {
        self.relu && self.residual.is_some()
    }

    /// Repeats mean, factor and shift of the forward pass over blocks, and gives per channel Σ d and Σ d * (x - mean), of
    /// which the gradients of scale and bias are made.
    fn backward_sums(
        &mut self,
        x: &Inputs<'_, T>,
        y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) -> Vec<[f64; 2]> {
        let (input, scale, bias) = (x.get(0), x.get(1), x.get(2));
        let (factors, shifts) = self.line_of_forward(scale, bias);
        repeat(&mut self.repeated[0], &self.mean);
        repeat(&mut self.repeated[1], &factors);
        repeat(&mut self.repeated[2], &shifts);
        let [means, factors, shifts, ..] = &self.repeated;
        let mut sums = if self.masks_by_output() {
            self.sums(input, [d_y, y], context, |[x, d, y], [s, p]| {
                for ((((s, p), (&x, &d)), &mean), &y) in s.iter_mut().zip(p).zip(x.iter().zip(d)).zip(means).zip(y) {
                    let d = if y > T::ZERO { d } else { T::ZERO };
                    *s += d;
                    *p += d * (x - mean);
                }
            })
        } else if self.relu {
            self.sums(input, [d_y, &[]], context, |[x, d, _], [s, p]| {
                let numbers = means.iter().zip(factors.iter().zip(shifts));
                for (((s, p), (&x, &d)), (&mean, (&f, &b))) in s.iter_mut().zip(p).zip(x.iter().zip(d)).zip(numbers) {
                    let d = if x * f + b > T::ZERO { d } else { T::ZERO };
                    *s += d;
                    *p += d * (x - mean);
                }
            })
        } else {
            self.sums(input, [d_y, &[]], context, |[x, d, _], [s, p]| {
                for (((s, p), (&x, &d)), &mean) in s.iter_mut().zip(p).zip(x.iter().zip(d)).zip(means) {
                    *s += d;
                    *p += d * (x - mean);
                }
            })
        };
        for (i, place) in [(1, 1), (2, 0)] {
            if let Some((d, add)) = d_x[i].target() {
                for ((d, sums), &inverse) in d.iter_mut().zip(&sums).zip(&self.inverse) {
                    let own = T::from_f64(sums[place]) * if place == 1 { inverse } else { T::ONE };
                    *d = if add { *d + own } else { own };
                }
            }
        }
        // Gradients of scale and bias are summed with those of all parameters.
        if let Some(share) = context.share.filter(|_| self.trained) {
            share.sums(&mut sums);
        }
        sums
    }

    /// Per channel `factor` and `shift` of `y = factor x + shift`.
    fn line_of_forward(&self, scale: &[T], bias: &[T]) -> (Vec<T>, Vec<T>) {
        let factors: Vec<T> = scale.iter().zip(&self.inverse).map(|(&s, &i)| s * i).collect();
        let shifts = (factors.iter().zip(&self.mean).zip(bias)).map(|((&f, &m), &b)| b - f * m).collect();
        (factors, shifts)
    }

    /// Repeats over blocks what `d_x = factor d + slope (x - mean) + shift` needs beside mean and factor.
    fn prepare(&mut self, scale: &[T], sums: &[[f64; 2]]) {
        let n = self.count;
        let (mut slopes, mut offsets) = (Vec::with_capacity(sums.len()), Vec::with_capacity(sums.len()));
        for ((&scale, &inverse), sums) in scale.iter().zip(&self.inverse).zip(sums) {
            let factor = scale * inverse;
            let of_batch = |sum: f64| if self.trained { T::from_f64(-sum / n) * factor } else { T::ZERO };
            slopes.push(of_batch(sums[1]) * inverse * inverse);
            offsets.push(of_batch(sums[0]));
        }
        repeat(&mut self.repeated[3], &slopes);
        repeat(&mut self.repeated[4], &offsets);
    }

    /// Sets to 0 what the ReLU did not let pass of a block of gradients.
    #[inline]
    fn mask(&self, d: &mut [T], x: &[T], y: &[T]) {
        if self.masks_by_output() {
            d.iter_mut().zip(y).for_each(|(d, &y)| *d = if y > T::ZERO { *d } else { T::ZERO });
        } else if self.relu {
            let line = self.repeated[1].iter().zip(&self.repeated[2]);
            let all = d.iter_mut().zip(x).zip(line);
            all.for_each(|((d, &x), (&f, &b))| *d = if x * f + b > T::ZERO { *d } else { T::ZERO });
        }
    }

    /// Writes the gradient of the residual alone.
    fn pass(&self, rows: Rows<'_, T>, residual: Target<'_, T>) {
        let (Some((d, add)), Some(to)) = (residual, &self.residual) else { return };
        let chunk = self.chunk();
        threads::chunks(d, chunk * to.image(), |piece, d| {
            for (i, d) in d.chunks_exact_mut(to.image()).enumerate() {
                let image = piece * chunk + i;
                if to.gradient_halo && !add {
                    to.clear_halo(d);
                }
                for line in 0..to.h {
                    let y = if self.relu { line_of(rows.y, &self.y, image, line).iter() } else { [].iter() };
                    let mut y = y.copied();
                    let d_y = line_of(rows.d_y, &self.y, image, line);
                    for (d, &d_y) in d[to.pixel(line, 0)..][..to.span()].iter_mut().zip(d_y) {
                        let own = if y.next().is_none_or(|y| y > T::ZERO) { d_y } else { T::ZERO };
                        *d = if add { *d + own } else { own };
                    }
                }
            }
        });
    }

    /// Writes the gradients of x (`add`: whether to add to what is there; none: over d_y) and of the residual.
    fn spread(
        &self,
        rows: Rows<'_, T>,
        d: &mut [T],
        add: Option<bool>,
        residual: Target<'_, T>,
        context: &mut Context<'_, T>,
    ) {
        let (chunk, to) = (self.chunk(), &self.x);
        let block = self.repeated[0].len();
        let [means, factors, _, slopes, offsets] = &self.repeated;
        let lanes = &context.scratch.lanes;
        let (mut none, mut add_residual) = ([], false);
        let (residual, frame) = match (residual, &self.residual) {
            (Some((d, add)), Some(frame)) => {
                add_residual = add;
                (d, Some(frame))
            }
            _ => (&mut none[..], None),
        };
        let image_floats = frame.map_or(0, Frame::image);
        threads::pairs((d, chunk * to.image()), (residual, chunk * image_floats), |piece, d, residual| {
            with_lane(lanes, |lane| {
                wide(|| {
                    for (i, d) in d.chunks_exact_mut(to.image()).enumerate() {
                        let image = piece * chunk + i;
                        let residual = residual.get_mut(i * image_floats..(i + 1) * image_floats).unwrap_or(&mut []);
                        if let Some(frame) = frame.filter(|frame| frame.gradient_halo && !add_residual) {
                            frame.clear_halo(residual);
                        }
                        if to.gradient_halo && add != Some(true) {
                            to.clear_halo(d);
                        }
                        for line in 0..to.h {
                            let x = line_of(rows.x, &self.x, image, line);
                            let d_y = if add.is_some() { line_of(rows.d_y, &self.y, image, line) } else { &[] };
                            let y = if self.masks_by_output() { line_of(rows.y, &self.y, image, line) } else { &[] };
                            prefetch(d, to.pixel(line, 0) + moments::AHEAD, to.row());
                            prefetch(residual, to.pixel(line, 0) + moments::AHEAD, to.row());
                            let d = &mut d[to.pixel(line, 0)..][..to.span()];
                            for (k, d) in d.chunks_mut(block).enumerate() {
                                let places = k * block..k * block + d.len();
                                let x = &x[places.clone()];
                                let y = y.get(places.clone()).unwrap_or(&[]);
                                let own = if add.is_some() {
                                    let own = &mut lane[..d.len()];
                                    own.copy_from_slice(&d_y[places.clone()]);
                                    own
                                } else {
                                    &mut *d
                                };
                                self.mask(own, x, y);
                                if let Some(frame) = frame {
                                    let to = &mut residual[frame.pixel(line, 0)..][places];
                                    if add_residual {
                                        to.iter_mut().zip(&*own).for_each(|(to, &own)| *to += own);
                                    } else {
                                        to.copy_from_slice(own);
                                    }
                                }
                                let numbers = factors.iter().zip(slopes).zip(means.iter().zip(offsets));
                                for ((d, &x), ((&f, &b), (&m, &c))) in own.iter_mut().zip(x).zip(numbers) {
                                    *d = *d * f + (x - m) * b + c;
                                }
                                match add {
                                    None => {}
                                    Some(false) => d.copy_from_slice(&lane[..d.len()]),
                                    Some(true) => d.iter_mut().zip(&*lane).for_each(|(d, &own)| *d += own),
                                }
                            }
                        }
                    }
                });
            });
        });
    }
}

/// `max(x, 0)`; a NaN passes, so that a loss which is not finite is noticed.
#[inline]
fn above_zero<T: Real>(x: T) -> T {
    if x <= T::ZERO { T::ZERO } else { x }
}
