//! Hints: a value inside the teacher that the student regresses.

use kd_runtime::Result;

use super::adapters::{Connector, connect, student, teacher};
use super::joint::{Joint, PairLoss};
use super::maps::sum_pairs;
use super::{Knowledge, Loss, Method, Pair};
use crate::exec::Real;
use crate::options::{Kind, Options, Spec};

/// The row of `fitnets`.
pub static METHOD: Method = Method {
    name: "fitnets",
    about: "hints: the student regresses a middle value of the teacher (Romero et al. 2015)",
    knowledge: Knowledge::Feature,
    formula: "`mean (r(s) - t)²` over all elements, with `r` a trained regressor: a 1x1 convolution, a batch norm and a ReLU \
        (RepDistiller's; `regressor = \"conv_norm\"` for taps before an activation, `\"conv\"` as RKD's code). The paper has half \
        the squared norm of each sample (`reduction = \"half_batch\"`).\n\n\
        In the paper the hint trains the lower half of the student first, then soft targets all of it: `stage = \"init\"` with \
        `init_epochs` above 0, then `kd`. Usual weight: 100.",
    source: "Romero et al. 2015 (arXiv 1412.6550) eq. 3",
    options: OPTIONS,
    build,
};

/// Options of the method `fitnets`.
pub static OPTIONS: &[Spec] = &[
    student("middle"),
    teacher("middle"),
    Spec {
        name: "regressor",
        about: "what the student's taps go through",
        kind: Kind::Choice { default: "conv_norm_relu", known: &["conv_norm_relu", "conv_norm", "conv"] },
    },
    Spec {
        name: "reduction",
        about: "`mean` over all elements, or half the sum divided by the batch (`half_batch`)",
        kind: Kind::Choice { default: "mean", known: &["mean", "half_batch"] },
    },
];

/// `factor · Σ (s - t)²` over all elements.
///
/// * `student`, `teacher`: of any shape, the same for both.
/// * `d_student`: overwritten with `2 · factor · (s - t)`.
pub fn squared_distance<T: Real>(student: &[T], teacher: &[T], factor: T, d_student: &mut [T]) -> T {
    let slope = factor + factor;
    let sum = sum_pairs(student, teacher, d_student, |s, t| {
        let off = s - t;
        (off * off, slope * off)
    });
    T::from_f64(sum) * factor
}

/// The method `fitnets`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let regressor = match options.text("regressor") {
        "conv" => Connector { bias: false, ..Connector::LINEAR },
        "conv_norm" => Connector::NORM,
        _ => Connector { relu: true, ..Connector::NORM },
    };
    let mut taps = pair.taps(options.text("student"), options.text("teacher"))?;
    for (i, (from, to)) in taps.iter_mut().enumerate() {
        *from = connect(pair, from, to, i, regressor)?;
    }
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let half = options.text("reduction") == "half_batch";
    Ok(PairLoss::boxed(&taps, joints, move |compared, s, t, d| {
        let factor = if half { 0.5 / compared.batch as f64 } else { 1.0 / s.len() as f64 };
        squared_distance(s, t, factor as f32, d)
    }))
}
