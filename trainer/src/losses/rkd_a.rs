//! Relations: angles between samples.

use std::cell::RefCell;

use kd_runtime::Result;

use super::relation::{huber, pull, read, squared_distances, write};
use super::rkd_d::{L2NORM, REDUCTIONS};
use super::taps::{OnGpu, STUDENT_FEATURES, TEACHER_FEATURES, relations};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::relations::Relations;
use crate::options::{Kind, Options, Spec};

/// The row of `rkd_a`.
pub static METHOD: Method = Method {
    name: "rkd_a",
    about: "relational: angles of samples",
    cite: "Park et al. 2019",
    knowledge: Knowledge::Relation,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "mean over all `batch³` triples of `huber(cos_student[i, j, k] - cos_teacher[i, j, k])`: `cos = <e_ij, e_kj>` \
        with `e_ij = (x_i - x_j) / |x_i - x_j|` is the cosine of the angle at sample j; Huber's delta is 1. A batch \
        of 2 has no angle.\n\n\
        Two samples that coincide have cosine 0 to all others and give each other no gradient. `zero = \"official\"` \
        has the authors' gradient instead, which divides by 1e-12: one duplicated sample, or two that a ReLU turned \
        into zeros, and it is of size 1e8 to 1e10. `reduction = \"sum\"` and `\"mean_distinct\"` are over triples of \
        different places alone. Cosines come from squared distances of differences in f64 (law of cosines): time \
        O(batch² · features + batch³), memory O(batch² + batch · features).",
    source: "Park et al. 2019 (arXiv 1904.05068) eq. 9-11",
    weight: Weight {
        usual: 50.0,
        source: "RepDistiller, beside the labels at 1; the paper has 2 without them",
        forms: &[("reduction", "sum", 2.0)],
    },
    recipe: "terms = [{ method = \"rkd_a\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `rkd_a`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_FEATURES,
    TEACHER_FEATURES,
    Spec {
        name: "zero",
        about: "gradient of coincident samples: none (`zero`), or divided by 1e-12 (`official`)",
        kind: Kind::Choice { default: "zero", known: &["zero", "official"] },
    },
    Spec {
        name: "reduction",
        about: "`mean` over batch³, over triples of different places, or `sum` over those",
        kind: Kind::Choice { default: "mean", known: REDUCTIONS },
    },
    L2NORM,
];

/// Rows are padded to a multiple of this, so that loops over them are whole blocks.
const BLOCK: usize = 8;
/// The least length of a difference in the authors' code.
const LEAST_LENGTH: f64 = 1e-12;

/// Options of [`angles`].
#[derive(Clone, Debug)]
pub struct Form {
    /// Whether coincident samples get the authors' gradient.
    pub official_zero: bool,
    /// A word of [`REDUCTIONS`].
    pub reduction: String,
    /// Whether rows are divided by their lengths.
    pub l2norm: bool,
}

/// Squared distances `[n, pitch]` of one side, and the inverse distances, 0 for coincident samples and in the padding.
struct Side {
    squares: Vec<f64>,
    inverse: Vec<f64>,
}

impl Side {
    fn new(x: &[f64], columns: usize, n: usize, pitch: usize) -> Self {
        let mut padded = Self { squares: vec![0.0; n * pitch], inverse: vec![0.0; n * pitch] };
        let Self { squares, inverse } = &mut padded;
        let all = squared_distances(x, columns);
        for (i, row) in all.chunks_exact(n.max(1)).enumerate() {
            squares[i * pitch..][..n].copy_from_slice(row);
            let distances = inverse[i * pitch..][..n].iter_mut().zip(row);
            distances.for_each(|(inverse, &square)| *inverse = if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() });
        }
        padded
    }

    fn row(&self, i: usize, pitch: usize) -> [&[[f64; BLOCK]]; 2] {
        [&self.squares, &self.inverse].map(|all| all[i * pitch..][..pitch].as_chunks().0)
    }
}

/// `reduce huber(cos_s - cos_t)` over the angles of rows `[batch, columns]` of each side. `d_student` is overwritten.
///
/// With q the squared distances, `cos = (q_ij + q_kj - q_ik) / (2 √q_ij √q_kj)`: three numbers of the batch's n², all of
/// differences. The rounding of q enters relative to the longer of the two sides, so that a side 10⁶ times shorter than the
/// other still has its cosine to 10⁻¹⁰ in f64. By q: `∂cos/∂q_ij = (1 / √q_kj - cos / √q_ij) / (2 √q_ij)`,
/// `∂cos/∂q_ik = -1 / (2 √q_ij √q_kj)`. Park et al. 2019 (arXiv 1904.05068) eq. 9-11.
pub fn angles<T: Real>(
    [student, teacher]: [&[T]; 2],
    [columns_s, columns_t]: [usize; 2],
    form: &Form,
    d_student: &mut [T],
) -> f64 {
    let (x, units) = read(student, columns_s, form.l2norm);
    let (y, _) = read(teacher, columns_t, form.l2norm);
    let n = x.len() / columns_s.max(1);
    let pitch = n.next_multiple_of(BLOCK);
    let (s, t) = (Side::new(&x, columns_s, n, pitch), Side::new(&y, columns_t, n, pitch));
    let triples = match &*form.reduction {
        "sum" => 1,
        "mean_distinct" => (n * n.saturating_sub(1) * n.saturating_sub(2)).max(1),
        _ => (n * n * n).max(1),
    };
    let scale = 1.0 / triples as f64;
    let mut total = 0.0;
    // By q[i, k], whose vertex is elsewhere, and by q[j, i], whose vertex is j.
    let (mut opposite, mut adjacent) = (vec![0.0; n * pitch], vec![0.0; n * n]);
    for j in 0..n {
        let ([squares_s, inverse_s], [squares_t, inverse_t]) = (s.row(j, pitch), t.row(j, pitch));
        for i in (0..n).filter(|&i| i != j) {
            let at = j * pitch + i;
            let (q_s, r_s, q_t, r_t) = (s.squares[at], s.inverse[at], t.squares[at], t.inverse[at]);
            let (far_s, far_t) = (s.row(i, pitch)[0], t.row(i, pitch)[0]);
            let by_far = opposite[i * pitch..][..pitch].as_chunks_mut::<BLOCK>().0;
            let (mut values, mut by_other, mut by_own) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            for (b, by_far) in by_far.iter_mut().enumerate() {
                for l in 0..BLOCK {
                    let both = r_s * inverse_s[b][l];
                    let cosine = 0.5 * (q_s + squares_s[b][l] - far_s[b][l]) * both;
                    let taught = 0.5 * (q_t + squares_t[b][l] - far_t[b][l]) * (r_t * inverse_t[b][l]);
                    let (value, slope) = huber(cosine - taught);
                    values[l] += value;
                    by_other[l] += slope * inverse_s[b][l];
                    by_own[l] += slope * cosine;
                    by_far[l] -= slope * both;
                }
            }
            total += values.iter().sum::<f64>();
            // An angle has two sides, and each is once i and once k.
            adjacent[j * n + i] = r_s * (by_other.iter().sum::<f64>() - r_s * by_own.iter().sum::<f64>());
            // The "angle" of i with itself: 1, or 0 where i and j coincide. Only batch³ counts it.
            if form.reduction != "mean" && (r_s == 0.0) != (r_t == 0.0) {
                total -= huber(1.0).0;
            }
        }
    }
    for i in 0..n {
        for k in 0..n {
            adjacent[i * n + k] = scale * (adjacent[i * n + k] + 0.5 * opposite[i * pitch + k]);
        }
    }
    let mut d = pull(&x, columns_s, &adjacent);
    if form.official_zero {
        official_gradient(&x, columns_s, [&s, &t], pitch, scale, &mut d);
    }
    if let Some(units) = units {
        units.backward(columns_s, &mut d);
    }
    write(&d, d_student);
    total * scale
}

/// Adds what the authors' code has for coincident samples i and j: the gradient by `e_ij`, divided by 1e-12.
fn official_gradient(x: &[f64], columns: usize, [s, t]: [&Side; 2], pitch: usize, scale: f64, d: &mut [f64]) {
    let n = x.len() / columns.max(1);
    for (j, i) in (0..n * n).map(|place| (place / n, place % n)) {
        if i == j || s.inverse[j * pitch + i] != 0.0 {
            continue;
        }
        for k in 0..n {
            let [at, to, far] = [j * pitch + i, j * pitch + k, i * pitch + k];
            let taught = 0.5 * (t.squares[at] + t.squares[to] - t.squares[far]) * t.inverse[at] * t.inverse[to];
            let weight = 2.0 * scale * huber(-taught).1 * s.inverse[to] / LEAST_LENGTH;
            for c in 0..columns {
                let by_difference = weight * (x[k * columns + c] - x[j * columns + c]);
                d[i * columns + c] += by_difference;
                d[j * columns + c] -= by_difference;
            }
        }
    }
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let form = Form {
        official_zero: options.text("zero") == "official",
        reduction: options.text("reduction").into(),
        l2norm: options.flag("l2norm"),
    };
    let (of_gpu, kept) = (form.clone(), RefCell::<Relations>::default());
    let on_gpu: OnGpu = Box::new(move |seen, columns, given| kept.borrow_mut().angles(seen, columns, &of_gpu, given));
    let on_gpu = Some(on_gpu).filter(|_| !form.official_zero);
    relations(options, pair, 3, on_gpu, move |seen, d| {
        angles([seen.student, seen.teacher], seen.columns, &form, d) as f32
    })
}
