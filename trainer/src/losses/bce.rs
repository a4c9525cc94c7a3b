//! Binary cross-entropy: every class is a question of its own.

use kd_runtime::Result;

use super::ce::{LABEL_SMOOTHING, Labels};
use super::taps::{STUDENT_LOGITS, logits};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::options::{Kind, Options, Spec};

/// The row of `bce`.
pub static METHOD: Method = Method {
    name: "bce",
    about: "binary cross-entropy of every class with the labels",
    cite: "Wightman et al. 2021",
    knowledge: Knowledge::Task,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`-Σ_k [q_k log σ(z_k) + (1 - q_k) log (1 - σ(z_k))]` in nats, with `σ` the logistic function and `q = (1 - \
        label_smoothing)·[k = label] + label_smoothing / classes`; mean over batch and classes, or sum over the classes and \
        mean over the batch (`reduction = \"batchmean\"`). Each logit then says of its class alone how likely it is, and the \
        probabilities of a sample need not sum to 1. Of a mixed sample `[k = label]` is the share of both its classes \
        (`share = \"whole\"`: 1 for both, the published recipe). Samples without a label add nothing and do not count. In the \
        place of the task's cross-entropy: `task_weight = 0`.",
    source: "Wightman, Touvron, Jégou 2021 (arXiv 2110.00476) §3; as torch's `binary_cross_entropy_with_logits`",
    weight: Weight::ONE,
    recipe: "task_weight = 0.0\nterms = [{ method = \"bce\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `bce`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    LABEL_SMOOTHING,
    Spec {
        name: "reduction",
        about: "`mean` over batch and classes, or sum over classes and mean over the batch (`batchmean`)",
        kind: Kind::Choice { default: "mean", known: &["mean", "batchmean"] },
    },
    Spec {
        name: "share",
        about: "what the classes of a mixed sample are: their `part` of it, or `whole`, as if each were alone",
        kind: Kind::Choice { default: "part", known: &["part", "whole"] },
    },
];

/// `-factor · Σ [t log σ(z) + (1 - t) log (1 - σ(z))]` over all elements, in nats; finite for logits of any size.
///
/// * `logits`, `targets`: of any shape, the same for both; targets from 0 to 1.
/// * `d_logits`: overwritten with `factor · (σ(z) - t)`.
pub fn binary_cross_entropy<T: Real>(logits: &[T], targets: &[T], factor: T, d_logits: &mut [T]) -> T {
    let mut total = 0.0;
    for ((&z, &t), d) in logits.iter().zip(targets).zip(d_logits) {
        let size = if z < T::ZERO { -z } else { z };
        let tail = (-size).exp();
        let positive = if z > T::ZERO { z } else { T::ZERO };
        total += (positive - z * t + (T::ONE + tail).ln()).to_f64();
        let of_size = T::ONE / (T::ONE + tail);
        *d = factor * (if z < T::ZERO { T::ONE - of_size } else { of_size } - t);
    }
    T::from_f64(total) * factor
}

struct BinaryCrossEntropy {
    student: [String; 1],
    smoothing: f32,
    is_mean: bool,
    is_whole: bool,
    targets: Vec<f32>,
}

/// The method `bce`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(BinaryCrossEntropy {
        student: [pair.student_answer(options.text("student"))?.name],
        smoothing: options.number("label_smoothing") as f32,
        is_mean: options.text("reduction") == "mean",
        is_whole: options.text("share") == "whole",
        targets: Vec::new(),
    }))
}

impl BinaryCrossEntropy {
    /// What sums over the elements are times.
    fn factor(&self, batch: &Batch<'_>, classes: usize) -> f32 {
        let rows = (self.divisor(batch) as f32).max(1.0);
        if self.is_mean { 1.0 / (rows * classes as f32) } else { 1.0 / rows }
    }
}

impl gpu::losses::Kernel for BinaryCrossEntropy {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let classes = logits(&self.student[0], seen.student[0], seen.batch)?;
        let factor = self.factor(seen.batch, classes);
        let form = gpu::losses::bce::Form { smoothing: self.smoothing, is_whole: self.is_whole, factor };
        gpu::losses::bce::binary_cross_entropy(seen, classes, form, given);
        Ok(())
    }
}

impl Loss for BinaryCrossEntropy {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn divisor(&self, batch: &Batch<'_>) -> f64 {
        let labels = Labels { classes: batch.labels, mixed: batch.mixed };
        (0..batch.size).filter(|&sample| labels.shares::<f32>(sample).is_some()).count() as f64
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        _teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let classes = logits(&self.student[0], student[0], batch)?;
        let labels = Labels { classes: batch.labels, mixed: batch.mixed };
        let factor = self.factor(batch, classes);
        let mut total = 0.0;
        let each = student[0].chunks_exact(classes).zip(d_student[0].chunks_exact_mut(classes));
        for (sample, (row, d_row)) in each.enumerate() {
            let Some(shares) = labels.shares::<f32>(sample) else {
                d_row.fill(0.0);
                continue;
            };
            self.targets.clear();
            self.targets.resize(classes, self.smoothing / classes as f32);
            for (class, share) in shares.into_iter().filter(|(_, share)| *share > 0.0) {
                let target = &mut self.targets[class];
                let part = (1.0 - self.smoothing) * if self.is_whole { 1.0 } else { share };
                *target = (*target + part).min(1.0);
            }
            total += binary_cross_entropy(row, &self.targets, factor, d_row);
        }
        Ok(total)
    }
}
