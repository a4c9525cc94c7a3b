//! What each position attends to.

use std::cell::RefCell;

use kd_runtime::{Refusal, Result};

use super::adapters::{TOKENS, student, teacher};
use super::at::places;
use super::joint::Joint;
use super::pair::is_stages;
use super::rows::log_sum_exp;
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Kind, Options, Spec};

/// The row of `attention_relation`.
pub static METHOD: Method = Method {
    name: "attention_relation",
    about: "relations between positions, any width (MiniLM)",
    cite: "Wang et al. 2020",
    knowledge: Knowledge::Sequence,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`KL(R_t ‖ R_s)`, mean over batch, heads and positions, with `R = softmax(v·vᵀ / √d)` of each head's `d` channels: how \
        each position's values relate to all others'. MiniLM's last layer is `relation = \"attention_and_values\"` with the taps \
        `query, key, value` on each side, which adds the same of `softmax(q·kᵀ / √d)`. Heads must be equal, widths need not be; no \
        adapter.\n\n\
        Of maps each place is a position, the larger map averaged to the smaller one. What then has more than `longest` positions, \
        a series or a map, is averaged to that many at most.",
    source: "Wang et al. 2020 (arXiv 2002.10957) eq. 6 to 8",
    weight: Weight { usual: 1.0, source: "MiniLM", forms: &[] },
    recipe: "terms = [{ method = \"attention_relation\", relation = \"attention_and_values\", heads = 4, tokens = true, \
        student = \"stage2.query, stage2.key, stage2.value\", \
        teacher = \"stage4.query, stage4.key, stage4.value\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `attention_relation`.
pub static OPTIONS: &[Spec] = &[
    student("last"),
    teacher("last"),
    Spec {
        name: "relation",
        about: "of each tap to itself (`values`), or of taps `query, key, value` (`attention_and_values`)",
        kind: Kind::Choice { default: "values", known: &["values", "attention_and_values"] },
    },
    Spec {
        name: "heads",
        about: "parts that the channels of both sides are split into",
        kind: Kind::Count { default: 1, least: 1, most: 1024 },
    },
    Spec {
        name: "longest",
        about: "positions that longer series, and maps of more places, are averaged to",
        kind: Kind::Count { default: 128, least: 2, most: 512 },
    },
    TOKENS,
];

/// `log softmax` of the rows of `aᵀ b / √d`, `[length, length]`, for a head's `a` and `b` `[d, length]`.
fn relation<T: Real>(a: &[T], b: &[T], length: usize, rows: &mut [T]) {
    let d = a.len() / length;
    let scale = T::from_f64(1.0 / (d as f64).sqrt());
    let (a, b) = (Matrix::rows(a, length).t(), Matrix::rows(b, length));
    multiply(rows, a, b, [length, length, d], scale, false);
    for row in rows.chunks_exact_mut(length) {
        let shift = log_sum_exp(row, T::ONE);
        row.iter_mut().for_each(|x| *x += -shift);
    }
}

/// `KL(R_t ‖ R_s)`, `R = softmax(aᵀ b / √d)` of each head, mean over batch, heads and positions, in nats.
///
/// * `student`, `teacher`: each `[a, b]`, both `[batch, channels, length]`; channels (`channels[0]` of the student) are
///   split into `heads`.
/// * `d_a`, `d_b`: the gradients are ADDED; without `d_b`, b is a, and `d_a` gets both.
///
/// Source: Wang et al. 2020 (arXiv 2002.10957) eq. 6, 8.
pub fn relation_divergence<T: Real>(
    student: [&[T]; 2],
    teacher: [&[T]; 2],
    channels: [usize; 2],
    length: usize,
    heads: usize,
    d_a: &mut [T],
    mut d_b: Option<&mut [T]>,
) -> T {
    let [ours, theirs] = channels.map(|channels| channels / heads * length);
    let count = student[0].len() / ours.max(1);
    let share = 1.0 / (count * length) as f64;
    let cells = length * length;
    let (mut r_s, mut r_t) = (vec![T::ZERO; cells], vec![T::ZERO; cells]);
    let rate = T::from_f64(share / ((ours / length) as f64).sqrt());
    let mut total = 0.0;
    for i in 0..count {
        let (own, taught) = (i * ours..(i + 1) * ours, i * theirs..(i + 1) * theirs);
        let [a, b] = student.map(|x| &x[own.clone()]);
        relation(a, b, length, &mut r_s);
        relation(&teacher[0][taught.clone()], &teacher[1][taught], length, &mut r_t);
        for (s, &t) in r_s.iter_mut().zip(&r_t) {
            let (p_s, p_t) = (s.exp(), t.exp());
            if p_t != T::ZERO {
                total += (p_t * (t - *s)).to_f64();
            }
            *s = p_s - p_t;
        }
        let product = [ours / length, length, length];
        let d = Matrix::rows(&r_s, length);
        multiply(&mut d_a[own.clone()], Matrix::rows(b, length), d.t(), product, rate, true);
        let d_b = d_b.as_deref_mut().unwrap_or(&mut *d_a);
        multiply(&mut d_b[own], Matrix::rows(a, length), d, product, rate, true);
    }
    T::from_f64(total * share)
}

struct Relations {
    student: Vec<String>,
    teacher: Vec<String>,
    joints: Vec<Joint>,
    /// Which taps are related to which.
    related: Vec<[usize; 2]>,
    heads: usize,
    /// Gradients by the taps as they are compared.
    d_compared: Vec<Vec<f32>>,
    kept: RefCell<gpu::losses::attention_relation::Relations>,
}

/// The method `attention_relation`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (tokens, longest, heads) = (options.flag("tokens"), options.count("longest"), options.count("heads"));
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let is_values = options.text("relation") == "values";
    if let Some(word) = [student, teacher].into_iter().find(|text| !is_values && is_stages(text)) {
        let expected = "names of taps `query, key, value` on each side";
        let action = "name them, or relate values alone";
        return Err(Refusal::new("attention_relation", expected, format!("`{word}`"), action));
    }
    let taps = pair.taps_that(student, teacher, |s, t| places(s, t, tokens))?;
    let related = if is_values {
        (0..taps.len()).map(|i| [i, i]).collect()
    } else if taps.len() == 3 {
        vec![[0, 1], [2, 2]]
    } else {
        let action = "name them, or relate values alone";
        return Err(Refusal::new("attention_relation", "taps `query, key, value` on each side", taps.len(), action));
    };
    let (d_compared, kept) = (vec![], RefCell::default());
    let mut loss = Relations { student: vec![], teacher: vec![], joints: vec![], related, heads, d_compared, kept };
    for (s, t) in &taps {
        let is_series = s.shape.len() == 2 && t.shape.len() == 2;
        let joint = match is_series {
            true => Joint::series(s, t, tokens, longest, true)?,
            false => Joint::common_within(s, t, tokens, longest)?,
        };
        let (ours, theirs) = joint.maps();
        let at = format!("taps `{}` and `{}`", s.name, t.name);
        if !ours.channels.is_multiple_of(heads) || !theirs.channels.is_multiple_of(heads) {
            let found = format!("{} and {}", ours.channels, theirs.channels);
            return Err(Refusal::new(at, format!("channels that {heads} heads divide"), found, "choose other heads"));
        }
        loss.joints.push(joint);
        loss.student.push(s.name.clone());
        loss.teacher.push(t.name.clone());
    }
    let lengths = |[a, b]: &[usize; 2]| {
        let [(a, a_t), (b, b_t)] = [a, b].map(|&i| loss.joints[i].maps());
        a.elements() == b.elements() && a_t.elements() == b_t.elements()
    };
    if !loss.related.iter().all(lengths) {
        let found = taps.iter().map(|(s, t)| format!("{:?} and {:?}", s.shape, t.shape)).collect::<Vec<_>>().join(", ");
        let action = "name taps of one layer";
        return Err(Refusal::new("attention_relation", "queries and keys of equal shapes", found, action));
    }
    loss.d_compared = vec![Vec::new(); taps.len()];
    Ok(Box::new(loss))
}

impl gpu::losses::Kernel for Relations {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let mut kept = self.kept.borrow_mut();
        for (i, joint) in self.joints.iter().enumerate() {
            let values = [seen.student[i], seen.teacher[i]];
            joint.check([&self.student[i], &self.teacher[i]], values, seen.batch)?;
            kept.load(seen.gpu, i, joint.ways(), values)?;
        }
        for (i, &related) in self.related.iter().enumerate() {
            let ways = related.map(|tap| self.joints[tap].ways());
            kept.divergence(seen, related, ways, self.heads, i > 0, given)?;
        }
        for (i, joint) in self.joints.iter().enumerate() {
            kept.back(seen.gpu, i, joint.ways()[0], given.d_student[i]);
        }
        Ok(())
    }
}

impl Loss for Relations {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let Self { joints, d_compared, related, .. } = self;
        for (i, joint) in joints.iter_mut().enumerate() {
            joint.check([&self.student[i], &self.teacher[i]], [student[i], teacher[i]], batch)?;
            joint.load(student[i], teacher[i]);
            d_compared[i].clear();
            d_compared[i].resize(batch.size * joint.maps().0.elements(), 0.0);
        }
        let mut total = 0.0;
        for &[a, b] in related.iter() {
            let [(a_s, a_t), (b_s, b_t)] = [a, b].map(|i| joints[i].loaded(student[i], teacher[i]));
            let (ours, theirs) = joints[a].maps();
            let (before, after) = d_compared.split_at_mut(b);
            let (d_a, d_b) =
                if a == b { (&mut after[0], None) } else { (&mut before[a], Some(after[0].as_mut_slice())) };
            let channels = [ours.channels, theirs.channels];
            total += relation_divergence([a_s, b_s], [a_t, b_t], channels, ours.places(), self.heads, d_a, d_b);
        }
        for (i, joint) in joints.iter_mut().enumerate() {
            joint.back(&d_compared[i], d_student[i]);
        }
        Ok(total)
    }
}
