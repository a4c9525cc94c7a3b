//! Soft targets.

use kd_runtime::Result;

use super::rows::{Average, REDUCTIONS, Reduction, divergence, log_softmax};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::{Answers, Part};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `kd`.
pub static METHOD: Method = Method {
    name: "kd",
    about: "soft targets",
    cite: "Hinton et al. 2015",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`temperature² · KL(p_teacher ‖ p_student)` with `p = softmax(logits / temperature)`, in nats. Gradient by \
        the student's logits: `temperature · (p_student - p_teacher) / batch`. With several teachers, `p_teacher` is \
        the weighted mean of their probabilities at that temperature, or the softmax of the weighted mean of their \
        logits (`average = \"logits\"`).\n\n\
        Other code differs: RepDistiller's and mdistiller's `0.1 CE + 0.9 KD` is `task_weight = 0.1`, `weight = \
        0.9`; a seed paper's literal sum of \
        divergences is `reduction = \"sum\"`, `tau2 = false`, which beside the mean of the labels counts batch times as much \
        (a note says so): divide `weight` by the batch to have its ratio; `KLDivLoss()` at its default \
        (Teacher-free-KD, DeiT) is `reduction = \"mean\"`, which weighs the term by 1/classes; KD4TSC and \
        AB_distillation leave out temperature² (`tau2 = false`).\n\n\
        `standardize` replaces the logits of both sides by their z-scores, `(z - mean) / (std + 1e-7)` over the \
        classes with the unbiased deviation (logit standardization: Sun et al. 2024, arXiv 2403.01427; there \
        temperature 2, weight 9 beside 0.1 CE). A row whose deviation is at most a millionth of its largest logit (either \
        sign) counts as one of equal logits: its z-scores are 0, and it gets no gradient. Of two classes z-scores are ±0.7071 \
        whatever the logits are, so that nothing is taught; a note says so.",
    source: "Hinton, Vinyals, Dean 2015 (arXiv 1503.02531) §2",
    weight: Weight {
        usual: 1.0,
        source: "Hinton et al. with temperature², beside the labels at 1; RepDistiller has 0.9 beside 0.1",
        forms: &[],
    },
    recipe: "terms = [{ method = \"kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `kd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 4.0, range: Range::Positive },
    },
    Spec {
        name: "reduction",
        about: "sum over classes, then mean over the batch (`batchmean`), `sum` over both, or `mean` over both",
        kind: Kind::Choice { default: "batchmean", known: REDUCTIONS },
    },
    Spec {
        name: "tau2",
        about: "whether to multiply by temperature², so that weights compare across temperatures",
        kind: Kind::Flag { default: true },
    },
    Spec {
        name: "standardize",
        about: "whether logits are replaced by their z-scores over the classes",
        kind: Kind::Flag { default: false },
    },
    AVERAGE,
];

/// `temperature² · KL(p_teacher ‖ p_student)`, `p = softmax(logits / temperature)`, mean over the batch, in nats.
///
/// * `student`, `teacher`: logits `[batch, classes]`. Nothing flows into the teacher; no adapter.
/// * `d_student`: overwritten with `temperature · (p_student - p_teacher) / batch`.
/// * A class to which the teacher gives probability 0 adds 0; the logarithm of a softmax is never taken of the softmax.
/// * With `tau2` false the factor temperature² is left out; other reductions divide by 1 or by batch · classes.
///
/// Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531) §2. Official code differs: AB_distillation and KD4TSC leave out
/// temperature², Teacher-free-KD and DeiT divide by batch · classes (`KLDivLoss()`'s default), torchdistill drops
/// temperature² when its `alpha` is 0. RepDistiller's and mdistiller's `0.1 CE + 0.9 KD` and the convex form
/// `(1 - a) CE + a KD` are this loss with `task_weight` and `weight`; there is no `alpha` here.
pub fn soft_targets<T: Real>(
    student: &[T],
    teacher: &[T],
    classes: usize,
    temperature: T,
    reduction: Reduction,
    tau2: bool,
    d_student: &mut [T],
) -> T {
    let batch = student.len() / classes.max(1);
    let inverse = T::ONE / temperature;
    let scale = T::from_f64(reduction.factor(batch, classes)) * if tau2 { temperature * temperature } else { T::ONE };
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let (mut log_s, mut log_t) = (Vec::with_capacity(classes), Vec::with_capacity(classes));
    let mut total = 0.0;
    for ((student, teacher), d_row) in rows {
        log_softmax(student, inverse, &mut log_s);
        log_softmax(teacher, inverse, &mut log_t);
        total += divergence(&log_s, &log_t).to_f64();
        for ((d, &s), &t) in d_row.iter_mut().zip(&log_s).zip(&log_t) {
            *d = (s.exp() - t.exp()) * inverse * scale;
        }
    }
    T::from_f64(total) * scale
}

/// Replaces each row of `logits` by its z-scores `(z - mean) / (std + 1e-7)`, with the unbiased deviation (`classes - 1`);
/// gives each row's deviation. Of equal logits, up to rounding, both are 0. Sun et al. 2024 (arXiv 2403.01427) eq. 9.
pub fn standardize<T: Real>(logits: &mut [T], classes: usize) -> Vec<T> {
    let rows = logits.chunks_exact_mut(classes);
    let standardized = rows.map(|row| {
        let mut largest = T::ZERO;
        row.iter().for_each(|z| largest = largest.max(z.abs()));
        let mean = row.iter().fold(T::ZERO, |sum, &z| sum + z) / T::from_usize(classes);
        row.iter_mut().for_each(|z| *z -= mean);
        let squares = row.iter().fold(T::ZERO, |sum, &z| sum + z * z);
        let deviation = (squares / T::from_usize(classes.max(2) - 1)).sqrt();
        if deviation <= largest * T::from_f64(EQUAL) {
            row.fill(T::ZERO);
            return T::ZERO;
        }
        row.iter_mut().for_each(|z| *z = *z / (deviation + T::from_f64(EPSILON)));
        deviation
    });
    standardized.collect()
}

/// What is added to a deviation.
const EPSILON: f64 = 1e-7;
/// Of a row's largest logit: up to so large a deviation is rounding. Divided by, it would be the student's gradient.
const EQUAL: f64 = 1e-6;

/// Turns gradients by z-scores into those by the logits: `(d - mean(d)) / (std + ε) - z · Σ d z / ((classes - 1) std)`. A row
/// of equal logits has no direction to change in: 0.
pub fn standardize_backward<T: Real>(scores: &[T], deviations: &[T], classes: usize, d: &mut [T]) {
    let rows = scores.chunks_exact(classes).zip(d.chunks_exact_mut(classes)).zip(deviations);
    for ((scores, d), &deviation) in rows {
        if deviation == T::ZERO {
            d.fill(T::ZERO);
            continue;
        }
        let mean = d.iter().fold(T::ZERO, |sum, &d| sum + d) / T::from_usize(classes);
        let along = scores.iter().zip(&*d).fold(T::ZERO, |sum, (&z, &d)| sum + z * d);
        let along = along / (T::from_usize(classes.max(2) - 1) * deviation);
        let inverse = T::ONE / (deviation + T::from_f64(EPSILON));
        d.iter_mut().zip(scores).for_each(|(d, &z)| *d = (*d - mean) * inverse - z * along);
    }
}

/// The method `kd`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (temperature, tau2) = (temperature(options)? as f32, options.flag("tau2"));
    let reduction = Reduction::of(options.text("reduction"));
    let average = Average::of(options.text("average"));
    let z_scores = options.flag("standardize");
    if z_scores && pair.classes == 2 {
        let note = "teaches nothing with `standardize`: of two classes z-scores are ±0.7071 whatever the logits are";
        pair.notes.push(note.into());
    }
    let form = gpu::losses::kd::Form { temperature, reduction, tau2, standardize: z_scores };
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        gpu::losses::kd::soft_targets(seen, Answers::of(seen, classes), form, Part::WHOLE, given);
        Ok(())
    };
    answers(options, pair, average, Some(Box::new(on_gpu)), move |seen, d| {
        let classes = seen.columns[0];
        if !z_scores {
            return soft_targets(seen.student, seen.teacher, classes, temperature, reduction, tau2, d);
        }
        let (mut student, mut teacher) = (seen.student.to_vec(), seen.teacher.to_vec());
        let deviations = standardize(&mut student, classes);
        standardize(&mut teacher, classes);
        let value = soft_targets(&student, &teacher, classes, temperature, reduction, tau2, d);
        standardize_backward(&student, &deviations, classes, d);
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value and gradient of z-scores at temperature 2.
    fn of<T: Real>(student: &[T], teacher: &[T], classes: usize) -> (T, Vec<T>) {
        let (mut z_s, mut z_t, mut d) = (student.to_vec(), teacher.to_vec(), vec![T::ONE; student.len()]);
        let deviations = standardize(&mut z_s, classes);
        standardize(&mut z_t, classes);
        let value = soft_targets(&z_s, &z_t, classes, T::from_f64(2.0), Reduction::BatchMean, true, &mut d);
        standardize_backward(&z_s, &deviations, classes, &mut d);
        (value, d)
    }

    /// Ten times 0.1 is not 1 in f32: what is left of the mean is no direction.
    #[test]
    fn rows_of_equal_logits_have_no_gradient_whatever_their_sum_rounds_to() {
        let teacher: Vec<f32> = (0..10).map(|k| k as f32).collect();
        let flat = of(&[0.0; 10], &teacher, 10).0;
        for row in [[0.0_f32; 10], [0.1; 10], [-0.7; 10], [1e3; 10]] {
            assert_eq!(of(&row, &teacher, 10), (flat, vec![0.0; 10]), "{row:?}");
            assert_eq!(of(&teacher, &row, 10), of(&teacher, &[0.0; 10], 10), "{row:?}");
        }
        // Of 1 by a unit in the last place.
        let nearly: Vec<f32> = (0..10).map(|k| if k == 3 { 1.0 + f32::EPSILON } else { 1.0 }).collect();
        assert_eq!(of(&nearly, &teacher, 10), (flat, vec![0.0; 10]));
        // Of a thousandth there is one.
        let unlike: Vec<f32> = (0..10).map(|k| if k == 3 { 1.001 } else { 1.0 }).collect();
        assert!(of(&unlike, &teacher, 10).1.iter().any(|d| *d != 0.0));
        // Small logits are no equal ones.
        assert!(of(&teacher.iter().map(|z| z * 1e-6).collect::<Vec<_>>(), &teacher, 10).1[0] != 0.0);
        assert!(of(&[f32::NAN; 10], &teacher, 10).0.is_nan());
    }
}
