//! Relations: similarities of samples.

use std::cell::RefCell;

use kd_runtime::Result;

use super::adapters::{student, teacher};
use super::relation::{Units, gram, gram_backward, to_f64, write};
use super::taps::{OnGpu, relations};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::relations::{Relations, Similarity};
use crate::options::{Options, Spec};

/// The row of `sp`.
pub static METHOD: Method = Method {
    name: "sp",
    about: "similarity-preserving: Gram matrices of samples",
    cite: "Tung, Mori 2019",
    knowledge: Knowledge::Relation,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "`|G_student - G_teacher|² / batch²` (squared Frobenius norm): `G = F Fᵀ` of the samples' features, \
        flattened, with each row divided by its Euclidean length. Of the last stage, as published; its weight is of the last \
        stage's maps. torchdistill passes p = 1 by position and has rows of L1 length 1, up to 0.34 off.",
    source: "Tung, Mori 2019 (arXiv 1907.09682) eq. 1-4",
    weight: Weight { usual: 3000.0, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"sp\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `sp`.
pub static OPTIONS: &[Spec] = &[student("last"), teacher("last")];

/// `|G_s - G_t|² / batch²` of rows `[batch, columns]` of each side. `d_student` is overwritten. Tung, Mori 2019 (arXiv
/// 1907.09682) eq. 1-4.
pub fn similarities<T: Real>(
    [student, teacher]: [&[T]; 2],
    [columns_s, columns_t]: [usize; 2],
    d_student: &mut [T],
) -> f64 {
    let (x, y) = (to_f64(student), to_f64(teacher));
    let n = x.len() / columns_s.max(1);
    let ours = Units::new(&gram(&x, columns_s), n, 0.0);
    let theirs = Units::new(&gram(&y, columns_t), n, 0.0);
    let scale = 1.0 / (n * n) as f64;
    let mut d: Vec<f64> = ours.rows.iter().zip(&theirs.rows).map(|(a, b)| a - b).collect();
    let total: f64 = d.iter().map(|d| d * d).sum();
    d.iter_mut().for_each(|d| *d *= 2.0 * scale);
    ours.backward(n, &mut d);
    write(&gram_backward(&x, columns_s, &d), d_student);
    total * scale
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let kept = RefCell::<Relations>::default();
    let on_gpu: OnGpu =
        Box::new(move |seen, columns, given| kept.borrow_mut().products(seen, columns, Similarity::Rows, given));
    relations(options, pair, 2, Some(on_gpu), |seen, d| {
        similarities([seen.student, seen.teacher], seen.columns, d) as f32
    })
}
