//! Losses as torch has them: value and gradient by the logits.

use kd_trainer::losses::ce::cross_entropy as ce;
use kd_trainer::losses::kd::soft_targets;
use kd_trainer::losses::rows::Reduction;

use super::{Case, Failure, Outcome, compare};

fn labels(case: &Case, name: &str) -> Result<Vec<usize>, Failure> {
    Ok(case.get(name)?.values.iter().map(|&v| v as usize).collect())
}

pub fn cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    let not_built = |what: &str| Ok(Outcome::NotBuilt(what.to_string()));
    let kind = case.text("kind");
    if !matches!(kind, "index" | "kl") {
        return not_built(kind);
    }
    let logits = case.get("logits")?;
    let mut d = vec![0.0_f64; logits.values.len()];
    let classes = logits.shape.get(1).copied().ok_or("logits are no matrix")?;
    let value = if kind == "kl" {
        let temperature = case.number("temperature")?;
        let teacher = &case.get("teacher_logits")?.values;
        soft_targets(&logits.values, teacher, classes, temperature, Reduction::BatchMean, false, &mut d)
    } else {
        let reduction = match case.text("reduction") {
            "mean" => Reduction::BatchMean,
            "sum" => Reduction::Sum,
            _ => return not_built("a loss for each sample"),
        };
        if case.flag("weighted") {
            return not_built("class weights");
        }
        if !case.hyper["ignore_index"].is_null() {
            return not_built("ignored targets");
        }
        if logits.shape.len() != 2 {
            return not_built("targets for each pixel");
        }
        ce(&logits.values, &labels(case, "target")?, classes, case.number("label_smoothing")?, reduction, &mut d)
    };
    let worst = compare(case, "loss", &[value], 1e-10)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d, 1e-10)?)))
}
