//! Distillation losses, in f64 and in f32: values, parts and gradients by everything that is trained.

use kd_trainer::exec::Real;
use kd_trainer::losses::byot::{Exit, Form};
use kd_trainer::losses::ce::{Targets, cross_entropy, of_others};
use kd_trainer::losses::codistill::psi;
use kd_trainer::losses::dist::correlations;
use kd_trainer::losses::dkd::decoupled;
use kd_trainer::losses::kd::{soft_targets, standardize, standardize_backward};
use kd_trainer::losses::mlkd::alignment;
use kd_trainer::losses::mse_logits::{factor, logit_regression};
use kd_trainer::losses::nkd::normalized;
use kd_trainer::losses::ofa::adapted_target;
use kd_trainer::losses::rows::{Average, Reduction};
use kd_trainer::losses::srrl::regression;
use kd_trainer::losses::tf_kd::hand_made;
use kd_trainer::losses::wsld::{weighted_soft_labels, weights};

use super::{Case, Failure, Outcome};

/// Tensors that were computed, by their names in the case.
pub type Found<T> = Vec<(String, Vec<T>)>;

/// Values relative to 1e-9, gradients to 1e-7; 1e-12 where the true one is 0.
pub fn in_f64(case: &Case, run: fn(&Case) -> Result<Found<f64>, Failure>) -> Result<Outcome, Failure> {
    compare_all(case, &run(case)?, [1e-9, 1e-7], 1e-12)
}

/// Values relative to 1e-5, gradients to 1e-4; 1e-5 where the true one is 0.
pub fn in_f32(case: &Case, run: fn(&Case) -> Result<Found<f32>, Failure>) -> Result<Outcome, Failure> {
    compare_all(case, &run(case)?, [1e-5, 1e-4], 1e-5)
}

fn compare_all<T: Real>(case: &Case, found: &Found<T>, tolerances: [f64; 2], least: f64) -> Result<Outcome, Failure> {
    let mut worst = 0.0_f64;
    for (name, values) in found {
        let expected = &case.get(name)?.values;
        if expected.len() != values.len() {
            return Err(format!("{name}: expected {} elements, found {}", expected.len(), values.len()));
        }
        let scale = expected.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
        let tolerance = tolerances[usize::from(name.starts_with("grad."))];
        // Rounding of what cancels has no relative bound.
        let bound = if scale < 1e-3 * least.sqrt() { least } else { tolerance * scale };
        for (i, (e, f)) in expected.iter().zip(values).enumerate() {
            let off = (e - f.to_f64()).abs();
            if off.is_nan() || off > bound {
                return Err(format!("{name}[{i}]: expected {e}, found {f:?} (largest {scale:.3e}, bound {bound:.0e})"));
            }
            worst = worst.max(if scale > least { off / scale } else { off });
        }
    }
    Ok(Outcome::Equal(worst))
}

/// Names what was computed.
pub fn found<T: Real, const N: usize>(tensors: [(&str, &[T]); N]) -> Found<T> {
    tensors.into_iter().map(|(name, values)| (name.to_string(), values.to_vec())).collect()
}

/// A hyper-parameter that must be there.
pub fn number(case: &Case, key: &str) -> Result<f64, Failure> {
    case.hyper["params"][key].as_f64().ok_or_else(|| format!("no number `{key}` in the case"))
}

/// A hyper-parameter of words; empty if there is none.
pub fn word<'c>(case: &'c Case, key: &str) -> &'c str {
    case.hyper["params"][key].as_str().unwrap_or_default()
}

fn flag(case: &Case, key: &str) -> bool {
    case.hyper["params"][key].as_bool().unwrap_or(true)
}

/// A tensor, and its elements in a row.
pub fn rows<T: Real>(case: &Case, name: &str) -> Result<(Vec<T>, usize), Failure> {
    let array = case.get(name)?;
    let rows = array.shape.first().copied().unwrap_or(1).max(1);
    Ok((array.cast(), array.values.len() / rows))
}

/// Places or classes.
pub fn places(case: &Case, name: &str) -> Result<Vec<usize>, Failure> {
    Ok(case.get(name)?.values.iter().map(|&v| v as usize).collect())
}

fn reduction(case: &Case) -> Result<Reduction, Failure> {
    match word(case, "reduction") {
        "" | "batchmean" => Ok(Reduction::BatchMean),
        "sum" => Ok(Reduction::Sum),
        "elementmean" => Ok(Reduction::ElementMean),
        other => Err(format!("unknown reduction `{other}`")),
    }
}

fn soft<T: Real>(case: &Case, d: &mut [T]) -> Result<T, Failure> {
    let temperature = T::from_f64(number(case, "tau")?);
    let ((student, classes), (teacher, _)) = (rows(case, "student")?, rows(case, "teacher")?);
    Ok(soft_targets(&student, &teacher, classes, temperature, reduction(case)?, flag(case, "tau2"), d))
}

pub fn kd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let mut d = vec![T::ZERO; case.get("student")?.values.len()];
    let value = soft(case, &mut d)?;
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

/// Task and soft term with the weights that each form means: there is no other combination.
pub fn kd_total<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let or = |key: &str, default: f64| case.hyper["params"][key].as_f64().unwrap_or(default);
    let (task_weight, soft_weight) = match word(case, "form") {
        "seed" => (1.0, or("lam", 1.0)),
        "weights" => (or("w_task", 1.0), or("w_soft", 1.0)),
        "convex" => (1.0 - or("alpha", 0.0), or("alpha", 0.0)),
        other => return Err(format!("unknown form `{other}`")),
    };
    let (task_weight, soft_weight) = (T::from_f64(task_weight), T::from_f64(soft_weight));
    let (student, classes) = rows::<T>(case, "student")?;
    let (mut d_task, mut d_soft) = (vec![T::ZERO; student.len()], vec![T::ZERO; student.len()]);
    // The task term of a summed soft term is summed too.
    let task_reduction = if reduction(case)? == Reduction::Sum { Reduction::Sum } else { Reduction::BatchMean };
    let task = cross_entropy(
        &student,
        places(case, "labels")?[..].into(),
        classes,
        &Targets::default(),
        task_reduction,
        &mut d_task,
    );
    let soft = soft(case, &mut d_soft)?;
    let d: Vec<T> = d_task.iter().zip(&d_soft).map(|(&t, &s)| task_weight * t + soft_weight * s).collect();
    let total = task_weight * task + soft_weight * soft;
    Ok(found([("loss", &[total]), ("out.task", &[task]), ("out.soft", &[soft]), ("grad.student", &d)]))
}

pub fn logit_std_kd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((mut student, classes), (mut teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let deviations = standardize(&mut student, classes);
    standardize(&mut teacher, classes);
    let mut d = vec![T::ZERO; student.len()];
    let temperature = T::from_f64(number(case, "tau")?);
    let value =
        soft_targets(&student, &teacher, classes, temperature, Reduction::BatchMean, flag(case, "tau2"), &mut d);
    standardize_backward(&student, &deviations, classes, &mut d);
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

pub fn dkd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, _), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let factors = [T::from_f64(number(case, "alpha")?), T::from_f64(number(case, "beta")?)];
    let mut d = vec![T::ZERO; student.len()];
    let temperature = T::from_f64(number(case, "tau")?);
    let [binary, others] = decoupled([&student, &teacher], &places(case, "labels")?, temperature, factors, &mut d);
    let total = factors[0] * binary + factors[1] * others;
    Ok(found([("loss", &[total]), ("out.tckd", &[binary]), ("out.nckd", &[others]), ("grad.student", &d)]))
}

pub fn nkd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, _), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let (gamma, temperature) = (T::from_f64(number(case, "gamma")?), T::from_f64(number(case, "tau")?));
    let mut d = vec![T::ZERO; student.len()];
    let [target, others] = normalized([&student, &teacher], &places(case, "labels")?, temperature, gamma, &mut d);
    let total = target + gamma * temperature * temperature * others;
    Ok(found([("loss", &[total]), ("out.target", &[target]), ("out.non", &[others]), ("grad.student", &d)]))
}

pub fn dist<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, classes), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let temperature = number(case, "tau")?;
    let scale = if flag(case, "tau2") { temperature * temperature } else { 1.0 };
    let factors = [number(case, "beta")? * scale, number(case, "gamma")? * scale];
    let mut d = vec![T::ZERO; student.len()];
    let [inter, intra] = correlations([&student, &teacher], classes, temperature, factors, &mut d);
    let total = T::from_f64(factors[0] * inter + factors[1] * intra);
    let (inter, intra) = (T::from_f64(inter), T::from_f64(intra));
    Ok(found([("loss", &[total]), ("out.inter", &[inter]), ("out.intra", &[intra]), ("grad.student", &d)]))
}

pub fn mlkd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, classes), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let mut d = vec![T::ZERO; student.len()];
    let parts = alignment(&student, &teacher, classes, number(case, "tau")?, &mut d);
    let [instance, batch, class] = parts.map(|part| [T::from_f64(part)]);
    let total = [T::from_f64(parts.iter().sum())];
    let mut all = found([("loss", &total), ("out.instance", &instance), ("out.batch", &batch)]);
    all.extend(found([("out.class", &class[..]), ("grad.student", &d)]));
    Ok(all)
}

pub fn mse_logits<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, classes), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let factor = T::from_f64(factor(word(case, "reduction"), student.len() / classes, classes));
    let mut d = vec![T::ZERO; student.len()];
    let value = logit_regression(&student, &teacher, classes, flag(case, "center"), factor, &mut d);
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

pub fn wsld<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, _), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let weights = weights([&student, &teacher], &places(case, "labels")?);
    let mut d = vec![T::ZERO; student.len()];
    let alpha = T::from_f64(number(case, "alpha")?);
    let value = weighted_soft_labels(&student, &teacher, &weights, T::from_f64(number(case, "tau")?), &mut d);
    d.iter_mut().for_each(|d| *d *= alpha);
    Ok(found([("loss", &[alpha * value]), ("out.weight", &weights), ("grad.student", &d)]))
}

pub fn ofa<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, _), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let (temperature, exponent) = (T::from_f64(number(case, "tau")?), T::from_f64(number(case, "eps")?));
    let mut d = vec![T::ZERO; student.len()];
    let value = adapted_target(&student, &teacher, &places(case, "labels")?, temperature, exponent, &mut d);
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

pub fn srrl<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let ((student, columns), (teacher, _)) = (rows::<T>(case, "student")?, rows::<T>(case, "feat_t")?);
    let factors = [T::from_f64(number(case, "alpha")?), T::from_f64(number(case, "beta")?)];
    let mut d = vec![T::ZERO; student.len()];
    let weight: Vec<T> = case.get("weight_t")?.cast();
    let [feature, answer] = regression(&student, &teacher, &weight, columns, factors, &mut d);
    let total = factors[0] * feature + factors[1] * answer;
    Ok(found([("loss", &[total]), ("out.fm", &[feature]), ("out.sr", &[answer]), ("grad.student", &d)]))
}

pub fn tf_kd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, classes) = rows::<T>(case, "student")?;
    let labels = places(case, "labels")?;
    let alpha = T::from_f64(number(case, "alpha")?);
    let weights = [T::ONE - alpha, alpha * T::from_f64(number(case, "multiplier")?)];
    let (correct, temperature) = (T::from_f64(number(case, "a")?), T::from_f64(number(case, "tau")?));
    let (mut d, mut d_task) = (vec![T::ZERO; student.len()], vec![T::ZERO; student.len()]);
    let value = hand_made(&student, &labels, correct, temperature, Reduction::ElementMean, &mut d);
    let task =
        cross_entropy(&student, labels[..].into(), classes, &Targets::default(), Reduction::BatchMean, &mut d_task);
    d.iter_mut().zip(&d_task).for_each(|(d, &task)| *d = weights[0] * task + weights[1] * *d);
    Ok(found([("loss", &[weights[0] * task + weights[1] * value]), ("grad.student", &d)]))
}

pub fn label_smoothing<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, classes) = rows::<T>(case, "student")?;
    let smoothing = T::from_f64(number(case, "eps")?);
    let smoothing = if word(case, "share") == "all" { smoothing } else { of_others(smoothing, classes) };
    let mut d = vec![T::ZERO; student.len()];
    let labels = places(case, "labels")?;
    let value = cross_entropy(
        &student,
        labels[..].into(),
        classes,
        &Targets::smoothed(smoothing),
        Reduction::BatchMean,
        &mut d,
    );
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

/// What stands for several teachers, row by row.
fn joined<T: Real>(
    case: &Case,
    weights: &[f64],
    temperature: f64,
    average: Average,
    classes: usize,
) -> Result<Vec<T>, Failure> {
    let teachers: Vec<Vec<T>> =
        (0..weights.len()).map(|i| Ok(rows(case, &format!("teacher{i}"))?.0)).collect::<Result<_, Failure>>()?;
    let mut all = Vec::with_capacity(teachers[0].len());
    for row in 0..teachers[0].len() / classes {
        let mut sums = vec![0.0; classes];
        for (teacher, &weight) in teachers.iter().zip(weights) {
            average.add(&mut sums, &teacher[row * classes..][..classes], weight, temperature);
        }
        average.finish(&mut sums, temperature);
        all.extend(sums.into_iter().map(T::from_f64));
    }
    Ok(all)
}

pub fn ensemble_kd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, classes) = rows::<T>(case, "student")?;
    let weights = case.hyper["params"]["weights"].as_array().ok_or("no `weights`")?;
    let weights: Vec<f64> = weights.iter().filter_map(serde_json::Value::as_f64).collect();
    let tau = number(case, "tau")?;
    let one = |teacher: &[T]| {
        let mut d = vec![T::ZERO; student.len()];
        let temperature = T::from_f64(tau);
        (soft_targets(&student, teacher, classes, temperature, Reduction::BatchMean, true, &mut d), d)
    };
    let (value, d) = match word(case, "average") {
        "probs" => one(&joined(case, &weights, tau, Average::Probabilities, classes)?),
        "logits" => one(&joined(case, &weights, tau, Average::Logits, classes)?),
        // A term for each teacher.
        "losses" => {
            let (mut value, mut d) = (T::ZERO, vec![T::ZERO; student.len()]);
            for (i, &weight) in weights.iter().enumerate() {
                let (each, d_each) = one(&rows::<T>(case, &format!("teacher{i}"))?.0);
                value += T::from_f64(weight) * each;
                d.iter_mut().zip(d_each).for_each(|(d, each)| *d += T::from_f64(weight) * each);
            }
            (value, d)
        }
        other => return Err(format!("unknown average `{other}`")),
    };
    Ok(found([("loss", &[value]), ("grad.student", &d)]))
}

pub fn codistill<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, classes) = rows::<T>(case, "student")?;
    let name = if word(case, "psi") == "mse_probs" { "mse_probabilities" } else { word(case, "psi") };
    let of_logits = word(case, "average") == "logits" || name == "mse_logits";
    let average = if of_logits { Average::Logits } else { Average::Probabilities };
    let others = joined::<T>(case, &[0.5, 0.5], 1.0, average, classes)?;
    let (mut d, mut d_task) = (vec![T::ZERO; student.len()], vec![T::ZERO; student.len()]);
    let value = psi(name, &student, &others, classes, &mut d);
    let labels = places(case, "labels")?;
    let task =
        cross_entropy(&student, labels[..].into(), classes, &Targets::default(), Reduction::BatchMean, &mut d_task);
    let is_on = number(case, "step")? >= number(case, "burn_in")?;
    let weight = T::from_f64(if is_on { number(case, "weight")? } else { 0.0 });
    d.iter_mut().zip(&d_task).for_each(|(d, &task)| *d = task + weight * *d);
    let total = task + weight * value;
    Ok(found([("loss", &[total]), ("out.task", &[task]), ("out.distill", &[value]), ("grad.student", &d)]))
}

/// The exits' losses, and the deepest's cross-entropy with the task's weight of the form.
pub fn byot<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let labels = places(case, "labels")?;
    let side = |kind: &str| -> Result<Vec<Vec<T>>, Failure> {
        let there = (0..).map(|i| format!("{kind}{i}")).take_while(|name| case.optional(name).is_some());
        there.map(|name| Ok(rows(case, &name)?.0)).collect()
    };
    let (logits, features) = (side("logits")?, side("feat")?);
    let name = if word(case, "form") == "thirdparty" { "masked" } else { word(case, "form") };
    let alpha = T::from_f64(number(case, "alpha")?);
    let form = Form {
        alpha,
        temperature: T::from_f64(number(case, "tau")?),
        tau2: flag(case, "tau2"),
        lambda: T::from_f64(number(case, "lam")?),
        word: name.into(),
    };
    let deepest = logits.len() - 1;
    let classes = logits[0].len() / labels.len();
    let (mut total, mut tasks, mut all) = (T::ZERO, Vec::new(), Vec::new());
    for i in 0..=deepest {
        let (mut d_logits, mut d_features) = (vec![T::ZERO; logits[i].len()], vec![T::ZERO; features[i].len()]);
        let task = cross_entropy(
            &logits[i],
            labels[..].into(),
            classes,
            &Targets::default(),
            Reduction::BatchMean,
            &mut d_logits,
        );
        tasks.push(task);
        if i == deepest {
            let weight = if matches!(name, "masked" | "seed_literal") { T::ONE - alpha } else { T::ONE };
            total += weight * task;
            d_logits.iter_mut().for_each(|d| *d *= weight);
        } else {
            let exit = Exit {
                logits: [&logits[i], &logits[deepest]],
                features: [&features[i], &features[deepest]],
                is_last: i + 1 == deepest,
            };
            total += exit.loss(&labels, &form, &mut d_logits, &mut d_features);
        }
        all.push((format!("grad.logits{i}"), d_logits));
        all.push((format!("grad.feat{i}"), d_features));
    }
    all.extend(found([("loss", &[total]), ("out.ce", &tasks)]));
    Ok(all)
}
