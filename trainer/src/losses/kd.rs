//! Soft targets.

use kd_runtime::{Refusal, Result};

use super::rows::{REDUCTIONS, Reduction, log_sum_exp};
use super::{Batch, Knowledge, Loss, Method, Pair};
use crate::exec::{Parameter, Real};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `kd`.
pub static METHOD: Method = Method {
    name: "kd",
    about: "soft targets (Hinton et al. 2015)",
    knowledge: Knowledge::Response,
    formula: "`temperature² · KL(p_teacher ‖ p_student)` with `p = softmax(logits / temperature)`, in nats. Gradient by the student's \
        logits: `temperature · (p_student - p_teacher) / batch`. With several teachers, `p_teacher` is the weighted mean of their \
        probabilities at that temperature.\n\n\
        Other code differs: RepDistiller's and mdistiller's `0.1 CE + 0.9 KD` is `task_weight = 0.1`, `weight = 0.9`; a seed \
        paper's literal sums are `reduction = \"sum\"`, `tau2 = false`; `KLDivLoss()` at its default (Teacher-free-KD, DeiT) is \
        `reduction = \"mean\"`, which weighs the term by 1/classes; KD4TSC and AB_distillation leave out temperature² \
        (`tau2 = false`).",
    source: "Hinton, Vinyals, Dean 2015 (arXiv 1503.02531) §2",
    options: OPTIONS,
    build,
};

/// Options of the method `kd`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "student", about: "tap with the student's logits", kind: Kind::Text { default: "logits" } },
    Spec { name: "teacher", about: "tap with the teacher's logits", kind: Kind::Text { default: "logits" } },
    Spec {
        name: "temperature",
        about: "what both logits are divided by",
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
    let mut total = 0.0;
    for ((student, teacher), d_row) in rows {
        let (shift_s, shift_t) = (log_sum_exp(student, inverse), log_sum_exp(teacher, inverse));
        let mut value = T::ZERO;
        for ((d, &s), &t) in d_row.iter_mut().zip(student).zip(teacher) {
            let (log_s, log_t) = (s * inverse - shift_s, t * inverse - shift_t);
            let (p_s, p_t) = (log_s.exp(), log_t.exp());
            if p_t != T::ZERO {
                value += p_t * (log_t - log_s);
            }
            *d = (p_s - p_t) * inverse * scale;
        }
        total += value.to_f64();
    }
    T::from_f64(total) * scale
}

struct SoftTargets {
    student: [String; 1],
    teacher: [String; 1],
    temperature: f32,
    reduction: Reduction,
    tau2: bool,
}

/// The method `kd`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(SoftTargets {
        student: [pair.student(options.text("student"))?.name],
        teacher: [options.text("teacher").to_string()],
        temperature: options.number("temperature") as f32,
        reduction: Reduction::of(options.text("reduction")),
        tau2: options.flag("tau2"),
    }))
}

impl Loss for SoftTargets {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let (student, teacher) = (student[0], teacher[0]);
        let classes = super::columns(&self.student[0], student, batch)?;
        let taught = super::columns(&self.teacher[0], teacher, batch)?;
        if classes != taught {
            let action = "give student and teacher the same classes";
            return Err(Refusal::new("kd", format!("{classes} teacher logits a sample"), taught, action));
        }
        let d_student = &mut *d_student[0];
        Ok(soft_targets(student, teacher, classes, self.temperature, self.reduction, self.tau2, d_student))
    }
}
