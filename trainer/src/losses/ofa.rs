//! Soft targets that lean on the label, at every stage of the student.

use kd_runtime::{Refusal, Result};

use super::pair::STAGES;
use super::rows::{log_softmax, weighted_cross_entropy};
use super::taps::{TEACHER_LOGITS, logits, temperature};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight, columns};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::gpu::losses::Answers;
use crate::options::{Kind, Options, Range, Spec};
use crate::zoo::layers::Conv;

/// The row of `ofa`.
pub static METHOD: Method = Method {
    name: "ofa",
    about: "one for all: every stage answers, for unlike networks",
    cite: "Hao et al. 2023",
    knowledge: Knowledge::Response,
    needs_labels: true,
    needs_whole_batch: false,
    formula: "sum over the student's logits and those of a projector behind each stage of `-mean_b Σ_k ((p_teacher + \
        y)^exponent - y) · ln p_student`, with y 1 at the label, else 0, and `p = softmax(logits / temperature)` of \
        both. An exponent above 1 leans on the true class. A projector is a 3x3 convolution, batch norm and ReLU, \
        the mean over places and a linear layer; of a vector, a linear layer. As published: exponent 1 to 1.5, \
        stages 1 to 4.",
    source: "Hao et al. 2023 (arXiv 2310.19444) eq. 6-8",
    weight: Weight { usual: 1.0, source: "the authors'", forms: &[] },
    recipe: "terms = [{ method = \"ofa\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `ofa`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "student", about: "tap with the student's logits", kind: Kind::Text { default: "logits" } },
    TEACHER_LOGITS,
    Spec {
        name: "at",
        about: "taps of the student that get a projector, with commas between, or all `stages`",
        kind: Kind::Text { default: STAGES },
    },
    Spec {
        name: "exponent",
        about: "of the teacher's probability, the true class's with 1 added",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
];

/// `-mean_b Σ_k ((p_t + y)^exponent - y) ln p_s` of logits `[batch, classes]`; both at the temperature. `d_student` is
/// overwritten. Hao et al. 2023 (arXiv 2310.19444) eq. 6.
pub fn adapted_target<T: Real>(
    student: &[T],
    teacher: &[T],
    labels: &[usize],
    temperature: T,
    exponent: T,
    d_student: &mut [T],
) -> T {
    let classes = student.len() / labels.len().max(1);
    let (inverse, share) = (T::ONE / temperature, T::ONE / T::from_usize(labels.len()));
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let (mut log_s, mut log_t) = (Vec::new(), Vec::new());
    let mut total = 0.0;
    for (((student, teacher), d), &label) in rows.zip(labels) {
        log_softmax(student, inverse, &mut log_s);
        log_softmax(teacher, inverse, &mut log_t);
        for (k, log) in log_t.iter_mut().enumerate() {
            *log = if k == label {
                // In f64: of one class of many, f32 would keep few digits of what is above 1.
                T::from_f64((exponent.to_f64() * log.exp().to_f64().ln_1p()).exp_m1())
            } else {
                (exponent * *log).exp()
            };
        }
        total += weighted_cross_entropy(&log_s, &log_t, inverse, share, d).to_f64();
    }
    T::from_f64(total) * share
}

struct Stages {
    /// Logits of the projectors, then of the student.
    student: Vec<String>,
    teacher: [String; 1],
    temperature: f32,
    exponent: f32,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let classes = pair.classes;
    let mut student = Vec::new();
    for (i, stage) in pair.student_taps(options.text("at"))?.iter().enumerate() {
        let tap = pair.adapt(stage, |net, prefix| {
            let name = format!("{prefix}.projector{}", i + 1);
            if let [channels, _, ..] = net.tail.shape[..] {
                net.conv_norm_relu(&name, &Conv::square(channels, 3, 1))?;
                net.global_average(&format!("{name}.features"));
            }
            net.linear(&format!("{name}.logits"), classes)
        })?;
        student.push(tap.name);
    }
    student.push(pair.student_answer(options.text("student"))?.name);
    let teacher = [pair.teacher_answer(options.text("teacher"))?];
    let (temperature, exponent) = (temperature(options)? as f32, options.number("exponent") as f32);
    Ok(Box::new(Stages { student, teacher, temperature, exponent }))
}

impl Stages {
    /// Logits of a sample. Refuses taps that have others than the teacher, and labels that have no logit.
    fn classes(&self, batch: &Batch<'_>, student: &[&[f32]], teacher: &[f32]) -> Result<usize> {
        let classes = logits(&self.teacher[0], teacher, batch)?;
        for (name, values) in self.student.iter().zip(student) {
            if columns(name, values, batch)? != classes {
                let expected = format!("{classes} logits a sample, as of the teacher");
                let action = "give student and teacher the same classes";
                return Err(Refusal::new(format!("tap `{name}`"), expected, values.len() / batch.size, action));
            }
        }
        Ok(classes)
    }
}

impl gpu::losses::Kernel for Stages {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let (teacher, &Self { temperature, exponent, .. }) = (seen.teacher[0], self);
        let classes = self.classes(seen.batch, seen.student, teacher)?;
        for (tap, &student) in seen.student.iter().enumerate() {
            let answers = Answers { tap, student, teacher, classes };
            gpu::losses::labelled::adapted_target(seen, answers, temperature, exponent, tap > 0, given);
        }
        Ok(())
    }
}

impl Loss for Stages {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        self.classes(batch, student, teacher[0])?;
        let mut total = 0.0;
        for (values, d) in student.iter().zip(d_student) {
            total += adapted_target(values, teacher[0], batch.labels, self.temperature, self.exponent, d);
        }
        Ok(total)
    }
}
