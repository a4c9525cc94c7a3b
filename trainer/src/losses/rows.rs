//! What losses over rows of logits share: a stable logarithm of the softmax, and the factor of a reduction.

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

/// Of a row `z * inverse`: the number to subtract from each element to get the logarithm of its softmax,
/// `max + ln Σ e^(z - max)`. NaN where an element is NaN.
pub fn log_sum_exp<T: Real>(row: &[T], inverse: T) -> T {
    let mut top = row.first().copied().unwrap_or(T::ZERO);
    for &z in row {
        if z > top || z.is_nan() {
            top = z;
        }
    }
    let mut sum = T::ZERO;
    for &z in row {
        sum += ((z - top) * inverse).exp();
    }
    top * inverse + sum.ln()
}
