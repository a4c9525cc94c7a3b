//! Features of two series aligned in time.

use std::cell::RefCell;

use kd_runtime::Result;

use super::adapters::{CONNECTOR, TOKENS, connect_widths, student, teacher};
use super::joint::{Joint, OnGpu, PairLoss};
use super::taps::within;
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu::losses::soft_dtw::{Form, Warps};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `soft_dtw`.
pub static METHOD: Method = Method {
    name: "soft_dtw",
    about: "features along time, aligned by soft dynamic time warping",
    cite: "Cuturi, Blondel 2017",
    knowledge: Knowledge::Sequence,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`dtw(s, t) - ½·(dtw(s, s) + dtw(t, t))`, mean over the batch, divided by the sum of both lengths (`normalize`): the \
        divergence, at least 0 and 0 for equal series; `divergence = false` leaves out its second half. `dtw` is the soft minimum \
        `-gamma·ln Σ e^(-cost / gamma)` over all monotonic alignments of the sum of squared distances between aligned features.\n\n\
        Lengths may differ; series longer than `longest` are averaged to it, for time and memory grow with the product of the \
        lengths. Where the channels differ the student's go through a linear layer (a 1x1 convolution) with bias. Images are \
        first averaged over their rows.",
    source: "Cuturi, Blondel 2017 (arXiv 1703.01541) Alg. 1, 2; divergence: Blondel, Mensch, Vert 2021 (arXiv 2010.08354)",
    weight: Weight::ONE,
    recipe: "terms = [{ method = \"soft_dtw\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `soft_dtw`.
pub static OPTIONS: &[Spec] = &[
    student("last"),
    teacher("last"),
    Spec {
        name: "gamma",
        about: "how soft the minimum is, in the unit of squared features",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
    Spec {
        name: "divergence",
        about: "whether the series' distances to themselves are taken off",
        kind: Kind::Flag { default: true },
    },
    Spec {
        name: "normalize",
        about: "whether to divide by the sum of both lengths",
        kind: Kind::Flag { default: true },
    },
    Spec {
        name: "longest",
        about: "places in time that longer series are averaged to",
        kind: Kind::Count { default: 128, least: 2, most: 128 },
    },
    CONNECTOR,
    TOKENS,
];

/// Memory of `warp`: costs, the table of soft minima, and its gradient.
#[derive(Default)]
pub struct Tables {
    costs: Vec<f64>,
    minima: Vec<f64>,
    flow: Vec<f64>,
}

/// Soft DTW of `x` `[channels, n]` and `y` `[channels, m]`; the gradient by x, times `factor`, is added to `d_x`. The
/// tables are f64.
fn warp<T: Real>(
    [x, y]: [&[T]; 2],
    channels: usize,
    gamma: f64,
    factor: f64,
    tables: &mut Tables,
    d_x: Option<&mut [T]>,
) -> f64 {
    let (n, m) = (x.len() / channels, y.len() / channels);
    let Tables { costs, minima, flow } = tables;
    costs.clear();
    costs.resize(n * m, 0.0);
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact(m)) {
        for (row, x) in costs.chunks_exact_mut(m).zip(x) {
            row.iter_mut().zip(y).for_each(|(cost, &y)| {
                let off = (*x - y).to_f64();
                *cost += off * off;
            });
        }
    }
    // Row and column 0 lie before the series.
    let wide = m + 1;
    minima.clear();
    minima.resize((n + 1) * wide, f64::INFINITY);
    minima[0] = 0.0;
    for i in 1..=n {
        for j in 1..=m {
            let at = i * wide + j;
            let before = [minima[at - wide - 1], minima[at - wide], minima[at - 1]];
            let least = before[0].min(before[1]).min(before[2]);
            let sum: f64 = before.iter().map(|before| ((least - before) / gamma).exp()).sum();
            minima[at] = costs[(i - 1) * m + j - 1] + least - gamma * sum.ln();
        }
    }
    let value = minima[n * wide + m];
    let Some(d_x) = d_x else { return value };
    // flow(i, j): how the value changes with the minimum at (i, j), which is how it changes with the cost there.
    flow.clear();
    flow.resize(n * m, 0.0);
    flow[n * m - 1] = 1.0;
    for i in (1..=n).rev() {
        for j in (1..=m).rev() {
            let own = minima[i * wide + j];
            let mut sum = if (i, j) == (n, m) { 1.0 } else { 0.0 };
            for (down, right) in [(1, 1), (1, 0), (0, 1)] {
                let (k, l) = (i + down, j + right);
                if k <= n && l <= m {
                    let cell = (k - 1) * m + l - 1;
                    sum += flow[cell] * ((minima[k * wide + l] - costs[cell] - own) / gamma).exp();
                }
            }
            flow[(i - 1) * m + j - 1] = sum;
        }
    }
    let rate = 2.0 * factor;
    for ((x, y), d) in x.chunks_exact(n).zip(y.chunks_exact(m)).zip(d_x.chunks_exact_mut(n)) {
        for ((d, x), flow) in d.iter_mut().zip(x).zip(flow.chunks_exact(m)) {
            let pull: f64 = flow.iter().zip(y).map(|(flow, &y)| flow * (*x - y).to_f64()).sum();
            *d += T::from_f64(rate * pull);
        }
    }
    value
}

/// Soft DTW, or its divergence, of features along time, mean over the batch.
///
/// * `student`, `teacher`: `[batch, channels, length]`, each of its own length.
/// * `d_student`: overwritten.
///
/// Source: Cuturi, Blondel 2017 (arXiv 1703.01541) Alg. 1 and 2 with squared Euclidean costs.
pub fn alignment<T: Real>(
    student: &[T],
    teacher: &[T],
    [batch, channels]: [usize; 2],
    gamma: f64,
    divergence: bool,
    tables: &mut Tables,
    d_student: &mut [T],
) -> T {
    let (n, m) = (student.len() / batch, teacher.len() / batch);
    let share = 1.0 / batch as f64;
    d_student.fill(T::ZERO);
    let samples = student.chunks_exact(n).zip(teacher.chunks_exact(m)).zip(d_student.chunks_exact_mut(n));
    let mut total = 0.0;
    for ((s, t), d) in samples {
        total += warp([s, t], channels, gamma, share, tables, Some(d));
        if divergence {
            // Both arguments are the student: the cost matrix is symmetric, and so are the alignments.
            let own = warp([s, s], channels, gamma, -share, tables, Some(d));
            total -= 0.5 * (own + warp([t, t], channels, gamma, 0.0, tables, None));
        }
    }
    T::from_f64(total * share)
}

/// The method `soft_dtw`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (tokens, longest) = (options.flag("tokens"), options.count("longest"));
    let series = |s: &_, t: &_| Joint::series(s, t, tokens, longest, false);
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let taps = pair.taps_that(student, teacher, |s, t| series(s, t).map(drop))?;
    let taps = connect_widths(pair, options, taps, tokens)?;
    let joints = taps.iter().map(|(s, t)| series(s, t)).collect::<Result<Vec<_>>>()?;
    let gamma = within("gamma", options.number("gamma"), [1e-6, 1e6])?;
    let divergence = options.flag("divergence");
    let normalize = options.flag("normalize");
    let mut tables = Tables::default();
    let kept = RefCell::<Warps>::default();
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let lengths = [compared.student.width, compared.teacher.width];
        let form = Form { channels: compared.student.channels, lengths, gamma: gamma as f32, divergence, normalize };
        kept.borrow_mut().alignment(gpu, compared.pair > 0, sides, form, given)
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), move |compared, s, t, d| {
        let lengths = [compared.student.width, compared.teacher.width];
        let factor = if normalize { 1.0 / (lengths[0] + lengths[1]) as f32 } else { 1.0 };
        let value = alignment(s, t, [compared.batch, compared.student.channels], gamma, divergence, &mut tables, d);
        d.iter_mut().for_each(|d| *d *= factor);
        value * factor
    }))
}
