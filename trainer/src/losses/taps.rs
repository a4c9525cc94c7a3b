//! Losses that read one value of each network: everything but the formula.

use kd_runtime::{Refusal, Result};

use super::rows::Average;
use super::{Batch, Loss, Pair, columns};
use crate::data::UNLABELLED;
use crate::exec::Parameter;
use crate::options::{Kind, Options, Spec};

/// The option `student` of a method of answers.
pub const STUDENT_LOGITS: Spec =
    Spec { name: "student", about: "tap with the student's logits", kind: Kind::Text { default: "logits" } };

/// The option `teacher` of a method of answers.
pub const TEACHER_LOGITS: Spec =
    Spec { name: "teacher", about: "tap with the teacher's logits", kind: Kind::Text { default: "logits" } };

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

struct OneTap<F> {
    student: [String; 1],
    teacher: [String; 1],
    /// Whether both have a logit for each class.
    is_answer: bool,
    least: usize,
    average: Average,
    formula: F,
}

/// A loss of both networks' logits: the options `student` and `teacher` name them. Taps that have no logit for each class are
/// refused here, labels beyond them in the first step.
pub fn answers<F>(options: &Options, pair: &Pair<'_>, average: Average, formula: F) -> Result<Box<dyn Loss>>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32 + 'static,
{
    let student = [pair.student_answer(options.text("student"))?.name];
    let teacher = [pair.teacher_answer(options.text("teacher"))?];
    Ok(Box::new(OneTap { student, teacher, is_answer: true, least: 1, average, formula }))
}

/// A loss of how samples lie to each other in a value of each network; `least` of them at once say anything.
pub fn relations<F>(options: &Options, pair: &Pair<'_>, least: usize, formula: F) -> Result<Box<dyn Loss>>
where
    F: Fn(&Seen<'_>, &mut [f32]) -> f32 + 'static,
{
    let student = [pair.student(options.text("student"))?.name];
    let teacher = [pair.teacher(options.text("teacher"))?.name];
    Ok(Box::new(OneTap { student, teacher, is_answer: false, least, average: Average::default(), formula }))
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

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let (student, teacher) = (student[0], teacher[0]);
        let columns = [columns(&self.student[0], student, batch)?, columns(&self.teacher[0], teacher, batch)?];
        if self.is_answer {
            if columns[0] != columns[1] {
                let expected = format!("{} logits a sample of the teacher, as of the student", columns[0]);
                let action = "give student and teacher the same classes";
                return Err(Refusal::new(format!("tap `{}`", self.teacher[0]), expected, columns[1], action));
            }
            check_labels(batch, columns[0])?;
        }
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
