//! The losses that a GPU computes: each is its namesake in [`crate::losses`]. The others are the host's, to which what they read is
//! copied.

pub mod ab;
pub mod at;
pub mod attention_relation;
pub mod bce;
pub mod byot;
pub mod ce;
pub mod codistill;
pub mod cosine;
pub mod fitnets;
pub mod fsp;
pub mod joint;
pub mod kd;
pub mod labelled;
pub mod mse_logits;
pub mod nst;
pub mod ofd;
pub mod probabilities;
pub mod relations;
pub mod review;
pub mod soft_dtw;
pub mod srrl;
pub mod tinybert_attention;

use kd_runtime::Result;

use super::{Args, GROUP, Gpu};
use crate::data::UNLABELLED;
use crate::exec::Real;
use crate::losses::Batch;
use crate::ops::kernels::buffer::Buffer;

/// Numbers of a sample in [`Seen::targets`].
pub const TARGET: usize = 3;

/// Sums that a kernel may leave in [`Given::sums`], besides one for each sample.
pub const SUMS: usize = 1024;

/// A loss, by kernels.
pub trait Kernel {
    /// As [`Loss::value`](crate::losses::Loss::value). Refuses what that refuses.
    fn value(&self, seen: &Seen<'_>, given: &mut Given<'_>) -> Result<()>;
}

/// What a loss reads of a step.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Where all arrays lie.
    pub gpu: &'a Gpu,
    /// The samples, as the host knows them.
    pub batch: &'a Batch<'a>,
    /// [`targets`] of the samples.
    pub targets: &'a [f32],
    /// Values of the student.
    pub student: &'a [&'a [f32]],
    /// Values of the teacher.
    pub teacher: &'a [&'a [f32]],
}

/// What it gives.
pub struct Given<'a> {
    /// Gradients of the student's values; overwritten.
    pub d_student: &'a mut [&'a mut [f32]],
    /// Room for [`SUMS`] sums, or one for each sample.
    pub sums: &'a mut [f32],
    /// One number: the loss.
    pub value: &'a mut [f32],
}

/// How a part enters a loss and its gradient.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is times.
    pub weight: f32,
    /// Whether it is added to what is there, or takes its place.
    pub add: bool,
}

impl Part {
    /// All that there is.
    pub const WHOLE: Self = Self { weight: 1.0, add: false };
}

/// Logits `[samples, classes]` of both sides.
#[derive(Clone, Copy)]
pub struct Answers<'a> {
    /// The student's tap that the gradient is by.
    pub tap: usize,
    /// Its own.
    pub student: &'a [f32],
    /// The teacher's.
    pub teacher: &'a [f32],
    /// Logits of a sample.
    pub classes: usize,
}

impl<'a> Answers<'a> {
    /// Of the only tap of each side.
    pub fn of(seen: &Seen<'a>, classes: usize) -> Self {
        Self { tap: 0, student: seen.student[0], teacher: seen.teacher[0], classes }
    }
}

/// For each sample its class, the class of the other one that it is mixed with, and the share of the first; -1 for a class that is
/// not known.
pub fn targets(batch: &Batch<'_>) -> Vec<f32> {
    let class = |class: usize| if class == UNLABELLED { -1.0 } else { class as f32 };
    let target = |(i, &label): (usize, &usize)| {
        let (other, share) = batch.mixed.get(i).copied().unwrap_or((label, 1.0));
        [class(label), class(other), share]
    };
    batch.labels.iter().enumerate().flat_map(target).collect()
}

impl Given<'_> {
    /// Queues the sum of the first of the sums, times a factor: the loss, or what is added to it.
    pub fn total(&mut self, gpu: &Gpu, count: usize, factor: f32, add: bool) {
        assert!(count <= self.sums.len() && self.value.len() == 1, "sums that there are");
        let args = Args::none().read(self.sums).write(self.value).number(count).float(factor).flag(add);
        // SAFETY: total: so many sums, one number.
        unsafe { gpu.groups("total", 1, &args) };
    }
}

/// Sees that there is room for so many numbers. Refused where there is none.
fn make_room<T: Real>(gpu: &Gpu, buffer: &mut Buffer<T>, len: usize) -> Result<()> {
    if buffer.len() < len {
        *buffer = Buffer::on(gpu, len)?;
    }
    Ok(())
}

/// Groups for a sum over so many elements, each of which leaves one.
fn groups(elements: usize) -> usize {
    elements.div_ceil(4 * GROUP).clamp(1, SUMS)
}

/// Counts the samples whose largest logit, the first of equal ones, is their class; `logits`: `[samples, classes]`.
pub fn count_right(gpu: &Gpu, logits: &[f32], targets: &[f32], count: &mut [f32]) {
    let samples = targets.len() / TARGET;
    let classes = logits.len().checked_div(samples).unwrap_or(0);
    assert!(logits.len() == samples * classes && count.len() == 1, "a row for each sample");
    let args = Args::none().read(logits).read(targets).write(count).number(samples).number(classes);
    // SAFETY: count_right: arrays of these shapes, one number.
    unsafe { gpu.groups("count_right", 1, &args) };
}
