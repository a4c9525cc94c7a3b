//! Binary cross-entropy with the true classes.

use super::{Given, Seen, TARGET};
use crate::gpu::Args;

/// What logits should be.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Share of each target that is spread evenly over all classes.
    pub smoothing: f32,
    /// Whether both classes of a mixed sample are true, as if each were alone.
    pub is_whole: bool,
    /// What sums over the elements are times.
    pub factor: f32,
}

/// As [`binary_cross_entropy`](crate::losses::bce::binary_cross_entropy) of the student's only tap, a row a sample;
/// samples whose class is not known add nothing.
pub fn binary_cross_entropy(seen: &Seen<'_>, classes: usize, form: Form, given: &mut Given<'_>) {
    let Form { smoothing, is_whole, factor } = form;
    let (logits, d, rows) = (seen.student[0], &mut *given.d_student[0], seen.batch.size);
    assert!([logits.len(), d.len()] == [rows * classes; 2] && given.sums.len() >= rows, "a row for each sample");
    assert_eq!(seen.targets.len(), TARGET * rows, "a target for each sample");
    let args = Args::none().read(logits).read(seen.targets).write(d).write(given.sums).number(classes).flag(is_whole);
    // SAFETY: binary_cross_entropy: arrays of these shapes.
    unsafe { seen.gpu.groups("binary_cross_entropy", rows, &args.float(factor).float(smoothing)) };
    given.total(seen.gpu, rows, factor, false);
}
