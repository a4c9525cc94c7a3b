//! Soft targets.

use super::{Answers, Given, Part, Seen};
use crate::gpu::Args;
use crate::losses::rows::Reduction;

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What both logits are divided by.
    pub temperature: f32,
    /// How the rows' values become one.
    pub reduction: Reduction,
    /// Whether to multiply by temperature².
    pub tau2: bool,
    /// Whether rows are replaced by their z-scores first.
    pub standardize: bool,
}

/// As [`soft_targets`](crate::losses::kd::soft_targets), of z-scores where the form says so.
pub fn soft_targets(seen: &Seen<'_>, answers: Answers<'_>, form: Form, part: Part, given: &mut Given<'_>) {
    let Form { temperature, reduction, tau2, standardize } = form;
    assert!(!(standardize && part.add), "z-scores have their gradient alone");
    let scale = reduction.factor(seen.batch.size, answers.classes) as f32;
    let scale = part.weight * scale * if tau2 { temperature * temperature } else { 1.0 };
    rows("soft_targets", seen, answers, standardize, [1.0 / temperature, scale], part, given);
}

/// The mean of the samples' [`weighted_cross_entropy`](crate::losses::rows::weighted_cross_entropy) with the teacher's softened
/// answers, times `scale`.
pub fn soft_cross_entropy(
    seen: &Seen<'_>,
    answers: Answers<'_>,
    [temperature, scale]: [f32; 2],
    part: Part,
    given: &mut Given<'_>,
) {
    let scale = part.weight * scale / seen.batch.size as f32;
    rows("soft_cross_entropy", seen, answers, false, [1.0 / temperature, scale], part, given);
}

/// The mean of the samples' squared differences of probabilities.
pub fn probability_regression(seen: &Seen<'_>, answers: Answers<'_>, given: &mut Given<'_>) {
    let scale = 1.0 / seen.batch.size as f32;
    rows("soft_cross_entropy", seen, answers, true, [1.0, scale], Part::WHOLE, given);
}

/// Queues a kernel of kd.cu, whose second float is the factor of its value too.
fn rows(
    kernel: &'static str,
    seen: &Seen<'_>,
    answers: Answers<'_>,
    flag: bool,
    floats: [f32; 2],
    part: Part,
    given: &mut Given<'_>,
) {
    let Answers { tap, student, teacher, classes } = answers;
    let (d, rows) = (&mut *given.d_student[tap], seen.batch.size);
    assert!([student.len(), teacher.len(), d.len()] == [rows * classes; 3], "a row for each sample");
    assert!(given.sums.len() >= rows, "a sum for each sample");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).number(classes);
    let args = args.flag(flag).flag(part.add).float(floats[0]).float(floats[1]);
    // SAFETY: kd.cu: arrays of these shapes.
    unsafe { seen.gpu.groups(kernel, rows, &args) };
    given.total(seen.gpu, rows, floats[1], part.add);
}
