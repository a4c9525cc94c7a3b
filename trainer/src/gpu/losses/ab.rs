//! Activation boundaries.

use super::Given;
use super::fitnets::pairs;
use crate::gpu::Gpu;

/// As [`activation_boundary`](crate::losses::ab::activation_boundary) of a pair; its value is added to that of the pairs before.
pub fn activation_boundary(
    gpu: &Gpu,
    pair: usize,
    sides: [&[f32]; 2],
    margin: f32,
    factor: f32,
    given: &mut Given<'_>,
) {
    pairs(gpu, "activation_boundary", pair, pair > 0, sides, [factor, margin, 0.0], given);
}
