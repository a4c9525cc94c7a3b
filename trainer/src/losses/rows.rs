//! What losses over rows of logits share: a stable logarithm of the softmax, cross-entropies and divergences of rows,
//! the factor of a reduction, and what several answers are together.

use crate::exec::Real;

/// How the rows' values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum over all elements, divided by the batch.
    BatchMean,
    /// Sum over all elements.
    Sum,
    /// Mean over all batch · classes elements.
    ElementMean,
}

/// The words of [`Reduction`] in a recipe.
pub const REDUCTIONS: &[&str] = &["batchmean", "sum", "mean"];

impl Reduction {
    /// The reduction of a word of [`REDUCTIONS`]; the first for any other.
    pub fn of(word: &str) -> Self {
        match word {
            "sum" => Self::Sum,
            "mean" => Self::ElementMean,
            _ => Self::BatchMean,
        }
    }

    /// What the sum is multiplied by.
    pub fn factor(self, batch: usize, classes: usize) -> f64 {
        match self {
            Self::BatchMean => 1.0 / batch as f64,
            Self::Sum => 1.0,
            Self::ElementMean => 1.0 / (batch as f64 * classes as f64),
        }
    }
}

/// The largest element; NaN where one is NaN, 0 of an empty row.
fn top<T: Real>(row: &[T]) -> T {
    let mut top = row.first().copied().unwrap_or(T::ZERO);
    for &z in row {
        if z > top || z.is_nan() {
            top = z;
        }
    }
    top
}

/// Of a row `z * inverse`: the number to subtract from each element to get the logarithm of its softmax,
/// `max + ln Σ e^(z - max)`. NaN where an element is NaN.
pub fn log_sum_exp<T: Real>(row: &[T], inverse: T) -> T {
    let top = top(row);
    let mut sum = T::ZERO;
    for &z in row {
        sum += ((z - top) * inverse).exp();
    }
    top * inverse + sum.ln()
}

/// The logarithm of the softmax of `row * inverse`. The largest element is subtracted before anything is rounded at its
/// size, so that logits of 1e3 keep the precision of logits of 1.
pub fn log_softmax<T: Real>(row: &[T], inverse: T, out: &mut Vec<T>) {
    let top = top(row);
    out.clear();
    out.extend(row.iter().map(|&z| (z - top) * inverse));
    let mut sum = T::ZERO;
    for &z in out.iter() {
        sum += z.exp();
    }
    let shift = sum.ln();
    out.iter_mut().for_each(|z| *z -= shift);
}

/// `Σ_k p_k (ln p_k - ln s_k)` of two rows of logarithms; where p is 0 nothing is added.
pub fn divergence<T: Real>(log_s: &[T], log_p: &[T]) -> T {
    let mut value = T::ZERO;
    for (&s, &p) in log_s.iter().zip(log_p) {
        let weight = p.exp();
        if weight != T::ZERO {
            value += weight * (p - s);
        }
    }
    value
}

/// `-Σ_k q_k ln s_k` with `ln s = log_s`, the logarithm of the softmax of `z * inverse`; q are any weights. `d`: the gradient
/// by z times `factor`, `factor * inverse * (s_k Σ q - q_k)`. Where q is 0 nothing is added.
pub fn weighted_cross_entropy<T: Real>(log_s: &[T], q: &[T], inverse: T, factor: T, d: &mut [T]) -> T {
    let (mut value, mut sum) = (T::ZERO, T::ZERO);
    for (&s, &q) in log_s.iter().zip(q) {
        if q != T::ZERO {
            value += -(q * s);
        }
        sum += q;
    }
    for ((d, &s), &q) in d.iter_mut().zip(log_s).zip(q) {
        *d = factor * inverse * (s.exp() * sum - q);
    }
    value
}

/// What several teachers' answers are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// The weighted mean of their probabilities, softened by the term's temperature.
    #[default]
    Probabilities,
    /// The weighted mean of their logits.
    Logits,
}

/// The words of [`Average`] in a recipe.
pub const AVERAGES: &[&str] = &["probabilities", "logits"];

impl Average {
    /// The average of a word of [`AVERAGES`]; the first for any other.
    pub fn of(word: &str) -> Self {
        if word == "logits" { Self::Logits } else { Self::Probabilities }
    }

    /// Adds one teacher's logits to a row of sums that begin at 0.
    pub fn add<T: Real>(self, sums: &mut [f64], logits: &[T], weight: f64, temperature: f64) {
        let logits: Vec<f64> = logits.iter().map(|z| z.to_f64()).collect();
        let shift = log_sum_exp(&logits, 1.0 / temperature);
        for (sum, z) in sums.iter_mut().zip(logits) {
            *sum += weight * if self == Self::Logits { z } else { (z / temperature - shift).exp() };
        }
    }

    /// Turns the sums of all teachers (whose weights add up to 1) into logits whose softmax at the temperature is the
    /// average.
    pub fn finish(self, sums: &mut [f64], temperature: f64) {
        if self == Self::Probabilities {
            sums.iter_mut().for_each(|sum| *sum = temperature * sum.max(f64::MIN_POSITIVE).ln());
        }
    }
}
