//! Each sample is mixed with another one, and so are their labels.

use kd_runtime::Result;

use super::Augment;
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "alpha",
    about: "shares are drawn from Beta(alpha, alpha), the larger one for the sample itself; 0 mixes nothing",
    kind: Kind::Number { default: 0.2, range: Range::NotNegative },
}];

/// `x = λ·x_i + (1 - λ)·x_j`, the task's loss `λ·CE(y_i) + (1 - λ)·CE(y_j)`; j is any training sample, augmented by what
/// stands before mixup. λ is drawn for each sample and at least 1/2: whichever sample is called i, the pairs are those of
/// the paper, and the label that other losses and the accuracy see is that of the larger share. The paper's code draws
/// one λ a batch and pairs within it.
///
/// Source: Zhang et al. 2018 (arXiv 1710.09412) §2.
struct Mixup {
    alpha: f64,
}

pub(super) fn build(options: &Options, _shape: &[usize]) -> Result<Box<dyn Augment>> {
    Ok(Box::new(Mixup { alpha: options.number("alpha") }))
}

impl Augment for Mixup {
    fn apply(&self, _raw: &mut [f32], _rng: &mut Rng) {}

    fn mixes(&self) -> bool {
        true
    }

    fn mix(&self, raw: &mut [f32], other: &[f32], rng: &mut Rng) -> f32 {
        let share = if self.alpha == 0.0 { 1.0 } else { beta(self.alpha, rng) };
        let share = share.max(1.0 - share) as f32;
        raw.iter_mut().zip(other).for_each(|(x, other)| *x = share * *x + (1.0 - share) * other);
        share
    }
}

/// Beta(alpha, alpha).
fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    let (a, b) = (log_gamma_variate(alpha, rng), log_gamma_variate(alpha, rng));
    // In logarithms, since with a small alpha both may be too small for a float.
    1.0 / (1.0 + (b - a).exp())
}

/// The logarithm of a draw from Gamma(shape, 1): Marsaglia and Tsang 2000, with their power of a uniform below shape 1.
fn log_gamma_variate(shape: f64, rng: &mut Rng) -> f64 {
    let boost = if shape < 1.0 { (1.0 - rng.uniform()).ln() / shape } else { 0.0 };
    let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return boost + (d * v).ln();
        }
    }
}
