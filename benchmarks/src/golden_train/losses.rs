//! Losses as torch has them: value and gradient by the logits.

use kd_trainer::data::UNLABELLED;
use kd_trainer::losses::bce::binary_cross_entropy;
use kd_trainer::losses::ce::{Targets, cross_entropy as ce};
use kd_trainer::losses::fitnets::{Distance, total_distance};
use kd_trainer::losses::kd::soft_targets;
use kd_trainer::losses::rows::Reduction;

use super::{Case, Failure, Outcome, compare};

fn classes(case: &Case, name: &str) -> Result<usize, Failure> {
    case.get(name)?.shape.last().copied().ok_or_else(|| format!("{name} is a scalar"))
}

/// Golden losses of f64 are equal to so much.
const EXACT: f64 = 1e-10;

pub fn cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    match case.text("kind") {
        "index" => index_cross_entropy(case),
        "soft" => soft_cross_entropy(case),
        "kl" => {
            let (classes, temperature) = (classes(case, "logits")?, case.number("temperature")?);
            let (mean, teacher) = (Reduction::BatchMean, "teacher_logits");
            elementwise(case, ["logits", teacher, "dlogits"], |logits, teacher, d| {
                soft_targets(logits, teacher, classes, temperature, mean, false, d)
            })
        }
        "bce_logits" => {
            let factor = factor(case)?;
            elementwise(case, ["logits", "target", "dlogits"], |z, t, d| binary_cross_entropy(z, t, factor, d))
        }
        "mse" => distance(case, "squared"),
        "l1" => distance(case, "absolute"),
        kind @ ("huber" | "smooth_l1") => distance(case, kind),
        other => Err(format!("unknown kind `{other}`")),
    }
}

/// A loss of two arrays of one shape, named first; the third is the gradient by the first.
fn elementwise(
    case: &Case,
    [x, target, gradient]: [&str; 3],
    loss: impl Fn(&[f64], &[f64], &mut [f64]) -> f64,
) -> Result<Outcome, Failure> {
    let (x, target) = (&case.get(x)?.values, &case.get(target)?.values);
    let mut d = vec![0.0; x.len()];
    let value = loss(x, target, &mut d);
    let worst = compare(case, "loss", &[value], EXACT)?;
    Ok(Outcome::Equal(worst.max(compare(case, gradient, &d, EXACT)?)))
}

/// What a sum over elements is multiplied by.
fn factor(case: &Case) -> Result<f64, Failure> {
    let elements = case.get("target")?.values.len();
    Ok(if case.text("reduction") == "sum" { 1.0 } else { 1.0 / elements as f64 })
}

fn distance(case: &Case, word: &str) -> Result<Outcome, Failure> {
    let (distance, factor) = (Distance::of(word, case.number("delta")?), factor(case)?);
    elementwise(case, ["x", "target", "dx"], |x, t, d| total_distance(x, t, distance, factor, d))
}

/// Logits `[N, C, …]` with a class for each of their `N · …` places: rows of C logits. Of `none` each row's loss is that of
/// a batch of one, and its gradient is times the upstream one.
fn index_cross_entropy(case: &Case) -> Result<Outcome, Failure> {
    let logits = case.get("logits")?;
    let &[samples, classes, ..] = &logits.shape[..] else { return Err("expected logits [N, C, …]".into()) };
    let places: usize = logits.shape[2..].iter().product();
    let at = |row: usize, class: usize| (row / places * classes + class) * places + row % places;
    let rows = samples * places;
    let in_rows = |i: usize| logits.values[at(i / classes, i % classes)];
    let z: Vec<f64> = (0..rows * classes).map(in_rows).collect();
    let ignored = case.hyper["ignore_index"].as_f64();
    let label = |&class: &f64| if Some(class) == ignored { UNLABELLED } else { class as usize };
    let labels: Vec<usize> = case.get("target")?.values.iter().map(label).collect();
    let weights = case.optional("weight").map_or_else(Vec::new, |weights| weights.values.clone());
    let targets = Targets { smoothing: case.number("label_smoothing")?, weights };
    let mut d = vec![0.0; z.len()];
    let values = match case.text("reduction") {
        "none" => {
            let dy = &case.get("dy")?.values;
            let each = z.chunks_exact(classes).zip(d.chunks_exact_mut(classes)).zip(labels.chunks(1)).zip(dy);
            each.map(|(((z, d), label), dy)| {
                let value = ce(z, label.into(), classes, &targets, Reduction::Sum, d);
                d.iter_mut().for_each(|d| *d *= dy);
                value
            })
            .collect()
        }
        word @ ("mean" | "sum") => {
            let reduction = if word == "sum" { Reduction::Sum } else { Reduction::BatchMean };
            vec![ce(&z, labels[..].into(), classes, &targets, reduction, &mut d)]
        }
        other => return Err(format!("unknown reduction `{other}`")),
    };
    let mut d_logits = vec![0.0; d.len()];
    d.iter().enumerate().for_each(|(i, &d)| d_logits[at(i / classes, i % classes)] = d);
    let worst = compare(case, "loss", &values, EXACT)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d_logits, EXACT)?)))
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
    let worst = compare(case, "loss", &[value], EXACT)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dlogits", &d, EXACT)?)))
}
