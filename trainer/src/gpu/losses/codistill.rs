//! Codistillation.

use super::kd::{Form, probability_regression, soft_cross_entropy, soft_targets};
use super::mse_logits::logit_regression;
use super::{Answers, Given, Part, Seen};
use crate::losses::rows::Reduction;

/// As [`psi`](crate::losses::codistill::psi).
pub fn psi(psi: &str, seen: &Seen<'_>, classes: usize, given: &mut Given<'_>) {
    let answers = Answers::of(seen, classes);
    match psi {
        "kl" => {
            let form = Form { temperature: 1.0, reduction: Reduction::BatchMean, tau2: true, standardize: false };
            soft_targets(seen, answers, form, Part::WHOLE, given);
        }
        "mse_logits" => logit_regression(seen, answers, false, 1.0 / answers.student.len().max(1) as f32, given),
        "ce" => soft_cross_entropy(seen, answers, [1.0; 2], Part::WHOLE, given),
        _ => probability_regression(seen, answers, given),
    }
}
