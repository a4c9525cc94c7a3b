//! Losses that read one value of each network: everything but the formula.

use kd_runtime::{Refusal, Result};

use super::rows::{AVERAGES, Average};
use super::{Batch, Loss, Pair, columns};
use crate::data::UNLABELLED;
use crate::exec::Parameter;
use crate::gpu;
use crate::options::{Kind, Options, Spec};

/// The least and the largest temperature: beyond them squares and inverses leave f32, or rounding is all that is left.
pub const TEMPERATURES: [f64; 2] = [1e-3, 1e4];

/// The option `temperature`, refused outside [`TEMPERATURES`].
pub fn temperature(options: &Options) -> Result<f64> {
    within("temperature", options.number("temperature"), TEMPERATURES)
}

/// An option's number, refused outside bounds that are tighter than its range.
pub fn within(option: &str, number: f64, [least, most]: [f64; 2]) -> Result<f64> {
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    let expected = format!("a number from {least} to {most}");
    Err(Refusal::new(format!("option `{option}`"), expected, format!("{number:?}"), "set it within these bounds"))
}

/// The option `student` of a method of answers.
pub const STUDENT_LOGITS: Spec =
    Spec { name: "student", about: "tap with the student's logits", kind: Kind::Text { default: "logits" } };

/// The option `teacher` of a method of answers.
pub const TEACHER_LOGITS: Spec =
    Spec { name: "teacher", about: "tap with the teacher's logits", kind: Kind::Text { default: "logits" } };

/// The option `average` of a method of answers.
pub const AVERAGE: Spec = Spec {
    name: "average",
    about: "what is averaged over several teachers",
    kind: Kind::Choice { default: "probabilities", known: AVERAGES },
};

/// The option `student` of a method of relations.
pub const STUDENT_FEATURES: Spec =
    Spec { name: "student", about: "tap of the student; a row a sample", kind: Kind::Text { default: "features" } };

/// The option `teacher` of a method of relations.
pub const TEACHER_FEATURES: Spec = Spec {
    name: "teacher",
    about: "tap of the teacher; a row a sample, of any length",
    kind: Kind::Text { default: "features" },
};

/// What a formula is given.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The samples.
    pub batch: &'a Batch<'a>,
    /// `[batch, columns]`.
    pub student: &'a [f32],
    /// `[batch, columns]`, of its own columns.
    pub teacher: &'a [f32],
    /// Elements of a sample: the student's and the teacher's.
    pub columns: [usize; 2],
}

/// A formula by kernels, of rows of so many columns of the student and of the teacher.
pub type OnGpu = Box<dyn Fn(&gpu::losses::Seen<'_>, [usize; 2], &mut gpu::losses::Given<'_>) -> Result<()>>;

struct OneTap<F> {
    student: [String; 1],
    teacher: [String; 1],
    /// Whether both have a logit for each class.
    is_answer: bool,
    least: usize,
    average: Average,
    formula: F,
    on_gpu: Option<OnGpu>,
}

/// A loss of both networks' logits, with what a GPU does, if anything: the options `student` and `teacher` name them. Taps that have no
/// logit for each class are refused here, labels beyond them in the first step.
pub fn answers<F>(
    options: &Options,
    pair: &Pair<'_>,
    average: Average,
    on_gpu: Option<OnGpu>,
    formula: F,
) -> Result<Box<dyn Loss>>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32 + 'static,
{
    answers_of(options, pair, 1, average, on_gpu, formula)
}

/// The same, where `least` samples at once say anything.
pub fn answers_of<F>(
    options: &Options,
    pair: &Pair<'_>,
    least: usize,
    average: Average,
    on_gpu: Option<OnGpu>,
    formula: F,
) -> Result<Box<dyn Loss>>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32 + 'static,
{
    let student = [pair.student_answer(options.text("student"))?.name];
    let teacher = [pair.teacher_answer(options.text("teacher"))?];
    Ok(Box::new(OneTap { student, teacher, is_answer: true, least, average, formula, on_gpu }))
}

/// A loss of how samples lie to each other in a value of each network, with what a GPU does, if anything; `least` of
/// them at once say anything.
pub fn relations<F>(
    options: &Options,
    pair: &Pair<'_>,
    least: usize,
    on_gpu: Option<OnGpu>,
    formula: F,
) -> Result<Box<dyn Loss>>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32 + 'static,
{
    let (student, teacher) = pair.one(options.text("student"), options.text("teacher"))?;
    let (student, teacher) = ([student.name], [teacher.name]);
    Ok(Box::new(OneTap { student, teacher, is_answer: false, least, average: Average::default(), formula, on_gpu }))
}

impl<F> OneTap<F> {
    /// Elements of a sample: the student's and the teacher's. Refuses answers and labels that do not fit together.
    fn columns(&self, batch: &Batch<'_>, student: &[f32], teacher: &[f32]) -> Result<[usize; 2]> {
        let columns = [columns(&self.student[0], student, batch)?, columns(&self.teacher[0], teacher, batch)?];
        if self.is_answer {
            if columns[0] != columns[1] {
                let expected = format!("{} logits a sample of the teacher, as of the student", columns[0]);
                let action = "give student and teacher the same classes";
                return Err(Refusal::new(format!("tap `{}`", self.teacher[0]), expected, columns[1], action));
            }
            check_labels(batch, columns[0])?;
        }
        Ok(columns)
    }
}

impl<F> gpu::losses::Kernel for OneTap<F> {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let columns = self.columns(seen.batch, seen.student[0], seen.teacher[0])?;
        self.on_gpu.iter().try_for_each(|on_gpu| on_gpu(seen, columns, given))
    }
}

impl<F> Loss for OneTap<F>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32,
{
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn average(&self) -> Average {
        self.average
    }

    fn least_batch(&self) -> usize {
        self.least
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        if self.on_gpu.is_some() { Some(self) } else { None }
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
        let columns = self.columns(batch, student, teacher)?;
        Ok((self.formula)(&Seen { batch, student, teacher, columns }, &mut *d_student[0]))
    }
}

/// The number of logits of a sample in a tap. Refuses a tap without rows for the samples, and a label that has no logit.
pub fn logits(tap: &str, values: &[f32], batch: &Batch<'_>) -> Result<usize> {
    let classes = columns(tap, values, batch)?;
    check_labels(batch, classes)?;
    Ok(classes)
}

/// Refuses a label that has no logit. Samples without a label pass.
fn check_labels(batch: &Batch<'_>, classes: usize) -> Result<()> {
    let others = batch.mixed.iter().map(|(label, _)| label);
    match batch.labels.iter().chain(others).find(|&&label| label >= classes && label != UNLABELLED) {
        None => Ok(()),
        Some(&label) => {
            let action = "give the network an output for every class";
            Err(Refusal::new("label", format!("a class below {classes}"), label, action))
        }
    }
}
