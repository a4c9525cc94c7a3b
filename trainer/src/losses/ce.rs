//! Cross-entropy with the true classes.

use std::borrow::Cow;
use std::cell::OnceCell;

use kd_runtime::Result;

use super::rows::{Reduction, log_sum_exp};
use super::taps::{STUDENT_LOGITS, logits};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::data::UNLABELLED;
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::gpu::losses::Part;
use crate::gpu::losses::ce::Wanted;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `ce`.
pub static METHOD: Method = Method {
    name: "ce",
    about: "cross-entropy with the true classes",
    cite: "Szegedy et al. 2016",
    knowledge: Knowledge::Task,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`-Σ_k q_k log p_k` with `p = softmax(logits)` and `q = (1 - label_smoothing)·[k = label] + label_smoothing / \
        classes`, in nats. With `spread = \"others\"` the other classes alone share label_smoothing \
        (Teacher-free-KD): the same at `label_smoothing · classes / (classes - 1)`. It is also the task's loss, \
        whose factor is `distill.task_weight` and whose smoothing is `train.label_smoothing`; as a term it serves a \
        second output. The task's loss alone weighs classes (`train.class_weights`). Samples without a label \
        (`data.labelled`) add nothing.",
    source: "smoothing: Szegedy et al. 2016 (arXiv 1512.00567) §7",
    weight: Weight::ONE,
    recipe: "task_weight = 0.0\nterms = [{ method = \"ce\", label_smoothing = 0.1 }]\n",
    options: OPTIONS,
    build,
};

/// The option `label_smoothing` of a method of labels.
pub const LABEL_SMOOTHING: Spec = Spec {
    name: "label_smoothing",
    about: "share of the target that is spread evenly over all classes, the true one included",
    kind: Kind::Number { default: 0.0, range: Range::BelowOne },
};

/// Options of the method `ce`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    LABEL_SMOOTHING,
    Spec {
        name: "spread",
        about: "whether `all` classes share label_smoothing, or the `others` than the true one",
        kind: Kind::Choice { default: "all", known: &["all", "others"] },
    },
];

/// What samples should be: the parts of a cross-entropy's targets that are the same for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets<T> {
    /// Share of each target that is spread evenly over all classes, the true one included.
    pub smoothing: T,
    /// A weight for each class; empty: all 1.
    pub weights: Vec<T>,
}

/// The labels of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The class of each sample; [`UNLABELLED`] samples add nothing.
    pub classes: &'a [usize],
    /// Of mixed samples, one a sample: the class of the other one, and the share of the first. Else empty.
    pub mixed: &'a [(usize, f32)],
}

impl<'a, C: AsRef<[usize]> + ?Sized> From<&'a C> for Labels<'a> {
    fn from(classes: &'a C) -> Self {
        Self { classes: classes.as_ref(), mixed: &[] }
    }
}

impl<'a> Labels<'a> {
    /// Of a batch, both classes of mixed samples.
    pub fn of(batch: &Batch<'a>) -> Self {
        Self { classes: batch.labels, mixed: batch.mixed }
    }

    /// The classes of a sample with their shares; none where one of them is not known.
    pub fn shares<T: Real>(&self, sample: usize) -> Option<[(usize, T); 2]> {
        let class = self.classes[sample];
        let (other, share) = self.mixed.get(sample).copied().unwrap_or((class, 1.0));
        let share = f64::from(share);
        let known = class != UNLABELLED && other != UNLABELLED;
        known.then(|| [(class, T::from_f64(share)), (other, T::from_f64(1.0 - share))])
    }
}

impl<T: Real> Targets<T> {
    /// Smoothed, with all weights 1.
    pub fn smoothed(smoothing: T) -> Self {
        Self { smoothing, weights: Vec::new() }
    }

    fn weight(&self, class: usize) -> T {
        self.weights.get(class).copied().unwrap_or(T::ONE)
    }
}

/// `-Σ_k w_k q_k log p_k` with `p = softmax(logits)`, `q = (1 - smoothing) · [k = label] + smoothing / classes` and the
/// classes' weights w, in nats; its mean over the labelled samples, each counted as often as the weight of its class says
/// (or sum). Of a mixed sample `[k = label]` is the share of both its classes. 0 where no sample has a label.
///
/// * `logits`: `[batch, classes]`; labels below `classes`, or [`UNLABELLED`].
/// * `d_logits`: overwritten; without weights `(p - q) / labelled samples`.
///
/// Source: the smoothing of Szegedy et al. 2016 (arXiv 1512.00567) §7, as torch's `label_smoothing`, weights and
/// `ignore_index` as torch's; some code spreads it over the other `classes - 1` classes only, which is the same loss at
/// another smoothing: [`of_others`]. Mixed samples: Zhang et al. 2018 (arXiv 1710.09412).
pub fn cross_entropy<T: Real>(
    logits: &[T],
    labels: Labels<'_>,
    classes: usize,
    targets: &Targets<T>,
    reduction: Reduction,
    d_logits: &mut [T],
) -> T {
    let labelled = labelled(labels, targets);
    let factor = match reduction {
        Reduction::Sum => 1.0,
        _ if labelled == 0.0 => 0.0,
        Reduction::BatchMean => 1.0 / labelled,
        Reduction::ElementMean => 1.0 / (labelled * classes as f64),
    };
    let factor = T::from_f64(factor);
    let spread = targets.smoothing / T::from_usize(classes);
    let kept = T::ONE - targets.smoothing;
    let all = targets.weights.iter().fold(T::ZERO, |sum, &weight| sum + weight);
    let mut total = 0.0;
    let rows = logits.chunks_exact(classes).zip(d_logits.chunks_exact_mut(classes));
    for (sample, (row, d_row)) in rows.enumerate() {
        let Some(shares) = labels.shares::<T>(sample) else {
            d_row.fill(T::ZERO);
            continue;
        };
        let shift = log_sum_exp(row, T::ONE);
        // The sum of the weighted target; 1 without weights.
        let whole = match targets.weights.is_empty() {
            true => T::ONE,
            false => shares.iter().fold(spread * all, |sum, &(k, share)| sum + kept * share * targets.weight(k)),
        };
        let mut value = T::ZERO;
        for (k, (d, &z)) in d_row.iter_mut().zip(row).enumerate() {
            let log_p = z - shift;
            let even = spread * targets.weight(k);
            if targets.smoothing > T::ZERO {
                value -= even * log_p;
            }
            *d = (whole * log_p.exp() - even) * factor;
        }
        for (k, share) in shares.into_iter().filter(|(_, share)| *share > T::ZERO) {
            let part = kept * share * targets.weight(k);
            value += part * (shift - row[k]);
            d_row[k] -= part * factor;
        }
        total += value.to_f64();
    }
    T::from_f64(total) * factor
}

/// The labelled samples, each counted as often as the weight of its class says.
pub fn labelled<T: Real>(labels: Labels<'_>, targets: &Targets<T>) -> f64 {
    let weight = |sample| {
        let shares = labels.shares::<f64>(sample).into_iter().flatten();
        shares.map(|(class, share)| share * targets.weight(class).to_f64()).sum::<f64>()
    };
    (0..labels.classes.len()).map(weight).sum()
}

/// The smoothing over all classes that is one over the others alone: `q = (1 - smoothing)` at the label and
/// `smoothing / (classes - 1)` elsewhere.
pub fn of_others<T: Real>(smoothing: T, classes: usize) -> T {
    smoothing * T::from_usize(classes) / T::from_usize(classes.max(2) - 1)
}

struct CrossEntropy {
    student: [String; 1],
    targets: Targets<f32>,
    others_alone: bool,
    /// The weights of the classes on a GPU, when it is first asked.
    sent: OnceCell<Buffer<f32>>,
}

/// The method `ce`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(CrossEntropy {
        student: [pair.student_answer(options.text("student"))?.name],
        targets: Targets::smoothed(options.number("label_smoothing") as f32),
        others_alone: options.text("spread") == "others",
        sent: OnceCell::new(),
    }))
}

impl CrossEntropy {
    fn targets(&self, classes: usize) -> Cow<'_, Targets<f32>> {
        match self.others_alone {
            true => Cow::Owned(Targets::smoothed(of_others(self.targets.smoothing, classes))),
            false => Cow::Borrowed(&self.targets),
        }
    }
}

impl gpu::losses::Kernel for CrossEntropy {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let classes = logits(&self.student[0], seen.student[0], seen.batch)?;
        let (targets, labelled) = (self.targets(classes), self.divisor(seen.batch));
        let sent = match self.sent.get() {
            Some(sent) => sent,
            None => {
                let moved = Buffer::moved(seen.gpu, &targets.weights)?;
                self.sent.get_or_init(|| moved)
            }
        };
        let weights = sent.raw();
        let wanted = Wanted { targets: &targets, weights, labelled };
        gpu::losses::ce::cross_entropy(seen, 0, classes, wanted, Part::WHOLE, given);
        Ok(())
    }
}

/// The task's own loss on this output.
pub fn task(output: &str, targets: Targets<f32>) -> Box<dyn Loss> {
    Box::new(CrossEntropy { student: [output.to_string()], targets, others_alone: false, sent: OnceCell::new() })
}

/// Weights that let every class count alike however many samples it has: `samples / (classes · samples of the class)`, 0 for
/// a class without any. King, Zeng 2001 (Political Analysis 9); scikit-learn's `balanced`.
pub fn balanced(per_class: &[usize]) -> Vec<f32> {
    let samples: usize = per_class.iter().sum();
    let weight = |&n: &usize| if n == 0 { 0.0 } else { samples as f32 / (per_class.len() * n) as f32 };
    per_class.iter().map(weight).collect()
}

impl Loss for CrossEntropy {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn divisor(&self, batch: &Batch<'_>) -> f64 {
        labelled(Labels::of(batch), &self.targets)
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
        let targets = &*self.targets(classes);
        Ok(cross_entropy(student[0], Labels::of(batch), classes, targets, Reduction::BatchMean, d_student[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 9] = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4, 1.5, -2.5, 0.0];

    fn of(rows: &[usize], classes: &[usize], targets: &Targets<f64>) -> (f64, Vec<f64>) {
        let logits: Vec<f64> = rows.iter().flat_map(|row| &LOGITS[3 * row..3 * row + 3]).copied().collect();
        let mut d = vec![9.0; logits.len()];
        (cross_entropy(&logits, classes.into(), 3, targets, Reduction::BatchMean, &mut d), d)
    }

    #[test]
    fn a_mixed_sample_has_the_weighted_sum_of_both_losses_and_gradients() {
        let (classes, mixed) = ([0, 2, 1], [(2, 0.75), (2, 0.5), (0, 1.0_f32)]);
        for smoothing in [0.0, 0.1] {
            let targets = Targets::smoothed(smoothing);
            let mut d = [0.0_f64; 9];
            let labels = Labels { classes: &classes, mixed: &mixed };
            let value = cross_entropy(&LOGITS, labels, 3, &targets, Reduction::BatchMean, &mut d);
            let mut expected = 0.0;
            for (row, (label, (other, share))) in classes.into_iter().zip(mixed).enumerate() {
                let (first, second) = (of(&[row], &[label], &targets), of(&[row], &[other], &targets));
                let mix = |a: f64, b: f64| (f64::from(share) * a + (1.0 - f64::from(share)) * b) / 3.0;
                expected += mix(first.0, second.0);
                for k in 0..3 {
                    assert!((d[3 * row + k] - mix(first.1[k], second.1[k])).abs() < 1e-12);
                }
            }
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
    }

    #[test]
    fn a_sample_without_a_label_adds_nothing_and_does_not_count() {
        for targets in [Targets::smoothed(0.1), Targets { smoothing: 0.1, weights: vec![0.5, 1.0, 2.0] }] {
            let (value, d) = of(&[0, 1, 2], &[2, UNLABELLED, 1], &targets);
            let (expected, d_expected) = of(&[0, 2], &[2, 1], &targets);
            assert_eq!(value, expected);
            assert_eq!((&d[..3], &d[3..6], &d[6..]), (&d_expected[..3], &[0.0; 3][..], &d_expected[3..]));
            assert_eq!(of(&[0], &[UNLABELLED], &targets), (0.0, vec![0.0; 3]));
            // One that is mixed with it is not known either.
            let labels = Labels { classes: &[2, 0], mixed: &[(UNLABELLED, 0.7), (1, 0.7)] };
            let mut d = [9.0; 6];
            assert!(cross_entropy(&LOGITS[..6], labels, 3, &targets, Reduction::BatchMean, &mut d) > 0.0);
            assert_eq!(d[..3], [0.0; 3]);
            assert!(d[3..].iter().all(|d| *d != 0.0));
        }
    }

    #[test]
    fn balanced_weights_give_each_class_the_same_share_of_the_mean() {
        assert_eq!(balanced(&[6, 2, 0, 8]), [16.0 / 24.0, 2.0, 0.0, 0.5]);
        let weights = balanced(&[3, 1, 1]).iter().map(|&weight| f64::from(weight)).collect();
        let rows = [0, 1, 2, 0, 1];
        let (value, _) = of(&rows, &[0, 0, 0, 1, 2], &Targets { smoothing: 0.0, weights });
        let alone = |row: usize, class: usize| of(&[row], &[class], &Targets::smoothed(0.0)).0;
        let expected = ((alone(0, 0) + alone(1, 0) + alone(2, 0)) / 3.0 + alone(0, 1) + alone(1, 2)) / 3.0;
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }
}
