//! Losses on features and sequences: value and gradients in f64 and again in f32.

use kd_runtime::ops;
use kd_trainer::exec::{Mode, Real};
use kd_trainer::losses::maps::{Map, average_pool, average_pool_back};
use kd_trainer::losses::{
    ab, at, attention_relation, cosine, fitnets, fsp, ft, nst, ofd, review, soft_dtw, tinybert_attention, vid,
};
use serde_json::Value;

use super::operators::run;
use super::{Array, Case, Failure, Outcome, compare};

/// What a case was computed to: its loss, then arrays by their names in the file.
struct Found<T> {
    loss: T,
    arrays: Vec<(String, Vec<T>)>,
}

impl<T> Found<T> {
    fn student(loss: T, d: Vec<T>) -> Result<Self, Failure> {
        Ok(Self { loss, arrays: vec![("grad.student".into(), d)] })
    }
}

/// Compares a case as the README asks: in f64 the loss to 1e-9 and the rest to 1e-7, in f32 to 1e-5 and 1e-4 of the largest
/// element, or to 1e-5 where all elements are 0. Gives the largest deviation in f64.
fn judge(case: &Case, exact: &Found<f64>, single: &Found<f32>) -> Result<Outcome, Failure> {
    let mut worst = compare(case, "loss", &[exact.loss], 1e-9)?;
    in_f32(case, "loss", &[single.loss], 1e-5)?;
    for ((name, values), (_, rounded)) in exact.arrays.iter().zip(&single.arrays) {
        worst = worst.max(compare(case, name, values, 1e-7)?);
        in_f32(case, name, rounded, 1e-4)?;
    }
    Ok(Outcome::Equal(worst))
}

fn in_f32(case: &Case, name: &str, found: &[f32], tolerance: f64) -> Result<(), Failure> {
    let expected = &case.get(name)?.values;
    let largest = expected.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
    let bound = if largest < 1e-9 { 1e-5 } else { tolerance * largest };
    match expected.iter().zip(found).position(|(e, &f)| {
        let off = (e - f64::from(f)).abs();
        off.is_nan() || off > bound
    }) {
        None if expected.len() == found.len() => Ok(()),
        None => Err(format!("{name} in f32: expected {} elements, found {}", expected.len(), found.len())),
        Some(i) => Err(format!("{name}[{i}] in f32: expected {}, found {} (bound {bound:.1e})", expected[i], found[i])),
    }
}

/// A comparison for each file: computes the case in both floats.
macro_rules! files {
    ($($file:ident: $compute:ident;)+) => {$(
        pub fn $file(case: &Case) -> Result<Outcome, Failure> {
            judge(case, &$compute::<f64>(case)?, &$compute::<f32>(case)?)
        }
    )+};
}
files! {
    ab: compute_ab;
    ab_official: compute_ab_official;
    at: compute_at;
    cosine: compute_cosine;
    fsp: compute_fsp;
    ft: compute_ft;
    hint: compute_hint;
    minilm: compute_minilm;
    nst: compute_nst;
    ofd: compute_ofd;
    reviewkd_hcl: compute_hcl;
    softdtw: compute_softdtw;
    tinybert: compute_tinybert;
    vid: compute_vid;
}

fn params(case: &Case) -> &Value {
    &case.hyper["params"]
}

fn number(case: &Case, key: &str) -> Result<f64, Failure> {
    params(case)[key].as_f64().ok_or_else(|| format!("no number `{key}`"))
}

/// How the samples of an array `[batch, …]` lie, and the batch.
fn map(array: &Array) -> Result<(usize, Map), Failure> {
    let (&batch, sample) = array.shape.split_first().ok_or("a scalar")?;
    Ok((batch, Map::of(sample).ok_or_else(|| format!("samples of shape {sample:?}"))?))
}

/// Calls `f` with student and teacher at the smaller of both resolutions, and room for the gradient.
fn met<T: Real>(case: &Case, f: impl FnOnce(&[T], &[T], [Map; 2], &mut [T]) -> T) -> Result<Found<T>, Failure> {
    let (student, teacher) = (case.get("student")?, case.get("teacher")?);
    let ((_, s_map), (_, t_map)) = (map(student)?, map(teacher)?);
    let (height, width) = (s_map.height.min(t_map.height), s_map.width.min(t_map.width));
    let at = [s_map.resized(height, width), t_map.resized(height, width)];
    let pooled = |array: &Array, from: Map, to: Map| {
        let x = array.cast::<T>();
        let mut y = vec![T::ZERO; x.len() / from.elements() * to.elements()];
        average_pool(&x, from, to, &mut y);
        y
    };
    let (s, t) = (pooled(student, s_map, at[0]), pooled(teacher, t_map, at[1]));
    let mut d_met = vec![T::ZERO; s.len()];
    let loss = f(&s, &t, at, &mut d_met);
    let mut d = vec![T::ZERO; student.values.len()];
    average_pool_back(&d_met, s_map, at[0], &mut d);
    Found::student(loss, d)
}

/// `[batch, length, channels]` as `[batch, channels, length]`, or back.
fn turned<T: Real>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    let place = |i: usize| {
        let (sample, at) = (i / (rows * columns), i % (rows * columns));
        sample * rows * columns + at % rows * columns + at / rows
    };
    (0..x.len()).map(|i| x[place(i)]).collect()
}

/// The last two sizes.
fn matrix(array: &Array) -> Result<[usize; 2], Failure> {
    match array.shape[..] {
        [.., rows, columns] => Ok([rows, columns]),
        _ => Err(format!("shape {:?}", array.shape)),
    }
}

fn compute_ab<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let reduction = params(case)["reduction"].as_str().unwrap_or("sum");
    met(case, |s, t, _, d| {
        let batch = case.get("student").map_or(1, |array| array.shape[0]);
        let factor = T::from_f64(ab::factor(reduction, batch, s.len()));
        let margin = number(case, "mu").unwrap_or(f64::NAN);
        ab::activation_boundary(s, t, T::from_f64(margin), factor, d)
    })
}

fn compute_ab_official<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (margin, scale) = (T::from_f64(number(case, "mu")?), number(case, "scale")?);
    let pairs = (0..).take_while(|i| case.optional(&format!("student{i}")).is_some()).count();
    let mut found = Found { loss: T::ZERO, arrays: vec![] };
    for i in 0..pairs {
        let (student, teacher) = (case.get(&format!("student{i}"))?, case.get(&format!("teacher{i}"))?);
        let factor = scale * ab::halved(i, pairs) / student.shape[0] as f64;
        let mut d = vec![T::ZERO; student.values.len()];
        found.loss +=
            ab::activation_boundary(&student.cast::<T>(), &teacher.cast::<T>(), margin, T::from_f64(factor), &mut d);
        found.arrays.push((format!("grad.student{i}"), d));
    }
    Ok(found)
}

fn compute_at<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (power, paper) = (number(case, "p")? as usize, params(case)["mode"] == "paper");
    met(case, |s, t, [ours, theirs], d| {
        at::attention_distance(s, t, [ours.channels, theirs.channels], ours.places(), power, paper, d)
    })
}

fn compute_cosine<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    met(case, |s, t, [ours, _], d| cosine::angle(s, t, ours.channels, 1, d))
}

fn compute_fsp<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let arrays = ["student_a", "student_b", "teacher_a", "teacher_b"].map(|name| case.get(name));
    let [student_a, student_b, teacher_a, teacher_b] = arrays;
    let student = [student_a?, student_b?];
    let teacher = [teacher_a?, teacher_b?];
    let flow = |[a, b]: [&Array; 2]| Ok::<_, Failure>(fsp::Flow { from: map(a)?.1, to: map(b)?.1 });
    let flows = [flow(student)?, flow(teacher)?];
    let cells = if params(case)["variant"] == "mean" { flows[0].from.channels * flows[0].to.channels } else { 1 };
    let factor = T::from_f64(1.0 / (student[0].shape[0] * cells) as f64);
    let [mut d_a, mut d_b] = student.map(|array| vec![T::ZERO; array.values.len()]);
    let [s_a, s_b] = student.map(Array::cast::<T>);
    let [t_a, t_b] = teacher.map(Array::cast::<T>);
    let loss = fsp::flow_distance([&s_a, &s_b], [&t_a, &t_b], flows, factor, [&mut d_a, &mut d_b]);
    Ok(Found { loss, arrays: vec![("grad.student_a".into(), d_a), ("grad.student_b".into(), d_b)] })
}

fn compute_ft<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let power = number(case, "p2")? as usize;
    met(case, |s, t, [ours, theirs], d| {
        ft::factor_distance(s, t, [ours.channels, theirs.channels], ours.places(), power, d)
    })
}

/// A distance behind an adapter of the executor: value, and gradients of its inputs in order.
fn behind<T: Real>(
    op: impl Into<ops::Op>,
    inputs: &[&Array],
    shape: Vec<usize>,
    distance: impl Fn(&[T], &mut [T]) -> T,
) -> Result<(T, Vec<Vec<T>>), Failure> {
    let op = op.into();
    let mode = Mode::Train { seed: 0 };
    let mut d_y = Array { values: vec![0.0; shape.iter().product()], shape };
    let y = run::<T>(&op, inputs, &[], &d_y, mode)?.y;
    let mut d = vec![T::ZERO; y.len()];
    let value = distance(&y, &mut d);
    d_y.values = d.into_iter().map(Real::to_f64).collect();
    Ok((value, run::<T>(&op, inputs, &[], &d_y, mode)?.gradients))
}

fn compute_hint<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let teacher = case.get("teacher")?.cast::<T>();
    let batch = case.get("student")?.shape[0];
    let half = params(case)["reduction"] != "mean";
    let factor = T::from_f64(if half { 0.5 / batch as f64 } else { 1.0 / teacher.len() as f64 });
    let Some(weight) = case.optional("weight") else {
        return met(case, |s, t, _, d| fitnets::squared_distance(s, t, factor, d));
    };
    let weight = Array { shape: [&weight.shape[..], &[1, 1]].concat(), values: weight.values.clone() };
    let inputs = [case.get("student")?, &weight, case.get("bias")?];
    let op = ops::conv::Conv { window: ops::window::Window::default(), group: 1 };
    let shape = case.get("teacher")?.shape.clone();
    let (loss, gradients) = behind::<T>(op, &inputs, shape, |y, d| fitnets::squared_distance(y, &teacher, factor, d))?;
    let names = ["grad.student", "grad.weight", "grad.bias"].map(String::from);
    Ok(Found { loss, arrays: names.into_iter().zip(gradients).collect() })
}

fn compute_minilm<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let heads = number(case, "heads")? as usize;
    let load = |name: &str| {
        let array = case.get(name)?;
        let [length, channels] = matrix(array)?;
        Ok::<_, Failure>((turned(&array.cast::<T>(), length, channels), length, channels))
    };
    let (((q, length, ours), (k, ..), (v, ..)), ((q_t, _, theirs), (k_t, ..), (v_t, ..))) =
        ((load("sq")?, load("sk")?, load("sv")?), (load("tq")?, load("tk")?, load("tv")?));
    let mut d = [0; 3].map(|_| vec![T::ZERO; q.len()]);
    let [d_q, d_k, d_v] = &mut d;
    let channels = [ours, theirs];
    let divergence = attention_relation::relation_divergence::<T>;
    let attention = divergence([&q, &k], [&q_t, &k_t], channels, length, heads, d_q, Some(d_k));
    let value = divergence([&v, &v], [&v_t, &v_t], channels, length, heads, d_v, None);
    let mut arrays = vec![("out.attention".to_string(), vec![attention]), ("out.value".to_string(), vec![value])];
    for (name, d) in ["grad.sq", "grad.sk", "grad.sv"].into_iter().zip(&d) {
        arrays.push((name.to_string(), turned(d, ours, length)));
    }
    Ok(Found { loss: attention + value, arrays })
}

fn compute_nst<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    met(case, |s, t, [ours, theirs], d| nst::selectivity(s, t, [ours.channels, theirs.channels], ours.places(), d))
}

fn compute_ofd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let scale = number(case, "scale")?;
    let norm = case.get("bn_weight")?.values.iter().zip(&case.get("bn_bias")?.values);
    let margins: Vec<T> = norm.map(|(&scale, &bias)| T::from_f64(ofd::margin(scale, bias))).collect();
    let mut found = met(case, |s, t, [ours, _], d| {
        let batch = s.len() / ours.elements();
        ofd::partial_distance(s, t, &margins, ours.places(), T::from_f64(scale / batch as f64), d)
    })?;
    found.arrays.push(("out.margin".into(), margins));
    Ok(found)
}

fn compute_hcl<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let mut found = Found { loss: T::ZERO, arrays: vec![] };
    for i in 0.. {
        let Some(student) = case.optional(&format!("student{i}")) else { break };
        let (s, t) = (student.cast::<T>(), case.get(&format!("teacher{i}"))?.cast::<T>());
        let mut d = vec![T::ZERO; s.len()];
        found.loss += review::hierarchical(&s, &t, map(student)?.1, &mut d);
        found.arrays.push((format!("grad.student{i}"), d));
    }
    Ok(found)
}

fn compute_softdtw<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, teacher) = (case.get("student")?, case.get("teacher")?);
    let ([n, channels], [m, _]) = (matrix(student)?, matrix(teacher)?);
    let (s, t) = (turned(&student.cast::<T>(), n, channels), turned(&teacher.cast::<T>(), m, channels));
    let mut d = vec![T::ZERO; s.len()];
    let (gamma, divergence) = (number(case, "gamma")?, params(case)["divergence"] == true);
    let mut tables = soft_dtw::Tables::default();
    let loss = soft_dtw::alignment(&s, &t, [student.shape[0], channels], gamma, divergence, &mut tables, &mut d);
    Found::student(loss, turned(&d, channels, n))
}

/// Attention, hidden states and (soft cross-entropy over all elements) predictions.
fn compute_tinybert<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (student, teacher) = (case.get("student")?, case.get("teacher")?);
    let (s, t) = (student.cast::<T>(), teacher.cast::<T>());
    let share = T::from_f64(1.0 / t.len() as f64);
    let mut d = vec![T::ZERO; s.len()];
    if let Ok(floor) = number(case, "floor") {
        let loss = tinybert_attention::scores_distance(&s, &t, T::from_f64(floor), share, &mut d);
        return Found::student(loss, d);
    }
    if let Ok(tau) = number(case, "tau") {
        // The cross-entropy with soft targets is their divergence and the teacher's entropy.
        let classes = student.shape[1];
        let (reduction, tau) = (kd_trainer::losses::rows::Reduction::ElementMean, T::from_f64(tau));
        let loss = kd_trainer::losses::kd::soft_targets(&s, &t, classes, tau, reduction, false, &mut d);
        let mut entropy = T::ZERO;
        for row in t.chunks_exact(classes) {
            let shift = kd_trainer::losses::rows::log_sum_exp(row, T::ONE / tau);
            for &z in row {
                let log_p = z / tau - shift;
                entropy += -log_p.exp() * log_p * share;
            }
        }
        return Found::student(loss + entropy, d);
    }
    let [_, inputs] = matrix(student)?;
    let [_, outputs] = matrix(teacher)?;
    let rows = Array { shape: vec![s.len() / inputs, inputs], values: student.values.clone() };
    let op = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let inputs = [&rows, case.get("weight")?, case.get("bias")?];
    let shape = vec![t.len() / outputs, outputs];
    let (loss, gradients) = behind::<T>(op, &inputs, shape, |y, d| fitnets::squared_distance(y, &t, share, d))?;
    let names = ["grad.student", "grad.weight", "grad.bias"].map(String::from);
    Ok(Found { loss, arrays: names.into_iter().zip(gradients).collect() })
}

fn compute_vid<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let log_scale = case.get("log_scale")?.cast::<T>();
    let least = number(case, "eps")?;
    let mut d_log_scale = vec![T::ZERO; log_scale.len()];
    let mut found =
        met(case, |s, t, [ours, _], d| vid::information(s, t, &log_scale, ours.places(), least, d, &mut d_log_scale))?;
    found.arrays.push(("grad.log_scale".into(), d_log_scale));
    Ok(found)
}
