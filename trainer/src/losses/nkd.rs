//! The true class by the teacher's confidence, and the normalised others.

use kd_runtime::Result;

use super::dkd::note_two_classes;
use super::rows::{Average, log_softmax, weighted_cross_entropy};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::Answers;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `nkd`.
pub static METHOD: Method = Method {
    name: "nkd",
    about: "normalised soft targets",
    cite: "Yang et al. 2023",
    knowledge: Knowledge::Response,
    needs_labels: true,
    needs_whole_batch: false,
    formula: "`-p_teacher[y] · ln p_student[y] - gamma · temperature² · Σ_{k ≠ y} r_teacher[k] · ln r_student[k]`: p at \
        temperature 1, r the distribution over the classes other than the label y, at the temperature. With two \
        classes the second part is 0. CE beside it. Several teachers: the mean of their probabilities at the temperature; \
        p_teacher[y] is that mean's at temperature 1, not the mean of theirs, unless the temperature is 1.",
    source: "Yang et al. 2023 (arXiv 2303.13005) eq. 5",
    weight: Weight { usual: 1.0, source: "the authors'", forms: &[] },
    recipe: "terms = [{ method = \"nkd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `nkd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "what the logits of the other classes are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
    Spec {
        name: "gamma",
        about: "factor of the part of the other classes",
        kind: Kind::Number { default: 1.5, range: Range::NotNegative },
    },
    AVERAGE,
];

/// `-p_t[y] ln p_s[y] - gamma · temperature² · Σ_{k≠y} r_t ln r_s`, mean over the batch, of logits `[batch, classes]`; gives
/// both parts, the second without gamma and temperature². `d_student` is overwritten with the gradient of the weighted
/// sum. Yang et al. 2023 (arXiv 2303.13005) eq. 5.
pub fn normalized<T: Real>(
    [student, teacher]: [&[T]; 2],
    labels: &[usize],
    temperature: T,
    gamma: T,
    d_student: &mut [T],
) -> [T; 2] {
    let classes = student.len() / labels.len().max(1);
    let (inverse, share) = (T::ONE / temperature, T::ONE / T::from_usize(labels.len()));
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let (mut log_s, mut log_t) = (Vec::new(), Vec::new());
    let mut d_rest = vec![T::ZERO; classes.saturating_sub(1)];
    let mut totals = [0.0; 2];
    for (((student, teacher), d), &label) in rows.zip(labels) {
        log_softmax(student, T::ONE, &mut log_s);
        log_softmax(teacher, T::ONE, &mut log_t);
        let mut target = vec![T::ZERO; classes];
        target[label] = log_t[label].exp();
        totals[0] += weighted_cross_entropy(&log_s, &target, T::ONE, share, d).to_f64();
        let rest = |row: &[T]| [&row[..label], &row[label + 1..]].concat();
        log_softmax(&rest(student), inverse, &mut log_s);
        log_softmax(&rest(teacher), inverse, &mut log_t);
        let others: Vec<T> = log_t.iter().map(|log| log.exp()).collect();
        let factor = gamma * temperature * temperature * share;
        totals[1] += weighted_cross_entropy(&log_s, &others, inverse, factor, &mut d_rest).to_f64();
        let places = (0..classes).filter(|&k| k != label);
        places.zip(&d_rest).for_each(|(k, &d_other)| d[k] += d_other);
    }
    totals.map(|total| T::from_f64(total) * share)
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (temperature, gamma) = (temperature(options)? as f32, options.number("gamma") as f32);
    note_two_classes(pair);
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        gpu::losses::labelled::normalized(seen, Answers::of(seen, classes), temperature, gamma, given);
        Ok(())
    };
    answers(options, pair, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        let parts = normalized([seen.student, seen.teacher], seen.batch.labels, temperature, gamma, d);
        parts[0] + gamma * temperature * temperature * parts[1]
    })
}
