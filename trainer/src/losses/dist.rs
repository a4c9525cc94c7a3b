//! Correlations of predictions: each sample's over the classes, each class's over the batch.

use std::cell::RefCell;

use kd_runtime::Result;

use super::rows::{Average, log_softmax};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers_of, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::probabilities::Probabilities;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `dist`.
pub static METHOD: Method = Method {
    name: "dist",
    about: "correlation of predictions (DIST)",
    cite: "Huang et al. 2022",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "`temperature² · (beta · (1 - mean_b ρ(p_student[b, :], p_teacher[b, :])) + gamma · (1 - mean_k \
        ρ(p_student[:, k], p_teacher[:, k])))`: ρ is Pearson's correlation with 1e-8 added to the product of the \
        norms, `p = softmax(logits / temperature)`. A class that the whole batch gives one probability has \
        correlation 0. Of two classes ρ of a sample is 1 or -1, so that the part of `beta` has no gradient; a note says so.\n\n\
        torchdistill has the norms clamped one by one (its gradient reaches 1e6 where samples are identical); the \
        authors' CIFAR code is known to use beta = gamma = 2 at temperature 4. With `tau2 = false` temperature² is \
        left out.",
    source: "Huang et al. 2022 (arXiv 2205.10536) eq. 8-11",
    weight: Weight { usual: 1.0, source: "the authors'", forms: &[] },
    recipe: "terms = [{ method = \"dist\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `dist`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 1.0, range: Range::Positive },
    },
    Spec {
        name: "beta",
        about: "factor of the part of the samples",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
    Spec {
        name: "gamma",
        about: "factor of the part of the classes",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
    Spec { name: "tau2", about: "whether to multiply by temperature²", kind: Kind::Flag { default: true } },
    AVERAGE,
];

/// Added to the product of two norms.
const EPSILON: f64 = 1e-8;

/// Adds `factor` times the gradient of ρ(a, b) by a to `d`; gives ρ. Vectors lie at `start + i * step`, `len` elements.
fn correlate(
    [a, b]: [&[f64]; 2],
    (start, step, len): (usize, usize, usize),
    factor: f64,
    d: &mut [f64],
    [x, y]: [&mut Vec<f64>; 2],
) -> f64 {
    for (centered, values) in [(&mut *x, a), (&mut *y, b)] {
        centered.clear();
        centered.extend((0..len).map(|i| values[start + i * step]));
        let mean = centered.iter().sum::<f64>() / len as f64;
        centered.iter_mut().for_each(|value| *value -= mean);
    }
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (norm_x, norm_y) = (norm(x), norm(y));
    let both: f64 = x.iter().zip(&*y).map(|(x, y)| x * y).sum();
    let product = norm_x * norm_y + EPSILON;
    // Through the norm nothing flows where it is 0.
    let along = if norm_x > 0.0 { both * norm_y / (product * product * norm_x) } else { 0.0 };
    for (i, (x, y)) in x.iter().zip(&*y).enumerate() {
        d[start + i * step] += factor * (y / product - along * x);
    }
    both / product
}

/// Both parts of DIST without their factors: `1 - mean ρ` over samples and over classes, of logits `[batch, classes]`.
/// `d_student` is overwritten with the gradient of `beta · inter + gamma · intra`. Computed in f64: the correlation of
/// nearly equal numbers cancels. Huang et al. 2022 (arXiv 2205.10536) eq. 8-11.
pub fn correlations<T: Real>(
    [student, teacher]: [&[T]; 2],
    classes: usize,
    temperature: f64,
    [beta, gamma]: [f64; 2],
    d_student: &mut [T],
) -> [f64; 2] {
    let batch = student.len() / classes.max(1);
    let [p_s, p_t] = [student, teacher].map(|logits| probabilities(logits, classes, temperature));
    let mut d = vec![0.0; p_s.len()];
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut sums = [0.0; 2];
    for b in 0..batch {
        let place = (b * classes, 1, classes);
        sums[0] += correlate([&p_s, &p_t], place, -beta / batch as f64, &mut d, [&mut x, &mut y]);
    }
    for k in 0..classes {
        let place = (k, classes, batch);
        sums[1] += correlate([&p_s, &p_t], place, -gamma / classes as f64, &mut d, [&mut x, &mut y]);
    }
    through_softmax(&p_s, classes, temperature, &d, d_student);
    [1.0 - sums[0] / batch as f64, 1.0 - sums[1] / classes as f64]
}

/// `softmax(logits / temperature)` of each row, in f64.
pub fn probabilities<T: Real>(logits: &[T], classes: usize, temperature: f64) -> Vec<f64> {
    let mut log = Vec::new();
    let mut all = Vec::with_capacity(logits.len());
    for row in logits.chunks_exact(classes) {
        let row: Vec<f64> = row.iter().map(|z| z.to_f64()).collect();
        log_softmax(&row, 1.0 / temperature, &mut log);
        all.extend(log.iter().map(|log| log.exp()));
    }
    all
}

/// From gradients by the probabilities `p = softmax(z / temperature)` to those by z: `p (d - Σ d p) / temperature`.
pub fn through_softmax<T: Real>(p: &[f64], classes: usize, temperature: f64, d: &[f64], d_logits: &mut [T]) {
    let rows = p.chunks_exact(classes).zip(d.chunks_exact(classes)).zip(d_logits.chunks_exact_mut(classes));
    for ((p, d), d_logits) in rows {
        let mean: f64 = p.iter().zip(d).map(|(p, d)| p * d).sum();
        for ((d_z, p), d) in d_logits.iter_mut().zip(p).zip(d) {
            *d_z = T::from_f64(p * (d - mean) / temperature);
        }
    }
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let temperature = temperature(options)?;
    let scale = if options.flag("tau2") { temperature * temperature } else { 1.0 };
    let factors = [options.number("beta"), options.number("gamma")].map(|factor| factor * scale);
    if pair.classes == 2 && factors[0] > 0.0 {
        let note = "has nothing of the samples: over two classes their correlation is 1 or -1, and `beta`'s part has no gradient";
        pair.notes.push(note.into());
    }
    // A class has no correlation over one sample.
    let least = if factors[1] > 0.0 { 2 } else { 1 };
    let kept = RefCell::<Probabilities>::default();
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        kept.borrow_mut().correlations(seen, classes, temperature, factors, given)
    };
    answers_of(options, pair, least, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        let [inter, intra] = correlations([seen.student, seen.teacher], seen.columns[0], temperature, factors, d);
        (factors[0] * inter + factors[1] * intra) as f32
    })
}
