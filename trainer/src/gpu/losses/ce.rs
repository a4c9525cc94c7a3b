//! Cross-entropy with the true classes.

use super::{Given, Part, Seen};
use crate::gpu::Args;
use crate::losses::ce::Targets;

/// What logits should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Smoothing, and weights of the classes as the host has them.
    pub targets: &'a Targets<f32>,
    /// Those weights, on the GPU; empty where all are 1.
    pub weights: &'a [f32],
    /// How many samples the mean is over.
    pub labelled: f64,
}

/// As [`cross_entropy`](crate::losses::ce::cross_entropy), its mean; of the student's tap of this number, `[samples, classes]`.
pub fn cross_entropy(
    seen: &Seen<'_>,
    tap: usize,
    classes: usize,
    wanted: Wanted<'_>,
    part: Part,
    given: &mut Given<'_>,
) {
    let (logits, d) = (seen.student[tap], &mut *given.d_student[tap]);
    let Wanted { targets, weights, labelled } = wanted;
    let rows = seen.batch.size;
    let factor = if labelled > 0.0 { (f64::from(part.weight) / labelled) as f32 } else { 0.0 };
    assert!([logits.len(), d.len()] == [rows * classes; 2] && given.sums.len() >= rows, "a row for each sample");
    assert!(weights.len() == classes || weights.is_empty(), "a weight for each class");
    let args = Args::none().read(logits).read(seen.targets).read(weights).write(d).write(given.sums).number(classes);
    let args = args.flag(part.add).float(factor).float(targets.smoothing).float(targets.weights.iter().sum());
    // SAFETY: cross_entropy: arrays of these shapes; labels below `classes`.
    unsafe { seen.gpu.groups("cross_entropy", rows, &args) };
    given.total(seen.gpu, rows, factor, part.add);
}
