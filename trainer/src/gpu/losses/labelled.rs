//! Soft targets of samples whose class is known.

use kd_runtime::Result;

use super::kd::{Form, soft_targets};
use super::{Answers, Given, Part, Seen, TARGET, make_room};
use crate::gpu::Args;
use crate::losses::rows::Reduction;
use crate::ops::kernels::buffer::Buffer;

/// As [`decoupled`](crate::losses::dkd::decoupled), both parts weighted and together.
pub fn decoupled(
    seen: &Seen<'_>,
    answers: Answers<'_>,
    temperature: f32,
    [alpha, beta]: [f32; 2],
    given: &mut Given<'_>,
) {
    let scale = temperature * temperature / seen.batch.size as f32;
    rows("decoupled_answers", seen, answers, [temperature, scale], &[alpha, beta], false, given);
}

/// As [`normalized`](crate::losses::nkd::normalized), both parts weighted and together.
pub fn normalized(seen: &Seen<'_>, answers: Answers<'_>, temperature: f32, gamma: f32, given: &mut Given<'_>) {
    let (share, factor) = (1.0 / seen.batch.size as f32, gamma * temperature * temperature);
    rows("normalized_answers", seen, answers, [temperature, share], &[factor], false, given);
}

/// As [`weighted_soft_labels`](crate::losses::wsld::weighted_soft_labels) with its
/// [`weights`](crate::losses::wsld::weights).
pub fn weighted_soft_labels(seen: &Seen<'_>, answers: Answers<'_>, temperature: f32, given: &mut Given<'_>) {
    let scale = temperature * temperature / seen.batch.size as f32;
    rows("weighted_answers", seen, answers, [temperature, scale], &[], false, given);
}

/// As [`adapted_target`](crate::losses::ofa::adapted_target); `add`: whether its value is added to what is there.
pub fn adapted_target(
    seen: &Seen<'_>,
    answers: Answers<'_>,
    temperature: f32,
    exponent: f32,
    add: bool,
    given: &mut Given<'_>,
) {
    let share = 1.0 / seen.batch.size as f32;
    rows("adapted_answers", seen, answers, [temperature, share], &[exponent], add, given);
}

/// As [`hand_made`](crate::losses::tf_kd::hand_made); `own`: room for the logits of the hand-made teacher, `correct` at
/// the class and `rest` elsewhere.
pub fn hand_made(
    seen: &Seen<'_>,
    classes: usize,
    [correct, rest]: [f32; 2],
    reduction: Reduction,
    own: &mut Buffer<f32>,
    given: &mut Given<'_>,
) -> Result<()> {
    let n = seen.batch.size * classes;
    check_classes(seen, classes);
    make_room(seen.gpu, own, n)?;
    let args = Args::none().read(seen.targets).write(own.raw_mut()).number(n).number(classes);
    // SAFETY: hand_made_answers: n logits, a target for each row of them.
    unsafe { seen.gpu.each("hand_made_answers", n, &args.float(correct).float(rest)) };
    let answers = Answers { tap: 0, student: seen.student[0], teacher: &own.raw()[..n], classes };
    let form = Form { temperature: 1.0, reduction, tau2: false, standardize: false };
    soft_targets(seen, answers, form, Part::WHOLE, given);
    Ok(())
}

/// As [`class_wise`](crate::losses::cs_kd::class_wise) of the student's own logits with its
/// [`partners`](crate::losses::cs_kd::partners); `own`: room for theirs.
pub fn class_wise(
    seen: &Seen<'_>,
    classes: usize,
    temperature: f32,
    own: &mut Buffer<f32>,
    given: &mut Given<'_>,
) -> Result<()> {
    let (student, rows) = (seen.student[0], seen.batch.size);
    let n = rows * classes;
    assert!(student.len() == n && seen.targets.len() == TARGET * rows, "logits and a target for each sample");
    make_room(seen.gpu, own, n)?;
    let args = Args::none().read(student).read(seen.targets).write(own.raw_mut()).number(classes).number(rows);
    // SAFETY: partner_answers: arrays of these shapes.
    unsafe { seen.gpu.groups("partner_answers", rows, &args) };
    let answers = Answers { tap: 0, student, teacher: &own.raw()[..n], classes };
    let form = Form { temperature, reduction: Reduction::BatchMean, tau2: true, standardize: false };
    soft_targets(seen, answers, form, Part::WHOLE, given);
    Ok(())
}

/// Sees that kernels may look at the logit of each sample's class.
///
/// # Panics
///
/// If a class is not known, as the host does: these losses are refused beside such samples.
fn check_classes(seen: &Seen<'_>, classes: usize) {
    assert_eq!(seen.targets.len(), TARGET * seen.batch.size, "a target for each sample");
    assert!(seen.batch.labels.iter().all(|&label| label < classes), "a class for each sample");
}

/// Queues a kernel of labelled.cu, of a temperature, of what value and gradient are times, and of more numbers; `add`:
/// whether the value is added to what is there.
fn rows(
    kernel: &'static str,
    seen: &Seen<'_>,
    answers: Answers<'_>,
    [temperature, scale]: [f32; 2],
    more: &[f32],
    add: bool,
    given: &mut Given<'_>,
) {
    let Answers { tap, student, teacher, classes } = answers;
    let (d, rows) = (&mut *given.d_student[tap], seen.batch.size);
    assert!([student.len(), teacher.len(), d.len()] == [rows * classes; 3], "a row for each sample");
    assert!(given.sums.len() >= rows, "a sum for each sample");
    check_classes(seen, classes);
    let args = Args::none().read(student).read(teacher).read(seen.targets).write(d).write(given.sums).number(classes);
    let args = more.iter().fold(args.float(1.0 / temperature).float(scale), |args, &x| args.float(x));
    // SAFETY: labelled.cu: arrays of these shapes; classes of samples below `classes`.
    unsafe { seen.gpu.groups(kernel, rows, &args) };
    given.total(seen.gpu, rows, scale, add);
}
