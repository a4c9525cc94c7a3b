//! The angle between features.

use super::{Given, SUMS};
use crate::gpu::{Args, GROUP, Gpu};

/// As [`angle`](crate::losses::cosine::angle), of the student's only tap; `add`: whether the value is added to what is
/// there.
pub fn angle(
    gpu: &Gpu,
    add: bool,
    [student, teacher]: [&[f32]; 2],
    channels: usize,
    places: usize,
    given: &mut Given<'_>,
) {
    let (d, rows) = (&mut *given.d_student[0], student.len() / channels);
    let count = rows.div_ceil(GROUP).clamp(1, SUMS);
    assert!([student.len(), teacher.len(), d.len()] == [rows * channels; 3], "arrays of one shape");
    assert!(rows.is_multiple_of(places) && given.sums.len() >= count, "places of samples, a sum for each group");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).numbers(&[rows, channels, places]);
    // SAFETY: angle: arrays of one shape, a sum for each group.
    unsafe { gpu.groups("angle", count, &args) };
    given.total(gpu, count, 1.0 / rows as f32, add);
}
