//! What the other replicas of a codistilling group predict.

use kd_runtime::Result;

use super::kd::soft_targets;
use super::mse_logits::logit_regression;
use super::rows::{AVERAGES, Average, Reduction, log_softmax, weighted_cross_entropy};
use super::taps::{STUDENT_LOGITS, answers};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::options::{Kind, Options, Spec};

/// The row of `codistill`.
pub static METHOD: Method = Method {
    name: "codistill",
    about: "the mean prediction of the other replicas",
    cite: "Anil et al. 2018",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`ψ(mean of the others' predictions, own prediction)`, mean over the batch, temperature 1. ψ: `ce`, the \
        cross-entropy with the mean as soft label; `kl`, the same less the mean's entropy (same gradient); \
        `mse_probabilities`, the squared distance of the distributions; `mse_logits`, the mean squared difference of \
        the logits, whose average is then that of logits. The others are the term's teachers: stale copies, never \
        itself. Burn-in and exchange are the scheme's. The term counts fully at once after the burn-in; \
        `schedule = { kind = \"from\", epochs = BURN_IN, warmup_epochs = N, warmup_start = 0.0 }` has it grow. \
        Mutual learning (Zhang et al. 2018) has the mean of the divergences from each other replica: `kl` has its \
        gradient.",
    source: "Anil et al. 2018 (arXiv 1804.03235) algorithm 1",
    weight: Weight { usual: 1.0, source: "the paper's", forms: &[] },
    recipe: "scheme = \"codistill\"\nreplicas = 2\nterms = [{ method = \"codistill\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `codistill`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    Spec { name: "teacher", about: "tap with the others' logits", kind: Kind::Text { default: "logits" } },
    Spec {
        name: "psi",
        about: "how a prediction is compared with the mean of the others'",
        kind: Kind::Choice { default: "ce", known: PSI },
    },
    Spec {
        name: "average",
        about: "what is averaged over several others",
        kind: Kind::Optional {
            kind: &Kind::Choice { default: "probabilities", known: AVERAGES },
            left_out: "\"probabilities\"; of mse_logits, logits",
        },
    },
];

const PSI: &[&str] = &["ce", "kl", "mse_probabilities", "mse_logits"];

/// ψ of own logits and those that stand for the others' mean, `[batch, classes]`; `psi` is a word of the option. `d_student` is
/// overwritten. Anil et al. 2018 (arXiv 1804.03235) algorithm 1.
pub fn psi<T: Real>(psi: &str, student: &[T], others: &[T], classes: usize, d_student: &mut [T]) -> T {
    let batch = student.len() / classes.max(1);
    match psi {
        "kl" => soft_targets(student, others, classes, T::ONE, Reduction::BatchMean, true, d_student),
        "mse_logits" => {
            let factor = T::ONE / T::from_usize(student.len().max(1));
            logit_regression(student, others, classes, false, factor, d_student)
        }
        _ => {
            let share = T::ONE / T::from_usize(batch.max(1));
            let rows = student.chunks_exact(classes).zip(others.chunks_exact(classes));
            let (mut log_s, mut log_t) = (Vec::new(), Vec::new());
            let mut total = 0.0;
            for ((student, others), d) in rows.zip(d_student.chunks_exact_mut(classes)) {
                log_softmax(student, T::ONE, &mut log_s);
                log_softmax(others, T::ONE, &mut log_t);
                log_t.iter_mut().for_each(|log| *log = log.exp());
                let value = if psi == "ce" {
                    weighted_cross_entropy(&log_s, &log_t, T::ONE, share, d)
                } else {
                    squared_distance(&log_s, &log_t, share, d)
                };
                total += value.to_f64();
            }
            T::from_f64(total) * share
        }
    }
}

/// `Σ_k (p_s - p_t)²` of one row, and its gradient by the student's logits times `factor`.
fn squared_distance<T: Real>(log_s: &[T], p_t: &[T], factor: T, d: &mut [T]) -> T {
    let two = T::from_f64(2.0);
    let (mut value, mut along) = (T::ZERO, T::ZERO);
    for (&log, &t) in log_s.iter().zip(p_t) {
        let off = log.exp() - t;
        value += off * off;
        along += two * off * log.exp();
    }
    for ((d, &log), &t) in d.iter_mut().zip(log_s).zip(p_t) {
        *d = factor * log.exp() * (two * (log.exp() - t) - along);
    }
    value
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let word = options.text("psi").to_string();
    let average = if word == "mse_logits" {
        options.refuse_set(&["average"], "psi = \"ce\", \"kl\" or \"mse_probabilities\"", "psi = \"mse_logits\"")?;
        Average::Logits
    } else {
        options.optional("average", Options::text).map_or(Average::default(), Average::of)
    };
    let of_gpu = word.clone();
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        gpu::losses::codistill::psi(&of_gpu, seen, classes, given);
        Ok(())
    };
    answers(options, pair, average, Some(Box::new(on_gpu)), move |seen, d| {
        psi(&word, seen.student, seen.teacher, seen.columns[0], d)
    })
}
