//! Soft targets at several temperatures, with the predictions' Gram matrices over samples and over classes.

use std::cell::RefCell;

use kd_runtime::Result;

use super::dist::{probabilities, through_softmax};
use super::kd::soft_targets;
use super::rows::{Average, Reduction};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::probabilities::Probabilities;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `mlkd`.
pub static METHOD: Method = Method {
    name: "mlkd",
    about: "multi-level alignment of predictions",
    cite: "Jin et al. 2023",
    knowledge: Knowledge::Response,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "`Σ_τ τ² · KL(p_teacher ‖ p_student) + |P_t P_tᵀ - P_s P_sᵀ|² / batch + |P_tᵀ P_t - P_sᵀ P_s|² / classes` \
        over `temperature` and `others`, with `P = softmax(logits / τ)` as a matrix `[batch, classes]` and squared \
        Frobenius norms.\n\n\
        The authors' code adds a second, strongly augmented view of each sample and leaves out samples and classes \
        that the teacher is surer of than the median; both are left out here. Several teachers: their mean is that at \
        `temperature`.",
    source: "Jin, Wang, Lin 2023, Multi-level logit distillation (CVPR), eq. 4-8",
    weight: Weight {
        usual: 9.0,
        source: "logit standardization (Sun et al. 2024), beside 0.1 of the labels",
        forms: &[],
    },
    recipe: "task_weight = 0.1\nterms = [{ method = \"mlkd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `mlkd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "the first temperature, from 0.001 to 10000",
        kind: Kind::Number { default: 4.0, range: Range::Positive },
    },
    Spec {
        name: "others",
        about: "further temperatures",
        kind: Kind::Counts { default: &[2, 3, 5, 6], least_len: 0, least: 1, most: 10_000 },
    },
    AVERAGE,
];

/// The three parts at one temperature: divergence, Gram matrices of samples and of classes, of logits `[batch, classes]`.
/// `d_student` is overwritten with the gradient of their sum. Jin, Wang, Lin 2023, eq. 4-8.
pub fn alignment<T: Real>(
    student: &[T],
    teacher: &[T],
    classes: usize,
    temperature: f64,
    d_student: &mut [T],
) -> [f64; 3] {
    let batch = student.len() / classes.max(1);
    let [p_s, p_t] = [student, teacher].map(|logits| probabilities(logits, classes, temperature));
    let mut d = vec![0.0; p_s.len()];
    let mut grams = [0.0; 2];
    for (by_class, value) in [false, true].into_iter().zip(&mut grams) {
        let (n, inner) = if by_class { (classes, batch) } else { (batch, classes) };
        let matrix = |p| if by_class { Matrix::rows(p, classes).t() } else { Matrix::rows(p, classes) };
        let mut gram = vec![0.0; n * n];
        multiply(&mut gram, matrix(&p_s), matrix(&p_s).t(), [n, n, inner], 1.0, false);
        multiply(&mut gram, matrix(&p_t), matrix(&p_t).t(), [n, n, inner], -1.0, true);
        *value = gram.iter().map(|g| g * g).sum::<f64>() / n as f64;
        let (g, p) = (Matrix::rows(&gram, n), Matrix::rows(&p_s, classes));
        let scale = 4.0 / n as f64;
        if by_class {
            multiply(&mut d, p, g, [batch, classes, n], scale, true);
        } else {
            multiply(&mut d, g, p, [batch, classes, n], scale, true);
        }
    }
    let mut d_kl = vec![T::ZERO; student.len()];
    let kl = soft_targets(student, teacher, classes, T::from_f64(temperature), Reduction::BatchMean, true, &mut d_kl);
    through_softmax(&p_s, classes, temperature, &d, d_student);
    d_student.iter_mut().zip(&d_kl).for_each(|(d, &d_kl)| *d += d_kl);
    [kl.to_f64(), grams[0], grams[1]]
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let others = options.counts("others").iter().map(|&t| t as f64);
    let temperatures: Vec<f64> = std::iter::once(temperature(options)?).chain(others).collect();
    let (of_gpu, kept) = (temperatures.clone(), RefCell::<Probabilities>::default());
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        kept.borrow_mut().alignment(seen, classes, &of_gpu, given)
    };
    answers(options, pair, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        d.fill(0.0);
        let mut d_one = vec![0.0; d.len()];
        let mut total = 0.0;
        for &temperature in &temperatures {
            total +=
                alignment(seen.student, seen.teacher, seen.columns[0], temperature, &mut d_one).iter().sum::<f64>();
            d.iter_mut().zip(&d_one).for_each(|(d, one)| *d += one);
        }
        total as f32
    })
}
