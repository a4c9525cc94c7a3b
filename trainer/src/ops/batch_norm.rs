//! Batch normalisation: `y = scale * (x - mean) / sqrt(var + epsilon) + bias` per channel (axis 1).
//!
//! In training mean and var (biased) are the batch's, and the gradient flows through both:
//! `d_x = scale / σ * (d_y - mean(d_y) - x̂ * mean(d_y * x̂))`; else they are the running values, constants.

use kd_runtime::ops::{self, OpError};
use rayon::prelude::*;

use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site};
use crate::exec::{Mode, Real};

struct BatchNorm<T> {
    batch: usize,
    channels: usize,
    plane: usize,
    epsilon: T,
    momentum: T,
    wanted: [bool; 3],
    /// Whether the last forward pass used the batch's statistics.
    trained: bool,
    /// Of the last forward pass: mean and 1/σ as used.
    mean: Vec<T>,
    inverse: Vec<T>,
    /// Unbiased variance of the batch.
    unbiased: Vec<T>,
}

/// The kernel of a BatchNormalization node.
pub fn build<T: Real>(op: &ops::batch_norm::BatchNormalization, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let &[batch, channels, ref plane @ ..] = x else {
        return Err(OpError::new("x [N, C, …]", format!("{x:?}")));
    };
    if site.wanted(3) || site.wanted(4) {
        return Err(OpError::new("running statistics that are initializers", "ones that are computed from parameters"));
    }
    Ok(Box::new(BatchNorm {
        batch,
        channels,
        plane: plane.iter().product(),
        epsilon: T::from_f32(op.epsilon),
        momentum: T::from_f32(op.momentum),
        wanted: [site.wanted(0), site.wanted(1), site.wanted(2)],
        trained: false,
        mean: vec![T::ZERO; channels],
        inverse: vec![T::ZERO; channels],
        unbiased: vec![T::ZERO; channels],
    }))
}

/// Mean and sum of squared deviations of one channel: per plane in two passes while it is in the cache, planes
/// combined in f64 by Chan's formula, so that nothing cancels.
fn moments<T: Real>(planes: impl Iterator<Item = impl AsRef<[T]>>, plane: usize) -> (f64, f64) {
    let (mut mean, mut squares, mut seen) = (0.0, 0.0, 0.0);
    let n = plane as f64;
    for x in planes {
        let x = x.as_ref();
        let own = pointwise::sum(x).to_f64() / n;
        let center = T::from_f64(own);
        let (s, ss) = deviations(x, center);
        // `center` is rounded: correct the squares for the rest of the mean.
        let own_squares = ss - s * s / n;
        let own = center.to_f64() + s / n;
        let delta = own - mean;
        let total = seen + n;
        mean += delta * n / total;
        squares += own_squares + delta * delta * seen * n / total;
        seen = total;
    }
    (mean, squares)
}

/// `Σ (x - center)` and `Σ (x - center)²`, each in eight running sums.
fn deviations<T: Real>(x: &[T], center: T) -> (f64, f64) {
    let (mut s, mut ss) = ([T::ZERO; 8], [T::ZERO; 8]);
    let chunks = x.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks.chain(std::iter::once(rest)) {
        for ((s, ss), &x) in s.iter_mut().zip(&mut ss).zip(chunk) {
            let d = x - center;
            *s += d;
            *ss += d * d;
        }
    }
    (pointwise::sum(&s).to_f64(), pointwise::sum(&ss).to_f64())
}

impl<T: Real> BatchNorm<T> {
    fn planes<'a>(&self, x: &'a [T], channel: usize) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        x.chunks_exact(self.plane).skip(channel).step_by(self.channels)
    }

    fn measure(&mut self, x: &[T]) {
        let (mut mean, mut inverse, mut unbiased) =
            (std::mem::take(&mut self.mean), std::mem::take(&mut self.inverse), std::mem::take(&mut self.unbiased));
        let count = (self.batch * self.plane) as f64;
        let each = mean.par_iter_mut().zip(&mut inverse).zip(&mut unbiased).enumerate();
        each.for_each(|(c, ((mean, inverse), unbiased))| {
            // A [N, C] input has planes of one element: N at a time would be strided, so they are few and plain.
            let (m, squares) = moments(self.planes(x, c), self.plane);
            *mean = T::from_f64(m);
            *inverse = T::ONE / (T::from_f64(squares / count) + self.epsilon).sqrt();
            // As torch: a batch of one element has no unbiased variance; the biased one (0) stands in.
            *unbiased = T::from_f64(squares / (count - 1.0).max(1.0));
        });
        (self.mean, self.inverse, self.unbiased) = (mean, inverse, unbiased);
    }
}

impl<T: Real> Kernel<T> for BatchNorm<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let (input, scale, bias) = (x.get(0), x.get(1), x.get(2));
        self.trained = matches!(context.mode, Mode::Train { .. });
        if self.trained {
            self.measure(input);
        } else {
            for (c, (&mean, &var)) in x.get(3).iter().zip(x.get(4)).enumerate() {
                self.mean[c] = mean;
                self.inverse[c] = T::ONE / (var + self.epsilon).sqrt();
            }
        }
        let image = self.channels * self.plane;
        y.par_chunks_mut(image).zip(input.par_chunks(image)).for_each(|(y, x)| {
            let planes = y.chunks_exact_mut(self.plane).zip(x.chunks_exact(self.plane));
            for (c, (y, x)) in planes.enumerate() {
                let (mean, factor, bias) = (self.mean[c], scale[c] * self.inverse[c], bias[c]);
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = (x - mean) * factor + bias;
                }
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
        let (input, scale) = (x.get(0), x.get(1));
        // Per channel: Σ d_y and Σ d_y * x̂.
        let sums = &mut context.scratch.shared[..2 * self.channels];
        let this = &*self;
        sums.par_chunks_exact_mut(2).enumerate().for_each(|(c, sums)| {
            let (mut sum, mut product) = (0.0, 0.0);
            for (x, d) in this.planes(input, c).zip(this.planes(d_y, c)) {
                let (s, p) = sum_and_product(d, x, this.mean[c]);
                sum += s;
                product += p;
            }
            sums[0] = T::from_f64(sum);
            sums[1] = T::from_f64(product) * this.inverse[c];
        });
        for (i, place) in [(1, 1), (2, 0)] {
            if let Some((d, add)) = d_x[i].target() {
                for (d, sums) in d.iter_mut().zip(sums.chunks_exact(2)) {
                    *d = if add { *d + sums[place] } else { sums[place] };
                }
            }
        }
        let Some((d_x, add)) = d_x[0].target() else { return };
        let count = T::from_usize(self.batch * self.plane);
        let image = self.channels * self.plane;
        d_x.par_chunks_mut(image).zip(d_y.par_chunks(image)).enumerate().for_each(|(n, (d_x, d_y))| {
            let input = input.get(n * image..(n + 1) * image).unwrap_or(&[]);
            for c in 0..self.channels {
                let at = c * self.plane..(c + 1) * self.plane;
                let (d_x, d_y) = (&mut d_x[at.clone()], &d_y[at.clone()]);
                let factor = scale[c] * self.inverse[c];
                if !self.trained {
                    let pairs = d_x.iter_mut().zip(d_y);
                    pairs.for_each(|(d_x, &d)| *d_x = if add { *d_x + d * factor } else { d * factor });
                    continue;
                }
                // d_x = a d + b (x - mean) + c0
                let b = -factor * self.inverse[c] * sums[2 * c + 1] / count;
                let c0 = -factor * sums[2 * c] / count;
                let mean = self.mean[c];
                let triples = d_x.iter_mut().zip(d_y).zip(&input[at]);
                if add {
                    triples.for_each(|((d_x, &d), &x)| *d_x += d * factor + (x - mean) * b + c0);
                } else {
                    triples.for_each(|((d_x, &d), &x)| *d_x = d * factor + (x - mean) * b + c0);
                }
            }
        });
    }

    fn keeps(&self) -> Keeps {
        let any = self.wanted.iter().any(|&w| w);
        Keeps::inputs(&[(0, any), (1, self.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        ScratchSize { shared: 2 * self.channels, lane: 0 }
    }

    fn statistics(&self) -> Option<(&[T], &[T], T)> {
        self.trained.then_some((&self.mean, &self.unbiased, self.momentum))
    }
}

/// `Σ d` and `Σ d (x - mean)`, each in eight running sums.
fn sum_and_product<T: Real>(d: &[T], x: &[T], mean: T) -> (f64, f64) {
    let (mut s, mut p) = ([T::ZERO; 8], [T::ZERO; 8]);
    let whole = d.len() / 8 * 8;
    let (d_rest, x_rest) = (&d[whole..], &x[whole..]);
    let chunks = d[..whole].chunks_exact(8).zip(x[..whole].chunks_exact(8));
    for (d, x) in chunks.chain(std::iter::once((d_rest, x_rest))) {
        for ((s, p), (&d, &x)) in s.iter_mut().zip(&mut p).zip(d.iter().zip(x)) {
            *s += d;
            *p += d * (x - mean);
        }
    }
    (pointwise::sum(&s).to_f64(), pointwise::sum(&p).to_f64())
}
