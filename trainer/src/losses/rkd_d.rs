//! Relations: distances between samples.

use std::cell::RefCell;

use kd_runtime::Result;

use super::relation::{huber, pull, read, squared_distances, write};
use super::taps::{OnGpu, STUDENT_FEATURES, TEACHER_FEATURES, relations};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::relations::Relations;
use crate::options::{Kind, Options, Spec};

/// The row of `rkd_d`.
pub static METHOD: Method = Method {
    name: "rkd_d",
    about: "relational: distances of samples",
    cite: "Park et al. 2019",
    knowledge: Knowledge::Relation,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "mean over all `batch²` pairs of `huber(d_student[i, j] / μ_student - d_teacher[i, j] / μ_teacher)`: d is the \
        Euclidean distance of two samples' features, μ the mean distance of this batch, Huber's delta is 1. The \
        student's μ is part of the gradient: a student times 7 has the same loss.\n\n\
        Options where code differs: `mu = \"distinct\"` averages over pairs of different places (the paper), \
        `\"nonzero\"` over distances above 0 (the authors), `\"all\"` over batch² (a seed paper's letter). `zero = \
        \"clamp\"` counts coincident samples at distance 1e-6 (the authors; μ is then the same for the first two), \
        `\"exact\"` at 0. `reduction = \"sum\"` is the paper's, `\"mean_distinct\"` divides by the pairs of \
        different places. In all of them coincident samples get no gradient from each other. Distances are of \
        differences, in f64; the authors' Gram form is off by 1.4 for two equal samples 100 away from 0 in f32.",
    source: "Park et al. 2019 (arXiv 1904.05068) eq. 5-8",
    weight: Weight {
        usual: 25.0,
        source: "RepDistiller, beside the labels at 1; the paper has 1 without them",
        forms: &[("reduction", "sum", 1.0)],
    },
    recipe: "terms = [{ method = \"rkd_d\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `rkd_d`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_FEATURES,
    TEACHER_FEATURES,
    Spec {
        name: "mu",
        about: "the distances whose mean all are divided by",
        kind: Kind::Choice { default: "distinct", known: MEANS },
    },
    Spec {
        name: "zero",
        about: "distance of coincident samples: 1e-6 (`clamp`) or 0 (`exact`)",
        kind: Kind::Choice { default: "clamp", known: &["clamp", "exact"] },
    },
    Spec {
        name: "reduction",
        about: "`mean` over batch², over pairs of different places, or `sum`",
        kind: Kind::Choice { default: "mean", known: REDUCTIONS },
    },
    L2NORM,
];

/// The option of both relations of Park et al.
pub const L2NORM: Spec = Spec {
    name: "l2norm",
    about: "whether each sample's features are divided by their length first",
    kind: Kind::Flag { default: false },
};

const MEANS: &[&str] = &["distinct", "nonzero", "all"];

/// The words of a reduction over pairs or triples.
pub const REDUCTIONS: &[&str] = &["mean", "mean_distinct", "sum"];

/// The smallest squared distance under `clamp`.
const LEAST_SQUARE: f64 = 1e-12;

/// Options of [`distances`].
#[derive(Clone, Debug)]
pub struct Form {
    /// A word of the option `mu`.
    pub mu: String,
    /// Whether coincident samples are 1e-6 apart.
    pub clamp: bool,
    /// A word of [`REDUCTIONS`].
    pub reduction: String,
    /// Whether rows are divided by their lengths.
    pub l2norm: bool,
}

/// Distances of one side and their mean; `None` if there is no distance to average.
struct Side {
    squares: Vec<f64>,
    distances: Vec<f64>,
    mean: f64,
    /// Distances that the mean is of, whether they are 0 or not; the diagonal adds 0.
    counted: f64,
}

impl Side {
    fn new(x: &[f64], columns: usize, form: &Form) -> Option<Self> {
        let n = x.len() / columns.max(1);
        let squares = squared_distances(x, columns);
        let least = if form.clamp { LEAST_SQUARE } else { 0.0 };
        let clamped = squares.iter().map(|&square| if square < least { least } else { square });
        let mut distances: Vec<f64> = clamped.map(f64::sqrt).collect();
        (0..n).for_each(|i| distances[i * n + i] = 0.0);
        let counted = match &*form.mu {
            "nonzero" => distances.iter().filter(|d| **d != 0.0).count(),
            "all" => n * n,
            _ => n * n.saturating_sub(1),
        } as f64;
        let mean = distances.iter().sum::<f64>() / counted;
        (counted > 0.0 && mean != 0.0).then_some(Self { squares, distances, mean, counted })
    }
}

/// `reduce huber(d_s / μ_s - d_t / μ_t)` of rows `[batch, columns]` of each side. `d_student` is overwritten. 0 where a side has
/// no distance above 0 (fewer than 2 samples; all of them equal under `exact`). Park et al. 2019 (arXiv 1904.05068) eq. 5-8.
pub fn distances<T: Real>(
    [student, teacher]: [&[T]; 2],
    [columns_s, columns_t]: [usize; 2],
    form: &Form,
    d_student: &mut [T],
) -> f64 {
    let (x, units) = read(student, columns_s, form.l2norm);
    let (y, _) = read(teacher, columns_t, form.l2norm);
    let n = x.len() / columns_s.max(1);
    let (Some(s), Some(t)) = (Side::new(&x, columns_s, form), Side::new(&y, columns_t, form)) else {
        d_student.fill(T::ZERO);
        return 0.0;
    };
    let pairs = match &*form.reduction {
        "sum" => 1,
        "mean_distinct" => n * (n - 1),
        _ => n * n,
    };
    let scale = 1.0 / pairs as f64;
    let mut total = 0.0;
    let mut along = 0.0;
    let mut slopes = vec![0.0; n * n];
    for ((slope, a), b) in slopes.iter_mut().zip(&s.distances).zip(&t.distances) {
        let (value, by_ratio) = huber(a / s.mean - b / t.mean);
        total += value;
        along += by_ratio * a;
        *slope = by_ratio * scale / s.mean;
    }
    // Through the mean; then from a distance to its square.
    let by_mean = -along * scale / (s.mean * s.mean * s.counted);
    for ((slope, &square), &distance) in slopes.iter_mut().zip(&s.squares).zip(&s.distances) {
        let moves = if form.clamp { square >= LEAST_SQUARE } else { square > 0.0 };
        *slope = if moves { (*slope + by_mean) / (2.0 * distance) } else { 0.0 };
    }
    let mut d = pull(&x, columns_s, &slopes);
    if let Some(units) = units {
        units.backward(columns_s, &mut d);
    }
    write(&d, d_student);
    total * scale
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let form = Form {
        mu: options.text("mu").into(),
        clamp: options.text("zero") == "clamp",
        reduction: options.text("reduction").into(),
        l2norm: options.flag("l2norm"),
    };
    let (of_gpu, kept) = (form.clone(), RefCell::<Relations>::default());
    let on_gpu: OnGpu =
        Box::new(move |seen, columns, given| kept.borrow_mut().distances(seen, columns, &of_gpu, given));
    let on_gpu = Some(on_gpu);
    relations(options, pair, 3, on_gpu, move |seen, d| {
        distances([seen.student, seen.teacher], seen.columns, &form, d) as f32
    })
}
