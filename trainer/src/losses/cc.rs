//! Relations: correlation congruence.

use std::cell::RefCell;

use kd_runtime::Result;

use super::embed::{self, Embedding};
use super::relation::{Units, gram, gram_backward, to_f64, write};
use super::taps::{OnGpu, STUDENT_FEATURES, TEACHER_FEATURES, relations};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight, columns};
use crate::exec::{Parameter, Real};
use crate::gpu::losses::relations::{Relations, Similarity};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `cc`.
pub static METHOD: Method = Method {
    name: "cc",
    about: "correlation congruence",
    cite: "Peng et al. 2019",
    knowledge: Knowledge::Relation,
    needs_labels: false,
    needs_whole_batch: true,
    formula: "`|K_student - K_teacher|² / batch²` (squared Frobenius norm) with the Gaussian kernel of the samples' \
        features divided by their lengths, as its Taylor series: `K = e^(-2 gamma) Σ_{p ≤ order} (2 gamma)^p / p! · \
        cos^p`.\n\n\
        `form = \"rep\"` is what RepDistiller calls CC: `mean_b Σ_d |δ_b| |δ_{b+1}|` of consecutive samples, δ the \
        difference of both sides' linear embeddings of `embed` values, both trained (which lets them agree on 0). \
        torchdistill's returns the norm, not squared, of features as they are.",
    source: "Peng et al. 2019 (arXiv 1904.01802) eq. 6-9",
    weight: Weight {
        usual: 1.0,
        source: "none is known of the paper's kernel; 0.02, RepDistiller's, belongs to its own form",
        forms: &[("form", "rep", 0.02)],
    },
    recipe: "terms = [{ method = \"cc\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `cc`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_FEATURES,
    TEACHER_FEATURES,
    Spec {
        name: "form",
        about: "the paper's kernel, or RepDistiller's consecutive differences (`rep`)",
        kind: Kind::Choice { default: "paper", known: &["paper", "rep"] },
    },
    Spec {
        name: "gamma",
        about: "of the kernel; `paper` alone",
        kind: Kind::Optional { kind: &Kind::Number { default: 0.4, range: Range::Positive }, left_out: "0.4" },
    },
    Spec {
        name: "order",
        about: "last power of the series; `paper` alone",
        kind: Kind::Optional { kind: &Kind::Count { default: 2, least: 1, most: 16 }, left_out: "2" },
    },
    Spec {
        name: "embed",
        about: "values of the embeddings; `rep` alone",
        kind: Kind::Optional { kind: &Kind::Count { default: 128, least: 1, most: 1 << 14 }, left_out: "128" },
    },
];

/// `|K_s - K_t|² / batch²` of rows `[batch, columns]` of each side. `d_student` is overwritten. Peng et al. 2019 (arXiv
/// 1904.01802) eq. 6-9.
pub fn kernels<T: Real>(
    [student, teacher]: [&[T]; 2],
    [columns_s, columns_t]: [usize; 2],
    gamma: f64,
    order: usize,
    d_student: &mut [T],
) -> f64 {
    let units = Units::new(&to_f64(student), columns_s, 0.0);
    let cosines_s = gram(&units.rows, columns_s);
    let cosines_t = gram(&Units::new(&to_f64(teacher), columns_t, 0.0).rows, columns_t);
    let n = student.len() / columns_s.max(1);
    let scale = 1.0 / (n * n) as f64;
    // The kernel and its slope.
    let kernel = |cosine: f64| {
        let (mut value, mut slope, mut power) = (1.0, 0.0, 1.0);
        for p in 1..=order {
            slope += 2.0 * gamma * power;
            power *= 2.0 * gamma * cosine / p as f64;
            value += power;
        }
        let factor = (-2.0 * gamma).exp();
        (factor * value, factor * slope)
    };
    let mut total = 0.0;
    let pairs = cosines_s.iter().zip(&cosines_t);
    let d: Vec<f64> = pairs
        .map(|(&ours, &theirs)| {
            let (value, slope) = kernel(ours);
            let off = value - kernel(theirs).0;
            total += off * off;
            2.0 * off * scale * slope
        })
        .collect();
    let mut d = gram_backward(&units.rows, columns_s, &d);
    units.backward(columns_s, &mut d);
    write(&d, d_student);
    total * scale
}

/// RepDistiller's form, `mean over consecutive samples of Σ |δ_b| |δ_{b+1}|`, `δ = student - teacher` `[batch, columns]`; 0 of one
/// sample. `d_student` is overwritten; the teacher's gradient is its negative.
pub fn consecutive<T: Real>(student: &[T], teacher: &[T], columns: usize, d_student: &mut [T]) -> T {
    let batch = student.len() / columns.max(1);
    d_student.fill(T::ZERO);
    let scale = T::ONE / T::from_usize(batch.max(2) - 1);
    let difference: Vec<T> = student.iter().zip(teacher).map(|(&s, &t)| s - t).collect();
    let sign = |x: T| {
        if x > T::ZERO {
            T::ONE
        } else if x < T::ZERO {
            -T::ONE
        } else {
            x
        }
    };
    let mut total = 0.0;
    for b in 1..batch {
        for i in (b - 1) * columns..b * columns {
            let (first, second) = (difference[i], difference[i + columns]);
            total += (first.abs() * second.abs()).to_f64();
            d_student[i] += sign(first) * second.abs() * scale;
            d_student[i + columns] += sign(second) * first.abs() * scale;
        }
    }
    T::from_f64(total) * scale
}

struct Consecutive {
    student: [String; 1],
    teacher: [String; 1],
    embedding: Embedding,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    if options.text("form") == "paper" {
        options.refuse_set(&["embed"], "form = \"rep\"", "form = \"paper\"")?;
        let gamma = options.optional("gamma", Options::number).unwrap_or(0.4);
        let order = options.optional("order", Options::count).unwrap_or(2);
        let (similarity, kept) = (Similarity::Kernels(gamma as f32, order), RefCell::<Relations>::default());
        let on_gpu: OnGpu =
            Box::new(move |seen, columns, given| kept.borrow_mut().products(seen, columns, similarity, given));
        return relations(options, pair, 2, Some(on_gpu), move |seen, d| {
            kernels([seen.student, seen.teacher], seen.columns, gamma, order, d) as f32
        });
    }
    options.refuse_set(&["gamma", "order"], "form = \"paper\"", "form = \"rep\"")?;
    let (student, teacher) = pair.one(options.text("student"), options.text("teacher"))?;
    let embed = options.optional("embed", Options::count).unwrap_or(128);
    let (student, embedding) = Embedding::both(pair, &student, &teacher, embed)?;
    Ok(Box::new(Consecutive { student: [student.name], teacher: [teacher.name], embedding }))
}

impl Loss for Consecutive {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn own(&self) -> Vec<Parameter<f32>> {
        self.embedding.own()
    }

    fn least_batch(&self) -> usize {
        2
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        columns(&self.student[0], student[0], batch)?;
        columns(&self.teacher[0], teacher[0], batch)?;
        let [weight, bias] = own else { unreachable!("as many arrays as `own` gave") };
        let embedded = embed::forward(teacher[0], &weight.value, &bias.value);
        let value = consecutive(student[0], &embedded, self.embedding.outputs, d_student[0]);
        let d_teacher: Vec<f32> = d_student[0].iter().map(|d| -d).collect();
        embed::backward(teacher[0], &d_teacher, &mut weight.gradient, &mut bias.gradient);
        Ok(value)
    }
}
