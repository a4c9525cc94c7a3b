//! Soft targets weighted by how much more the student errs than the teacher.

use kd_runtime::Result;

use super::rows::{Average, log_softmax, weighted_cross_entropy};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::Answers;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `wsld`.
pub static METHOD: Method = Method {
    name: "wsld",
    about: "soft labels weighted sample by sample",
    cite: "Zhou et al. 2021",
    knowledge: Knowledge::Response,
    needs_labels: true,
    needs_whole_batch: false,
    formula: "`temperature² · mean_b w_b · H(p_teacher, p_student)` at the temperature, with `w = 1 - exp(-CE_student / \
        (CE_teacher + 1e-7))` of the cross-entropies with the label at temperature 1. Nothing flows through w. CE beside it. Several \
        teachers: the mean of their probabilities at the temperature; CE_teacher is that mean's at temperature 1, not the mean of \
        theirs.",
    source: "Zhou et al. 2021 (arXiv 2102.00650) eq. 11",
    weight: Weight { usual: 2.5, source: "the authors' at temperature 2 (ImageNet); cls_KD has 2.25 at 4", forms: &[] },
    recipe: "terms = [{ method = \"wsld\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `wsld`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 2.0, range: Range::Positive },
    },
    AVERAGE,
];

/// `w_b = 1 - exp(-CE_student / (CE_teacher + 1e-7))` of each sample. Zhou et al. 2021 (arXiv 2102.00650) eq. 10.
pub fn weights<T: Real>([student, teacher]: [&[T]; 2], labels: &[usize]) -> Vec<T> {
    let classes = student.len() / labels.len().max(1);
    let mut log = Vec::new();
    let mut task = |row: &[T], label: usize| {
        log_softmax(row, T::ONE, &mut log);
        -log[label]
    };
    let rows = student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(labels);
    rows.map(|((student, teacher), &label)| {
        let ratio = task(student, label) / (task(teacher, label) + T::from_f64(1e-7));
        T::ONE - (-(ratio.max(T::ZERO))).exp()
    })
    .collect()
}

/// `temperature² · mean_b w_b · H(p_teacher, p_student)` of logits `[batch, classes]` and given weights. `d_student` is
/// overwritten. Zhou et al. 2021 (arXiv 2102.00650) eq. 11.
pub fn weighted_soft_labels<T: Real>(
    student: &[T],
    teacher: &[T],
    weights: &[T],
    temperature: T,
    d_student: &mut [T],
) -> T {
    let classes = student.len() / weights.len().max(1);
    let inverse = T::ONE / temperature;
    let scale = temperature * temperature / T::from_usize(weights.len());
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let (mut log_s, mut log_t) = (Vec::new(), Vec::new());
    let mut total = 0.0;
    for (((student, teacher), d), &weight) in rows.zip(weights) {
        log_softmax(student, inverse, &mut log_s);
        log_softmax(teacher, inverse, &mut log_t);
        log_t.iter_mut().for_each(|log| *log = log.exp());
        total += (weight * weighted_cross_entropy(&log_s, &log_t, inverse, weight * scale, d)).to_f64();
    }
    T::from_f64(total) * scale
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let temperature = temperature(options)? as f32;
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        gpu::losses::labelled::weighted_soft_labels(seen, Answers::of(seen, classes), temperature, given);
        Ok(())
    };
    answers(options, pair, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        let weights = weights([seen.student, seen.teacher], seen.batch.labels);
        weighted_soft_labels(seen.student, seen.teacher, &weights, temperature, d)
    })
}
