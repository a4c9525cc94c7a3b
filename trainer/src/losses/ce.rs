//! Cross-entropy with the true classes.

use kd_runtime::{Refusal, Result};

use super::rows::{Reduction, log_sum_exp};
use super::{Batch, Knowledge, Loss, Method, Pair};
use crate::exec::{Parameter, Real};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `ce`.
pub static METHOD: Method = Method {
    name: "ce",
    about: "cross-entropy with the true classes",
    knowledge: Knowledge::Task,
    formula: "`-Σ_k q_k log p_k` with `p = softmax(logits)` and `q = (1 - label_smoothing)·[k = label] + label_smoothing / classes`, \
        in nats. It is also the task's loss, whose factor is `distill.task_weight` and whose smoothing is \
        `train.label_smoothing`; as a term it serves a second output.",
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
];

/// `-Σ_k q_k log p_k` with `p = softmax(logits)` and `q = (1 - smoothing) · [k = label] + smoothing / classes`, in nats;
/// mean over the batch (or sum).
///
/// * `logits`: `[batch, classes]`; labels below `classes`.
/// * `d_logits`: overwritten with `(p - q) / batch`.
///
/// Source: the smoothing of Szegedy et al. 2016 (arXiv 1512.00567) §7, as torch's `label_smoothing`; some code spreads
/// it over the other `classes - 1` classes only, which is the same loss at another smoothing.
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

struct CrossEntropy {
    student: [String; 1],
    smoothing: f32,
}

/// The method `ce`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(CrossEntropy {
        student: [pair.student(options.text("student"))?.name],
        smoothing: options.number("label_smoothing") as f32,
    }))
}

/// The task's own loss on this output.
pub fn task(output: &str, smoothing: f64) -> Box<dyn Loss> {
    Box::new(CrossEntropy { student: [output.to_string()], smoothing: smoothing as f32 })
}

impl Loss for CrossEntropy {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &[]
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
        if let Some(&label) = batch.labels.iter().find(|&&label| label >= classes) {
            let action = "give the network an output for every class";
            return Err(Refusal::new("label", format!("a class below {classes}"), label, action));
        }
        let d_logits = &mut *d_student[0];
        Ok(cross_entropy(logits, batch.labels, classes, self.smoothing, Reduction::BatchMean, d_logits))
    }
}
