//! Overhaul of feature distillation.

use super::{Given, groups};
use crate::gpu::{Args, Gpu};

/// As [`partial_distance`](crate::losses::ofd::partial_distance), of the student's only tap; `add`: whether the value
/// is added to what is there.
pub fn partial_distance(
    gpu: &Gpu,
    add: bool,
    [student, teacher]: [&[f32]; 2],
    (margins, places): (&[f32], usize),
    factor: f32,
    given: &mut Given<'_>,
) {
    let (d, n) = (&mut *given.d_student[0], student.len());
    assert!([teacher.len(), d.len()] == [n; 2] && given.sums.len() >= groups(n), "arrays of one shape");
    assert!(n.is_multiple_of(margins.len() * places), "a margin for each channel");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).read(margins);
    let args = args.numbers(&[n, places, margins.len()]).float(factor);
    // SAFETY: distance_partial: arrays of n elements, a sum for each group, a margin for each channel.
    unsafe { gpu.groups("distance_partial", groups(n), &args) };
    given.total(gpu, groups(n), factor, add);
}
