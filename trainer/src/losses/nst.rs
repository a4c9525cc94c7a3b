//! Neuron selectivity: which channels answer to what.

use std::cell::RefCell;

use kd_runtime::Result;

use super::adapters::{student, teacher};
use super::at::places;
use super::joint::{Joint, OnGpu, PairLoss};
use super::maps::{to_unit, to_unit_back};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::nst::Selectivity;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Options, Spec};

/// The row of `nst`.
pub static METHOD: Method = Method {
    name: "nst",
    about: "neuron selectivity: distribution of the channels over places",
    cite: "Huang, Wang 2017",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`k(t, t) + k(s, s) - 2·k(s, t)` with `k(a, b)` the mean over batch and both sets of channels of `(a_c · b_d)²`, each \
        channel divided by its length over the places: the maximum mean discrepancy under a polynomial kernel. No adapter, any \
        channels; the larger map is averaged to the smaller one; summed over the pairs.\n\n\
        It is computed by products of matrices; RepDistiller makes a tensor of batch · C · C' · H · W.",
    source: "Huang, Wang 2017 (arXiv 1707.01219) eq. 6, 8",
    weight: Weight { usual: 50.0, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"nst\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `nst`.
pub static OPTIONS: &[Spec] = &[student("stages"), teacher("stages")];

/// `Σ g²` of `g = a bᵀ`, `a` `[m, k]`, `b` `[n, k]`.
fn squares<T: Real>(g: &mut [T], a: &[T], b: &[T], [m, n, k]: [usize; 3]) -> f64 {
    multiply(g, Matrix::rows(a, k), Matrix::rows(b, k).t(), [m, n, k], T::ONE, false);
    g[..m * n].iter().map(|g| g.to_f64() * g.to_f64()).sum()
}

/// `k(t, t) + k(s, s) - 2·k(s, t)`.
///
/// * `student`: `[batch, channels[0], places]`, `teacher`: `[batch, channels[1], places]`.
/// * `d_student`: overwritten.
///
/// Source: Huang, Wang 2017 (arXiv 1707.01219) eq. 6 with the kernel of eq. 8, `d = 2`, `c = 0`.
pub fn selectivity<T: Real>(
    student: &[T],
    teacher: &[T],
    channels: [usize; 2],
    places: usize,
    d_student: &mut [T],
) -> T {
    let [c_s, c_t] = channels;
    let batch = student.len() / (c_s * places).max(1);
    let within = |c: usize| 1.0 / (batch * c * c) as f64;
    let between = 1.0 / (batch * c_s * c_t) as f64;
    let (mut s, mut t) = (vec![T::ZERO; c_s * places], vec![T::ZERO; c_t * places]);
    let (mut g, mut divisors) = (vec![T::ZERO; c_s.max(c_t) * c_s.max(c_t)], vec![T::ZERO; c_s]);
    let samples = student.chunks_exact(c_s * places).zip(teacher.chunks_exact(c_t * places));
    let mut total = 0.0;
    for ((student, teacher), d) in samples.zip(d_student.chunks_exact_mut(c_s * places)) {
        s.copy_from_slice(student);
        t.copy_from_slice(teacher);
        s.chunks_exact_mut(places).zip(&mut divisors).for_each(|(row, divisor)| *divisor = to_unit(row));
        t.chunks_exact_mut(places).for_each(|row| _ = to_unit(row));
        total += within(c_t) * squares(&mut g, &t, &t, [c_t, c_t, places]);
        total -= 2.0 * between * squares(&mut g, &s, &t, [c_s, c_t, places]);
        let rate = T::from_f64(-4.0 * between);
        multiply(d, Matrix::rows(&g, c_t), Matrix::rows(&t, places), [c_s, places, c_t], rate, false);
        total += within(c_s) * squares(&mut g, &s, &s, [c_s, c_s, places]);
        let rate = T::from_f64(4.0 * within(c_s));
        multiply(d, Matrix::rows(&g, c_s), Matrix::rows(&s, places), [c_s, places, c_s], rate, true);
        let rows = s.chunks_exact(places).zip(&divisors);
        rows.zip(d.chunks_exact_mut(places)).for_each(|((unit, &divisor), d)| to_unit_back(unit, divisor, d));
    }
    T::from_f64(total)
}

/// The method `nst`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let taps = pair.taps_that(student, teacher, |s, t| places(s, t, false))?;
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let kept = RefCell::<Selectivity>::default();
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let channels = [compared.student.channels, compared.teacher.channels];
        kept.borrow_mut().distance(gpu, compared.pair > 0, sides, channels, compared.student.places(), given)
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), |compared, s, t, d| {
        selectivity(s, t, [compared.student.channels, compared.teacher.channels], compared.student.places(), d)
    }))
}
