//! Distances of features.

use super::{Given, groups};
use crate::gpu::{Args, Gpu};
use crate::losses::fitnets::Distance;

/// As [`total_distance`](crate::losses::fitnets::total_distance), with the gradient by the student's tap of this number; `add`:
/// whether the value is added to what is there.
pub fn total_distance(
    gpu: &Gpu,
    tap: usize,
    add: bool,
    sides: [&[f32]; 2],
    distance: Distance<f32>,
    factor: f32,
    given: &mut Given<'_>,
) {
    let (kernel, delta, over) = match distance {
        Distance::Squared => ("distance_squared", 0.0, 0.0),
        Distance::Absolute => ("distance_absolute", 0.0, 0.0),
        Distance::Huber(delta) => ("distance_huber", delta, 1.0),
        Distance::SmoothL1(delta) => ("distance_huber", delta, 1.0 / delta),
    };
    pairs(gpu, kernel, tap, add, sides, [factor, delta, over], given);
}

/// Queues a kernel of pairs.cu; the first float is the factor of its value too.
pub(super) fn pairs(
    gpu: &Gpu,
    kernel: &'static str,
    tap: usize,
    add: bool,
    [student, teacher]: [&[f32]; 2],
    floats: [f32; 3],
    given: &mut Given<'_>,
) {
    let d = &mut *given.d_student[tap];
    let n = student.len();
    assert!([teacher.len(), d.len()] == [n; 2] && given.sums.len() >= groups(n), "arrays of one shape");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).number(n);
    // SAFETY: pairs.cu: arrays of n elements, a sum for each group.
    unsafe { gpu.groups(kernel, groups(n), &floats.iter().fold(args, |args, &x| args.float(x))) };
    given.total(gpu, groups(n), floats[0], add);
}
