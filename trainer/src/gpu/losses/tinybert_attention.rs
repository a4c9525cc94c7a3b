//! Attention scores.

use super::Given;
use super::fitnets::pairs;
use crate::gpu::Gpu;

/// As [`scores_distance`](crate::losses::tinybert_attention::scores_distance) of a pair; its value is added to that of
/// the pairs before.
pub fn scores_distance(gpu: &Gpu, pair: usize, sides: [&[f32]; 2], [floor, factor]: [f32; 2], given: &mut Given<'_>) {
    pairs(gpu, "distance_scores", pair, pair > 0, sides, [factor, floor, 0.0], given);
}
