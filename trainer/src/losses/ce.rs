//! Cross-entropy with the true classes.

use kd_runtime::Result;

use super::rows::{Reduction, log_sum_exp};
use super::taps::check_labels;
use super::{Batch, Knowledge, Loss, Method, Pair};
use crate::exec::{Parameter, Real};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `ce`.
pub static METHOD: Method = Method {
    name: "ce",
    about: "cross-entropy with the true classes",
    knowledge: Knowledge::Task,
    formula: "`-Σ_k q_k log p_k` with `p = softmax(logits)` and `q = (1 - label_smoothing)·[k = label] + label_smoothing / \
        classes`, in nats. With `spread = \"others\"` the other classes alone share label_smoothing \
        (Teacher-free-KD): the same at `label_smoothing · classes / (classes - 1)`. It is also the task's loss, \
        whose factor is `distill.task_weight` and whose smoothing is `train.label_smoothing`; as a term it serves a \
        second output.",
    source: "smoothing: Szegedy et al. 2016 (arXiv 1512.00567) §7",
    options: OPTIONS,
    build,
};

/// Options of the method `ce`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "student", about: "tap with the logits", kind: Kind::Text { default: "logits" } },
    Spec {
        name: "label_smoothing",
        about: "share of the target that is spread evenly over all classes, the true one included",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
    Spec {
        name: "spread",
        about: "whether `all` classes share label_smoothing, or the `others` than the true one",
        kind: Kind::Choice { default: "all", known: &["all", "others"] },
    },
];

/// `-Σ_k q_k log p_k` with `p = softmax(logits)` and `q = (1 - smoothing) · [k = label] + smoothing / classes`, in nats;
/// mean over the batch (or sum).
///
/// * `logits`: `[batch, classes]`; labels below `classes`.
/// * `d_logits`: overwritten with `(p - q) / batch`.
///
/// Source: the smoothing of Szegedy et al. 2016 (arXiv 1512.00567) §7, as torch's `label_smoothing`; some code spreads
/// it over the other `classes - 1` classes only, which is the same loss at another smoothing: [`of_others`].
pub fn cross_entropy<T: Real>(
    logits: &[T],
    labels: &[usize],
    classes: usize,
    smoothing: T,
    reduction: Reduction,
    d_logits: &mut [T],
) -> T {
    let factor = T::from_f64(reduction.factor(labels.len(), classes));
    let spread = smoothing / T::from_usize(classes);
    let kept = T::ONE - smoothing;
    let mut total = 0.0;
    for ((row, d_row), &label) in logits.chunks_exact(classes).zip(d_logits.chunks_exact_mut(classes)).zip(labels) {
        let shift = log_sum_exp(row, T::ONE);
        let mut value = kept * (shift - row[label]);
        for (d, &z) in d_row.iter_mut().zip(row) {
            let log_p = z - shift;
            if smoothing > T::ZERO {
                value -= spread * log_p;
            }
            *d = (log_p.exp() - spread) * factor;
        }
        d_row[label] -= kept * factor;
        total += value.to_f64();
    }
    T::from_f64(total) * factor
}

/// What [`cross_entropy`] lacks where samples are mixed: of each, `1 - share` of the target goes from its label to the
/// other one's, so that the sum of both is `share · CE(label) + (1 - share) · CE(other)`.
///
/// * `logits`, `labels`, `d_logits` as there; the gradient is added. `mixed`: one a sample, other label and share.
///
/// Source: Zhang et al. 2018 (arXiv 1710.09412), the loss of mixup.
pub fn mixed_targets<T: Real>(
    logits: &[T],
    labels: &[usize],
    mixed: &[(usize, f32)],
    classes: usize,
    smoothing: T,
    reduction: Reduction,
    d_logits: &mut [T],
) -> T {
    let factor = T::from_f64(reduction.factor(labels.len(), classes)) * (T::ONE - smoothing);
    let rows = logits.chunks_exact(classes).zip(d_logits.chunks_exact_mut(classes));
    let mut total = 0.0;
    for ((row, d_row), (&label, &(other, share))) in rows.zip(labels.iter().zip(mixed)) {
        let moved = factor * T::from_f64(1.0 - f64::from(share));
        total += (moved * (row[label] - row[other])).to_f64();
        d_row[label] += moved;
        d_row[other] -= moved;
    }
    T::from_f64(total)
}

/// The smoothing over all classes that is one over the others alone: `q = (1 - smoothing)` at the label and
/// `smoothing / (classes - 1)` elsewhere.
pub fn of_others<T: Real>(smoothing: T, classes: usize) -> T {
    smoothing * T::from_usize(classes) / T::from_usize(classes.max(2) - 1)
}

struct CrossEntropy {
    student: [String; 1],
    smoothing: f32,
    others_alone: bool,
}

/// The method `ce`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(CrossEntropy {
        student: [pair.student(options.text("student"))?.name],
        smoothing: options.number("label_smoothing") as f32,
        others_alone: options.text("spread") == "others",
    }))
}

/// The task's own loss on this output.
pub fn task(output: &str, smoothing: f64) -> Box<dyn Loss> {
    Box::new(CrossEntropy { student: [output.to_string()], smoothing: smoothing as f32, others_alone: false })
}

impl Loss for CrossEntropy {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        _teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let logits = student[0];
        let classes = super::columns(&self.student[0], logits, batch)?;
        check_labels(batch, classes)?;
        let smoothing = if self.others_alone { of_others(self.smoothing, classes) } else { self.smoothing };
        let d_logits = &mut *d_student[0];
        let (labels, reduction) = (batch.labels, Reduction::BatchMean);
        let value = cross_entropy(logits, labels, classes, smoothing, reduction, d_logits);
        Ok(value + mixed_targets(logits, labels, batch.mixed, classes, smoothing, reduction, d_logits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_sample_has_the_weighted_sum_of_both_losses_and_gradients() {
        let logits = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4, 1.5, -2.5, 0.0];
        let (labels, mixed) = ([0, 2, 1], [(2, 0.75), (2, 0.5), (0, 1.0_f32)]);
        for smoothing in [0.0, 0.1] {
            let of = |labels: &[usize], row: usize| {
                let mut d = [0.0; 3];
                let z = &logits[3 * row..3 * row + 3];
                (cross_entropy(z, labels, 3, smoothing, Reduction::BatchMean, &mut d), d)
            };
            let mut d = [0.0_f64; 9];
            let mean = Reduction::BatchMean;
            let value = cross_entropy(&logits, &labels, 3, smoothing, mean, &mut d)
                + mixed_targets(&logits, &labels, &mixed, 3, smoothing, mean, &mut d);
            let mut expected = 0.0;
            for (row, (label, (other, share))) in labels.into_iter().zip(mixed).enumerate() {
                let (first, second) = (of(&[label], row), of(&[other], row));
                let mix = |a: f64, b: f64| (f64::from(share) * a + (1.0 - f64::from(share)) * b) / 3.0;
                expected += mix(first.0, second.0);
                for k in 0..3 {
                    assert!((d[3 * row + k] - mix(first.1[k], second.1[k])).abs() < 1e-12);
                }
            }
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
    }
}
