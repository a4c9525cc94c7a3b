//! Relations: the probability that one sample is another's neighbour.

use std::cell::RefCell;

use kd_runtime::Result;

use super::relation::{Units, gram, gram_backward, to_f64, write};
use super::taps::{OnGpu, STUDENT_FEATURES, TEACHER_FEATURES, relations};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::relations::{Relations, Similarity};
use crate::options::{Options, Spec};

/// The row of `pkt`.
pub static METHOD: Method = Method {
    name: "pkt",
    about: "probabilistic transfer of neighbourhoods",
    cite: "Passalis, Tefas 2018",
    knowledge: Knowledge::Relation,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "mean over `batch²` of `P_teacher · ln((P_teacher + ε) / (P_student + ε))`, ε = 1e-7: `P[i, j]` is `(cos + 1) \
        / 2` of two samples' features, divided by its row's sum, the diagonal included; lengths have ε added.\n\n\
        Nothing flows through the length of a row of zeros (the copies in RepDistiller and mdistiller give NaN \
        there), but its gradient is still divided by ε: take features that a ReLU cannot make all zero.",
    source: "Passalis, Tefas 2018 (arXiv 1803.10837) eq. 4-8",
    weight: Weight { usual: 30000.0, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"pkt\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `pkt`.
pub static OPTIONS: &[Spec] = &[STUDENT_FEATURES, TEACHER_FEATURES];

/// Added to lengths and probabilities.
const EPSILON: f64 = 1e-7;

/// Probabilities `[n, n]` of one side, its unit rows, and the sums of its rows before they were divided.
fn neighbours(x: &[f64], columns: usize) -> (Units, Vec<f64>, Vec<f64>) {
    let units = Units::new(x, columns, EPSILON);
    let mut p = gram(&units.rows, columns);
    let n = x.len() / columns.max(1);
    p.iter_mut().for_each(|p| *p = (*p + 1.0) / 2.0);
    let sums: Vec<f64> = p.chunks_exact(n.max(1)).map(|row| row.iter().sum()).collect();
    for (row, sum) in p.chunks_exact_mut(n.max(1)).zip(&sums) {
        row.iter_mut().for_each(|p| *p /= sum);
    }
    (units, p, sums)
}

/// `mean P_t ln((P_t + ε) / (P_s + ε))` of rows `[batch, columns]` of each side. `d_student` is overwritten. Passalis, Tefas
/// 2018 (arXiv 1803.10837) eq. 4-8.
pub fn probabilistic<T: Real>(
    [student, teacher]: [&[T]; 2],
    [columns_s, columns_t]: [usize; 2],
    d_student: &mut [T],
) -> f64 {
    let (x, y) = (to_f64(student), to_f64(teacher));
    let n = x.len() / columns_s.max(1);
    let (units, p_s, sums) = neighbours(&x, columns_s);
    let (_, p_t, _) = neighbours(&y, columns_t);
    let scale = 1.0 / (n * n) as f64;
    let mut total = 0.0;
    let mut d = vec![0.0; n * n];
    for ((d, &s), &t) in d.iter_mut().zip(&p_s).zip(&p_t) {
        total += t * ((t + EPSILON) / (s + EPSILON)).ln();
        *d = -t / (s + EPSILON) * scale;
    }
    for ((d, p), sum) in d.chunks_exact_mut(n.max(1)).zip(p_s.chunks_exact(n.max(1))).zip(&sums) {
        let along: f64 = d.iter().zip(p).map(|(d, p)| d * p).sum();
        d.iter_mut().for_each(|d| *d = (*d - along) / (2.0 * sum));
    }
    let mut d = gram_backward(&units.rows, columns_s, &d);
    units.backward(columns_s, &mut d);
    write(&d, d_student);
    total * scale
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let kept = RefCell::<Relations>::default();
    let on_gpu: OnGpu =
        Box::new(move |seen, columns, given| kept.borrow_mut().products(seen, columns, Similarity::Neighbors, given));
    relations(options, pair, 2, Some(on_gpu), |seen, d| {
        probabilistic([seen.student, seen.teacher], seen.columns, d) as f32
    })
}
