//! Activation boundaries.

use super::Given;
use super::fitnets::pairs;
use crate::gpu::Gpu;

/// As [`activation_boundary`](crate::losses::ab::activation_boundary), of the student's only tap; `add`: whether the
/// value is added to what is there.
pub fn activation_boundary(gpu: &Gpu, add: bool, sides: [&[f32]; 2], margin: f32, factor: f32, given: &mut Given<'_>) {
    pairs(gpu, "activation_boundary", 0, add, sides, [factor, margin, 0.0], given);
}
