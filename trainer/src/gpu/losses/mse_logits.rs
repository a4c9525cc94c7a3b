//! Regression of logits.

use super::{Answers, Given, Seen};
use crate::gpu::Args;

/// As [`logit_regression`](crate::losses::mse_logits::logit_regression).
pub fn logit_regression(seen: &Seen<'_>, answers: Answers<'_>, center: bool, factor: f32, given: &mut Given<'_>) {
    let Answers { tap, student, teacher, classes } = answers;
    let (d, rows) = (&mut *given.d_student[tap], seen.batch.size);
    assert!([student.len(), teacher.len(), d.len()] == [rows * classes; 3], "a row for each sample");
    assert!(given.sums.len() >= rows, "a sum for each sample");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).number(classes).flag(center);
    // SAFETY: logit_regression: arrays of these shapes.
    unsafe { seen.gpu.groups("logit_regression", rows, &args.float(factor)) };
    given.total(seen.gpu, rows, factor, false);
}
