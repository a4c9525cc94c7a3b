//! Attention transfer: where a network looks.

use std::cell::RefCell;

use kd_runtime::{Refusal, Result};

use super::adapters::{student, teacher};
use super::joint::{Joint, OnGpu, PairLoss};
use super::maps::{to_unit, to_unit_back};
use super::{Knowledge, Loss, Method, Pair, Tap, Weight};
use crate::exec::Real;
use crate::gpu::losses::at::Attention;
use crate::options::{Kind, Options, Spec};

/// The row of `at`.
pub static METHOD: Method = Method {
    name: "at",
    about: "attention maps over places",
    cite: "Zagoruyko, Komodakis 2017",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "Of each pair of taps `mean (q(s) - q(t))²` over batch and places, with `q` the mean over channels of `|x|^power` at each \
        place, divided by its length over the places; summed over the pairs. The larger map is averaged to the smaller one. \
        No adapter, any channels. This is the authors' code.\n\n\
        The paper's text has the length of the difference instead, and a sum over channels (`form = \"paper\"`, here the mean \
        over the batch, whose weight there is half their β). A vector has one place, whose attention is always 1: name maps.",
    source: "Zagoruyko, Komodakis 2017 (arXiv 1612.03928) eq. 2; their code `utils.py`",
    weight: Weight { usual: 1000.0, source: "RepDistiller", forms: &[("form", "paper", 1.0)] },
    recipe: "terms = [{ method = \"at\" }]\n",
    options: OPTIONS,
    build,
};

/// The option that chooses between code and paper.
pub const FORM: Spec = Spec {
    name: "form",
    about: "mean of squared differences (`code`) or the length of the difference (`paper`)",
    kind: Kind::Choice { default: "code", known: &["code", "paper"] },
};

/// Options of the method `at`.
pub static OPTIONS: &[Spec] = &[
    student("stages"),
    teacher("stages"),
    FORM,
    Spec {
        name: "power",
        about: "exponent of the values' sizes",
        kind: Kind::Count { default: 2, least: 1, most: 16 },
    },
];

/// A channel's value to the power `power`, and the derivative.
fn powers<T: Real>(x: T, power: usize) -> (T, T) {
    let size = x.abs();
    let mut below = T::ONE;
    (1..power).for_each(|_| below *= size);
    let slope = T::from_usize(power) * below;
    let sign = if x < T::ZERO {
        -T::ONE
    } else if x == T::ZERO {
        T::ZERO
    } else {
        T::ONE
    };
    (below * size, slope * sign)
}

/// Attention over the places of one sample `[channels, places]`, of length 1; what it was divided by. `sum`: not divided by
/// the channels before, which matters only below a length of 1e-12.
fn attention<T: Real>(x: &[T], channels: usize, power: usize, sum: bool, q: &mut [T]) -> T {
    q.fill(T::ZERO);
    for row in x.chunks_exact(q.len()) {
        q.iter_mut().zip(row).for_each(|(q, &x)| *q += powers(x, power).0);
    }
    if !sum {
        let share = T::ONE / T::from_usize(channels);
        q.iter_mut().for_each(|q| *q *= share);
    }
    to_unit(q)
}

/// Distance of attention maps, mean over the batch (and over places in the form of the code).
///
/// * `student`: `[batch, channels[0], places]`, `teacher`: `[batch, channels[1], places]`.
/// * `paper`: the length of the difference, with no gradient where it is 0; else its mean square.
/// * `d_student`: overwritten.
///
/// Source: Zagoruyko, Komodakis 2017 (arXiv 1612.03928) eq. 2, and their code.
pub fn attention_distance<T: Real>(
    student: &[T],
    teacher: &[T],
    channels: [usize; 2],
    places: usize,
    power: usize,
    paper: bool,
    d_student: &mut [T],
) -> T {
    let batch = student.len() / (channels[0] * places).max(1);
    let (mut q_s, mut q_t, mut d_q) = (vec![T::ZERO; places], vec![T::ZERO; places], vec![T::ZERO; places]);
    let samples = student.chunks_exact(channels[0] * places).zip(teacher.chunks_exact(channels[1] * places));
    let mut total = 0.0;
    for ((s, t), d) in samples.zip(d_student.chunks_exact_mut(channels[0] * places)) {
        let divisor = attention(s, channels[0], power, paper, &mut q_s);
        attention(t, channels[1], power, paper, &mut q_t);
        d_q.iter_mut().zip(q_s.iter().zip(&q_t)).for_each(|(d, (&s, &t))| *d = s - t);
        let square: f64 = d_q.iter().map(|d| d.to_f64() * d.to_f64()).sum();
        let scale = if !paper {
            total += square / (batch * places) as f64;
            2.0 / (batch * places) as f64
        } else {
            total += square.sqrt() / batch as f64;
            if square > 0.0 { 1.0 / (square.sqrt() * batch as f64) } else { 0.0 }
        };
        let scale = T::from_f64(scale);
        d_q.iter_mut().for_each(|d| *d *= scale);
        to_unit_back(&q_s, divisor, &mut d_q);
        let share = if paper { T::ONE } else { T::ONE / T::from_usize(channels[0]) };
        for (row, d) in s.chunks_exact(places).zip(d.chunks_exact_mut(places)) {
            let places = row.iter().zip(&d_q);
            d.iter_mut().zip(places).for_each(|(d, (&x, &d_q))| *d = d_q * share * powers(x, power).1);
        }
    }
    T::from_f64(total)
}

/// The method `at`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let taps = pair.taps_that(student, teacher, |s, t| places(s, t, false))?;
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let (power, paper) = (options.count("power"), options.text("form") == "paper");
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu(power, paper)), move |compared, s, t, d| {
        let channels = [compared.student.channels, compared.teacher.channels];
        attention_distance(s, t, channels, compared.student.places(), power, paper, d)
    }))
}

/// What a GPU does of a pair.
pub fn on_gpu(power: usize, paper: bool) -> OnGpu {
    let kept = RefCell::<Attention>::default();
    Box::new(move |compared, gpu, sides, given| {
        let maps = ([compared.student.channels, compared.teacher.channels], compared.student.places());
        kept.borrow_mut().distance(gpu, compared.pair > 0, sides, maps, (power, paper), given)
    })
}

/// Refuses a pair that has a single place in common, whose attention says nothing.
pub fn places(student: &Tap, teacher: &Tap, tokens: bool) -> Result<()> {
    if Joint::common(student, teacher, tokens)?.maps().0.places() > 1 {
        return Ok(());
    }
    let at = format!("taps `{}` and `{}`", student.name, teacher.name);
    let found = format!("{:?} and {:?}", student.shape, teacher.shape);
    Err(Refusal::new(at, "at least 2 places in common", found, "name larger maps of both, or choose another method"))
}
