//! Activation boundaries.

use kd_runtime::Result;

use super::adapters::{CONNECTOR, Connector, connect_all, student, teacher};
use super::joint::{Compared, Joint, OnGpu, PairLoss};
use super::maps::sum_pairs;
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::options::{Kind, Options, Range, Spec};
use crate::recipe::stages::{STAGE2, WORDS};

/// The row of `ab`.
pub static METHOD: Method = Method {
    name: "ab",
    about: "activation boundaries: which neurons are on",
    cite: "Heo et al. 2019",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`scale · Σ_l weight_l · Σ ([t > 0]·max(margin - s, 0)² + [t ≤ 0]·max(margin + s, 0)²)` over the neurons of each pair \
        of taps, divided by the batch (`reduction`), with `s` the connected student's and `t` the teacher's value before the \
        activation; `weight_l = 2^-(L-1-l)`, the deepest of L pairs 1. A teacher's value of exactly 0 is off. The connector is a 1x1 \
        convolution without bias and a batch norm, first weights He-normal by fan-out; it is dropped with the stage.\n\n\
        The method initializes: it alone is trained in `init_epochs` (left out, an eighth of `[train] epochs`), before `[train]`, \
        whose loss is then the task's and `kd`. `stage2 = \"kd_only\"` is the authors' second stage (CIFAR-10), `\"ce\"` \
        RepDistiller's, `\"joint\"` keeps the term beside the task's loss instead. Other terms of the recipe count in `[train]`; \
        a `stage` of the term says it all by hand. Authors' scale: 3/1000 for CIFAR, 1/1000 for \
        MIT scenes; a sum over neurons grows with the maps, so for series `reduction = \"mean\"`, of which `scale` is 1 when left \
        out, and a weight of 1 to 10.\n\n\
        Official code differs: the authors' teacher is in train mode in the first stage, so that its running statistics drift; \
        here it never is. Their `criterion_alternative_L2` is this function. RepDistiller's connectors are 3x3 or 4x4 with bias; \
        its training prints a sum over the batch.",
    source: "Heo, Lee, Yun, Choi 2019 (arXiv 1811.03233) eq. 4 and 7",
    weight: Weight { usual: 1.0, source: "RepDistiller; `scale` is the authors' 3/1000", forms: &[] },
    recipe: "init_epochs = 5\nterms = [{ method = \"ab\", stage = \"init\" }, { method = \"kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `ab`.
pub static OPTIONS: &[Spec] = &[
    student("stages.pre"),
    teacher("stages.pre"),
    Spec {
        name: "margin",
        about: "how far from 0 a neuron must be on its side",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
    Spec {
        name: "reduction",
        about: "sum over neurons divided by the batch (`batch`), `sum` over both, or `mean` over both",
        kind: Kind::Choice { default: "batch", known: &["batch", "sum", "mean"] },
    },
    Spec {
        name: "scale",
        about: "factor of the whole term",
        kind: Kind::Optional {
            kind: &Kind::Number { default: SCALE, range: Range::Positive },
            left_out: "0.003; of the reduction `mean` 1.0",
        },
    },
    Spec {
        name: "layer_weights",
        about: "the deepest pair counts 1, each before it half of the next (`halved`), or all 1 (`flat`)",
        kind: Kind::Choice { default: "halved", known: &["halved", "flat"] },
    },
    CONNECTOR,
    Spec {
        name: STAGE2,
        about: "what follows, where the term has no `stage`: the task and `kd` (`ce_kd`), `kd` alone at temperature 3 without \
                temperature² and `task_weight = 0` (`kd_only`), the task alone (`ce`), or no stage of its own (`joint`)",
        kind: Kind::Optional {
            kind: &Kind::Choice { default: "ce_kd", known: WORDS },
            left_out: "ce_kd; ce beside other terms; joint in a codistillation",
        },
    },
];

/// The authors' factor, of a sum over neurons.
const SCALE: f64 = 0.003;

/// `factor · Σ ([t > 0]·max(margin - s, 0)² + [t ≤ 0]·max(margin + s, 0)²)` over all neurons.
///
/// * `student`, `teacher`: values before the activation, of any shape, the same for both.
/// * `d_student`: overwritten with `∓2 · factor · max(margin ∓ s, 0)`; 0 exactly at the margin.
///
/// Source: Heo et al. 2019 (arXiv 1811.03233) eq. 4.
pub fn activation_boundary<T: Real>(student: &[T], teacher: &[T], margin: T, factor: T, d_student: &mut [T]) -> T {
    let slope = -(factor + factor);
    let sum = sum_pairs(student, teacher, d_student, |s, t| {
        let side = if t > T::ZERO { T::ONE } else { -T::ONE };
        let missing = margin - side * s;
        // Written so that a NaN stays.
        let missing = if missing < T::ZERO { T::ZERO } else { missing };
        (missing * missing, slope * side * missing)
    });
    T::from_f64(sum) * factor
}

/// What the sum over the neurons of a pair is multiplied by.
pub fn factor(reduction: &str, batch: usize, elements: usize) -> f64 {
    match reduction {
        "sum" => 1.0,
        "mean" => 1.0 / elements as f64,
        _ => 1.0 / batch as f64,
    }
}

/// `2^-(pairs-1-pair)`: the deepest pair 1, each before it half of the next.
pub fn halved(pair: usize, pairs: usize) -> f64 {
    0.5_f64.powi((pairs - 1 - pair) as i32)
}

/// The method `ab`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let taps = pair.taps(options.text("student"), options.text("teacher"))?;
    let taps = connect_all(pair, options, taps, Connector::NORM)?;
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let margin = options.number("margin") as f32;
    let (reduction, flat) = (options.text("reduction").to_string(), options.text("layer_weights") == "flat");
    let left_out = if reduction == "mean" { 1.0 } else { SCALE };
    let scale = options.optional("scale", Options::number).unwrap_or(left_out);
    let pairs = joints.len();
    let factor = move |compared: Compared, elements| {
        let weight = if flat { 1.0 } else { halved(compared.pair, pairs) };
        (scale * weight * factor(&reduction, compared.batch, elements)) as f32
    };
    let of_gpu = factor.clone();
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let factor = of_gpu(compared, sides[0].len());
        gpu::losses::ab::activation_boundary(gpu, compared.pair > 0, sides, margin, factor, given);
        Ok(())
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), move |compared, s, t, d| {
        activation_boundary(s, t, margin, factor(compared, s.len()), d)
    }))
}
