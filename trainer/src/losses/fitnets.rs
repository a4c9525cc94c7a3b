//! Hints: a value inside the teacher that the student regresses.

use kd_runtime::Result;

use super::adapters::{Connector, connect, student, teacher};
use super::joint::{Compared, Joint, OnGpu, PairLoss};
use super::maps::sum_pairs;
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `fitnets`.
pub static METHOD: Method = Method {
    name: "fitnets",
    about: "hints: the student regresses a middle value of the teacher",
    cite: "Romero et al. 2015",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (r(s) - t)²` over all elements, with `r` a trained regressor: a 1x1 convolution, a batch norm and a ReLU \
        (RepDistiller's), of vectors a linear layer in place of the convolution. `regressor = \"conv_norm\"` is without the ReLU, and is \
        taken where it is left out and the teacher's value may be negative (before an activation; `ts_transformer`, `lstm`, `gru`, the \
        stages of `mobilenet_v2` and `wrn`), which a note tells; `\"conv\"` as RKD's code: the convolution alone, without bias (a linear \
        layer keeps its bias). The paper has half \
        the squared norm of each sample (`reduction = \"half_batch\"`). Other distances than `(r(s) - t)²` with `x = r(s) - t`: \
        `absolute` |x|; `huber` x² / 2 up to delta, delta·(|x| - delta / 2) beyond; `smooth_l1` that divided by delta.\n\n\
        In the paper the hint trains the lower half of the student first, then soft targets all of it: `stage = \"init\"` with \
        `init_epochs` above 0, then `kd`.",
    source: "Romero et al. 2015 (arXiv 1412.6550) eq. 3",
    weight: Weight { usual: 100.0, source: "RepDistiller", forms: &[("reduction", "half_batch", 1.0)] },
    recipe: "init_epochs = 5\nterms = [{ method = \"fitnets\", stage = \"init\" }, { method = \"kd\" }]\n",
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
        kind: Kind::Optional {
            kind: &Kind::Choice { default: "conv_norm_relu", known: &["conv_norm_relu", "conv_norm", "conv"] },
            left_out: "conv_norm_relu; conv_norm where the teacher's value may be negative",
        },
    },
    Spec {
        name: "reduction",
        about: "`mean` over all elements, or half the sum divided by the batch (`half_batch`)",
        kind: Kind::Choice { default: "mean", known: &["mean", "half_batch"] },
    },
    Spec {
        name: "distance",
        about: "how far an element is from the teacher's: `squared`, or one that outliers pull less",
        kind: Kind::Choice { default: "squared", known: DISTANCES },
    },
    Spec {
        name: "delta",
        about: "of `huber` and `smooth_l1`: where the parabola ends",
        kind: Kind::Optional { kind: &Kind::Number { default: 1.0, range: Range::Positive }, left_out: "1.0" },
    },
];

/// The words of the option `distance`.
pub const DISTANCES: &[&str] = &["squared", "absolute", "huber", "smooth_l1"];

/// How far two elements are from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance<T> {
    /// x².
    Squared,
    /// |x|; the slope at 0 is 0.
    Absolute,
    /// x² / 2 up to delta, `delta · (|x| - delta / 2)` beyond (Huber 1964).
    Huber(T),
    /// [`Distance::Huber`] divided by delta (Girshick 2015, arXiv 1504.08083, with delta 1).
    SmoothL1(T),
}

impl<T: Real> Distance<T> {
    /// The distance of a word of [`DISTANCES`].
    pub fn of(word: &str, delta: T) -> Self {
        match word {
            "absolute" => Self::Absolute,
            "huber" => Self::Huber(delta),
            "smooth_l1" => Self::SmoothL1(delta),
            _ => Self::Squared,
        }
    }
}

/// `factor · Σ (s - t)²` over all elements; arrays as of [`total_distance`].
pub fn squared_distance<T: Real>(student: &[T], teacher: &[T], factor: T, d_student: &mut [T]) -> T {
    total_distance(student, teacher, Distance::Squared, factor, d_student)
}

/// `factor · Σ distance(s - t)` over all elements.
///
/// * `student`, `teacher`: of any shape, the same for both.
/// * `d_student`: overwritten with the gradient; of `Squared` `2 · factor · (s - t)`.
pub fn total_distance<T: Real>(
    student: &[T],
    teacher: &[T],
    distance: Distance<T>,
    factor: T,
    d_student: &mut [T],
) -> T {
    let half = T::from_f64(0.5);
    let huber = |x: T, delta: T, factor: T| {
        let slope = if x > delta {
            delta
        } else if x < -delta {
            -delta
        } else {
            x
        };
        (slope * (x - half * slope), factor * slope)
    };
    let sum = match distance {
        Distance::Squared => {
            sum_pairs(student, teacher, d_student, |s, t| ((s - t) * (s - t), (factor + factor) * (s - t)))
        }
        Distance::Absolute => sum_pairs(student, teacher, d_student, |s, t| match s - t {
            x if x > T::ZERO => (x, factor),
            x if x < T::ZERO => (-x, -factor),
            x => (x, T::ZERO),
        }),
        Distance::Huber(delta) => sum_pairs(student, teacher, d_student, |s, t| huber(s - t, delta, factor)),
        Distance::SmoothL1(delta) => {
            let by_delta = T::ONE / delta;
            sum_pairs(student, teacher, d_student, |s, t| {
                let (value, slope) = huber(s - t, delta, factor);
                (value * by_delta, slope * by_delta)
            })
        }
    };
    T::from_f64(sum) * factor
}

/// The method `fitnets`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let chosen = options.optional("regressor", Options::text);
    let mut taps = pair.taps(options.text("student"), options.text("teacher"))?;
    let mut signed = Vec::new();
    for (i, (from, to)) in taps.iter_mut().enumerate() {
        let is_signed = chosen.is_none() && !pair.teacher_is_never_negative(to);
        signed.extend(is_signed.then(|| format!("the teacher's `{}`", to.name)));
        let regressor = match chosen {
            Some("conv") => Connector { bias: false, ..Connector::LINEAR },
            Some("conv_norm") => Connector::NORM,
            _ => Connector { relu: !is_signed, ..Connector::NORM },
        };
        *from = connect(pair, from, to, i, regressor)?;
    }
    pair.note_no_relu("its regressor", &signed);
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let half = options.text("reduction") == "half_batch";
    let word = options.text("distance");
    if matches!(word, "squared" | "absolute") {
        let expected = "distance = \"huber\" or \"smooth_l1\"";
        options.refuse_set(&["delta"], expected, &format!("distance = \"{word}\""))?;
    }
    let distance = Distance::of(word, options.optional("delta", Options::number).unwrap_or(1.0) as f32);
    let factor = move |compared: Compared, elements: usize| {
        (if half { 0.5 / compared.batch as f64 } else { 1.0 / elements as f64 }) as f32
    };
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let factor = factor(compared, sides[0].len());
        gpu::losses::fitnets::total_distance(gpu, 0, compared.pair > 0, sides, distance, factor, given);
        Ok(())
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), move |compared, s, t, d| {
        total_distance(s, t, distance, factor(compared, s.len()), d)
    }))
}
