//! Regression of the teacher's logits.

use kd_runtime::Result;

use super::rows::{AVERAGES, Average};
use super::taps::{STUDENT_LOGITS, TEACHER_LOGITS, answers};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::Answers;
use crate::options::{Kind, Options, Spec};

/// The row of `mse_logits`.
pub static METHOD: Method = Method {
    name: "mse_logits",
    about: "squared error of the logits",
    cite: "Ba, Caruana 2014",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (z_student - z_teacher)²` over batch and classes; `reduction = \"batchmean\"` sums over the classes, \
        `\"half_batchmean\"` halves that (Ba and Caruana's). With `center` each row's mean is subtracted first: \
        `half_batchmean` of that, divided by the classes, is what `kd` tends to at high temperatures. Several \
        teachers: the mean of their logits.",
    source: "Ba, Caruana 2014 (arXiv 1312.6184) eq. 1; Kim et al. 2021 (arXiv 2105.08919)",
    weight: Weight::ONE,
    recipe: "terms = [{ method = \"mse_logits\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `mse_logits`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "reduction",
        about: "`mean` over all elements, sum over classes and mean over the batch (`batchmean`), or half of that",
        kind: Kind::Choice { default: "mean", known: REDUCTIONS },
    },
    Spec {
        name: "center",
        about: "whether each row's mean is subtracted first, which no softmax can see",
        kind: Kind::Flag { default: false },
    },
    Spec {
        name: "average",
        about: "what is averaged over several teachers; of probabilities, their logarithm is regressed",
        kind: Kind::Choice { default: "logits", known: AVERAGES },
    },
];

const REDUCTIONS: &[&str] = &["mean", "batchmean", "half_batchmean"];

/// `Σ (z_student - z_teacher)²` times `factor`, of rows `[batch, classes]`, with each row's mean subtracted where `center` is
/// set. `d_student` is overwritten. Ba, Caruana 2014 (arXiv 1312.6184) eq. 1.
pub fn logit_regression<T: Real>(
    student: &[T],
    teacher: &[T],
    classes: usize,
    center: bool,
    factor: T,
    d_student: &mut [T],
) -> T {
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let two = T::from_f64(2.0);
    let mut total = 0.0;
    for ((student, teacher), d) in rows {
        d.iter_mut().zip(student).zip(teacher).for_each(|((d, &s), &t)| *d = s - t);
        if center {
            let mean = d.iter().fold(T::ZERO, |sum, &d| sum + d) / T::from_usize(classes);
            d.iter_mut().for_each(|d| *d -= mean);
        }
        total += d.iter().fold(T::ZERO, |sum, &d| sum + d * d).to_f64();
        d.iter_mut().for_each(|d| *d = two * factor * *d);
    }
    T::from_f64(total) * factor
}

/// What the sum of squares is multiplied by under a reduction of this method.
pub fn factor(reduction: &str, batch: usize, classes: usize) -> f64 {
    match reduction {
        "batchmean" => 1.0 / batch as f64,
        "half_batchmean" => 0.5 / batch as f64,
        _ => 1.0 / (batch as f64 * classes as f64),
    }
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (reduction, center) = (options.text("reduction").to_string(), options.flag("center"));
    let factor = move |batch, classes| factor(&reduction, batch, classes) as f32;
    let of_gpu = factor.clone();
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        let factor = of_gpu(seen.batch.size, classes);
        gpu::losses::mse_logits::logit_regression(seen, Answers::of(seen, classes), center, factor, given);
        Ok(())
    };
    answers(options, pair, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        let classes = seen.columns[0];
        logit_regression(seen.student, seen.teacher, classes, center, factor(seen.batch.size, classes), d)
    })
}
