//! Knowledge review.

use kd_runtime::Result;

use super::Given;
use super::fitnets::total_distance;
use super::joint::Kept;
use crate::gpu::Gpu;
use crate::losses::fitnets::Distance;
use crate::losses::joint::Way;
use crate::losses::maps::Map;
use crate::losses::review::levels;

/// As [`hierarchical`](crate::losses::review::hierarchical), of the student's only tap; `add`: whether the value is
/// added to what is there.
pub fn hierarchical(
    gpu: &Gpu,
    add: bool,
    sides: [&[f32]; 2],
    map: Map,
    kept: &mut Kept,
    given: &mut Given<'_>,
) -> Result<()> {
    let levels = levels(map);
    let whole: f64 = levels.iter().map(|(_, weight)| weight).sum();
    for (i, (to, weight)) in levels.into_iter().enumerate() {
        kept.compare(gpu, [Way::averaged(map, to); 2], sides, (0, i > 0), given, |sides, given| {
            let factor = weight / sides[0].len() as f64 / whole;
            total_distance(gpu, 0, add || i > 0, sides, Distance::Squared, factor as f32, given);
            Ok(())
        })?;
    }
    Ok(())
}
