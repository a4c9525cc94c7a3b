//! Losses: value and gradient by the student's logits.

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

fn reduction(case: &Case) -> Result<Reduction, Failure> {
    match case.hyper["params"]["reduction"].as_str() {
        None | Some("batchmean") => Ok(Reduction::BatchMean),
        Some("sum") => Ok(Reduction::Sum),
        Some("elementmean") => Ok(Reduction::ElementMean),
        Some(other) => Err(format!("unknown reduction `{other}`")),
    }
}

fn soft(case: &Case, d: &mut [f64]) -> Result<f64, Failure> {
    let params = &case.hyper["params"];
    let temperature = params["tau"].as_f64().ok_or("no `tau`")?;
    let (student, teacher) = (&case.get("student")?.values, &case.get("teacher")?.values);
    let tau2 = params["tau2"].as_bool().unwrap_or(true);
    Ok(soft_targets(student, teacher, classes(case, "student")?, temperature, reduction(case)?, tau2, d))
}

pub fn kd(case: &Case) -> Result<Outcome, Failure> {
    let mut d = vec![0.0; case.get("student")?.values.len()];
    let value = soft(case, &mut d)?;
    let worst = compare(case, "loss", &[value], 1e-9)?;
    Ok(Outcome::Equal(worst.max(compare(case, "grad.student", &d, 1e-9)?)))
}

/// Task and soft term with the weights that each form means: there is no other combination.
pub fn kd_total(case: &Case) -> Result<Outcome, Failure> {
    let params = &case.hyper["params"];
    let number = |key: &str, default: f64| params[key].as_f64().unwrap_or(default);
    let (task_weight, soft_weight) = match params["form"].as_str() {
        Some("seed") => (1.0, number("lam", 1.0)),
        Some("weights") => (number("w_task", 1.0), number("w_soft", 1.0)),
        Some("convex") => (1.0 - number("alpha", 0.0), number("alpha", 0.0)),
        other => return Err(format!("unknown form {other:?}")),
    };
    let student = &case.get("student")?.values;
    let (mut d_task, mut d_soft) = (vec![0.0; student.len()], vec![0.0; student.len()]);
    // The task term of a summed soft term is summed too.
    let task_reduction = if reduction(case)? == Reduction::Sum { Reduction::Sum } else { Reduction::BatchMean };
    let task = ce(student, &labels(case, "labels")?, classes(case, "student")?, 0.0, task_reduction, &mut d_task);
    let soft = soft(case, &mut d_soft)?;
    let total = task_weight * task + soft_weight * soft;
    let d: Vec<f64> = d_task.iter().zip(&d_soft).map(|(t, s)| task_weight * t + soft_weight * s).collect();
    let mut worst = compare(case, "loss", &[total], 1e-9)?;
    for (name, found) in [("out.task", &[task][..]), ("out.soft", &[soft]), ("grad.student", &d)] {
        worst = worst.max(compare(case, name, found, 1e-9)?);
    }
    Ok(Outcome::Equal(worst))
}
