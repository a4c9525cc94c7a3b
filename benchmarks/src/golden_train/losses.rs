//! Losses as torch has them: value and gradient by the logits.

use kd_trainer::losses::ce::cross_entropy as ce;
use kd_trainer::losses::kd::soft_targets;
use kd_trainer::losses::rows::Reduction;

use super::{Case, Failure, Outcome, compare};

fn classes(case: &Case, name: &str) -> Result<usize, Failure> {
    case.get(name)?.shape.last().copied().ok_or_else(|| format!("{name} is a scalar"))
}

fn labels(case: &Case, name: &str) -> Result<Vec<usize>, Failure> {
    Ok(case.get(name)?.values.iter().map(|&v| v as usize).collect())
}

pub fn cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    let not_ours = |why: &str| Ok(Outcome::NotOurs(why.to_string()));
    match case.text("kind") {
        "index" => index_cross_entropy(case),
        "soft" => soft_cross_entropy(case),
        "kl" => {
            let logits = case.get("logits")?;
            let teacher = &case.get("teacher_logits")?.values;
            let mut d = vec![0.0; logits.values.len()];
            let (classes, temperature) = (classes(case, "logits")?, case.number("temperature")?);
            let value =
                soft_targets(&logits.values, teacher, classes, temperature, Reduction::BatchMean, false, &mut d);
            let worst = compare(case, "loss", &[value], 1e-10)?;
            Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d, 1e-10)?)))
        }
        "bce_logits" => not_ours("every sample has one class of several"),
        "mse" | "l1" | "huber" | "smooth_l1" => not_ours("tasks are classifications"),
        other => Err(format!("unknown kind `{other}`")),
    }
}

fn index_cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    let not_ours = |why: &str| Ok(Outcome::NotOurs(why.to_string()));
    let reduction = match case.text("reduction") {
        "mean" => Reduction::BatchMean,
        "sum" => Reduction::Sum,
        _ => return not_ours("a loss is one number"),
    };
    if case.flag("weighted") {
        return not_ours("classes have no weights");
    }
    if !case.hyper["ignore_index"].is_null() {
        return not_ours("every sample has a class");
    }
    let logits = case.get("logits")?;
    if logits.shape.len() != 2 {
        return not_ours("a class for each sample, not for each pixel");
    }
    let mut d = vec![0.0; logits.values.len()];
    let (labels, smoothing) = (labels(case, "target")?, case.number("label_smoothing")?);
    let value = ce(&logits.values, &labels, classes(case, "logits")?, smoothing, reduction, &mut d);
    let worst = compare(case, "loss", &[value], 1e-10)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d, 1e-10)?)))
}

/// Soft targets are those of a teacher at temperature 1 whose logits are their logarithms; the divergence lacks their
/// entropy, which is a constant.
fn soft_cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    let (logits, target) = (&case.get("logits")?.values, &case.get("target")?.values);
    let teacher: Vec<f64> = target.iter().map(|p| p.ln()).collect();
    let reduction = if case.text("reduction") == "sum" { Reduction::Sum } else { Reduction::BatchMean };
    let mut d = vec![0.0; logits.len()];
    let classes = classes(case, "logits")?;
    let divergence = soft_targets(logits, &teacher, classes, 1.0, reduction, false, &mut d);
    let entropy: f64 = target.iter().map(|p| -p * p.ln()).sum();
    let value = divergence + entropy * reduction.factor(logits.len() / classes, classes);
    let worst = compare(case, "loss", &[value], 1e-10)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d, 1e-10)?)))
}
