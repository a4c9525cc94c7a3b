//! Self distillation by exits.

use super::ce::{Wanted, cross_entropy};
use super::fitnets::{pairs, total_distance};
use super::kd::{Form, soft_cross_entropy, soft_targets};
use super::{Answers, Given, Part, Seen};
use crate::gpu::ops::maps;
use crate::losses::byot;
use crate::losses::ce::Targets;
use crate::losses::fitnets::Distance;
use crate::losses::rows::Reduction;

/// As [`Exit::loss`](byot::Exit::loss) of all exits, of whose taps first the logits come, then the features, then the deepest of both;
/// `labelled`: samples whose classes are known. Not of the form `journal`.
pub fn exits(seen: &Seen<'_>, classes: usize, form: &byot::Form<f32>, labelled: f64, given: &mut Given<'_>) {
    let exits = seen.student.len() / 2 - 1;
    let (deepest, features) = (2 * exits, 2 * exits + 1);
    let targets = Targets::default();
    let wanted = Wanted { targets: &targets, weights: &[], labelled };
    let byot::Form { alpha, temperature, tau2, lambda, ref word } = *form;
    for tap in [deepest, features] {
        maps::fill(seen.gpu, given.d_student[tap], 0.0);
    }
    let is_literal = word == byot::SEED_LITERAL;
    if is_literal {
        cross_entropy(seen, deepest, classes, wanted, Part { weight: 1.0 - alpha, add: false }, given);
    }
    for exit in 0..exits {
        // Its gradient takes the place of what is there, its value does not.
        let first = exit == 0 && !is_literal;
        let hard = Part { weight: 1.0 - alpha, add: !first };
        maps::fill(seen.gpu, given.d_student[exit], 0.0);
        cross_entropy(seen, exit, classes, wanted, hard, given);
        let answers = Answers { tap: exit, student: seen.student[exit], teacher: seen.student[deepest], classes };
        let soft = Part { weight: alpha, add: true };
        if word == "masked" {
            let scale = if tau2 { temperature * temperature } else { 1.0 };
            soft_cross_entropy(seen, answers, [temperature, scale], soft, given);
        } else {
            let form = Form { temperature, reduction: Reduction::BatchMean, tau2, standardize: false };
            soft_targets(seen, answers, form, soft, given);
        }
        let sides = [seen.student[exits + exit], seen.student[features]];
        let n = if word == "mean" { sides[0].len() } else { seen.batch.size };
        let tap = exits + exit;
        if word == "masked" {
            pairs(seen.gpu, "distance_masked", tap, true, sides, [lambda, 0.0, 0.0], given);
        } else {
            total_distance(seen.gpu, tap, true, sides, Distance::Squared, lambda / n as f32, given);
        }
    }
}
