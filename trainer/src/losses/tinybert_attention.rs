//! Attention scores, equal head by head.

use kd_runtime::{Refusal, Result};

use super::adapters::{student, teacher};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight, maps};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `tinybert_attention`.
pub static METHOD: Method = Method {
    name: "tinybert_attention",
    about: "raw attention scores (TinyBERT)",
    cite: "Jiao et al. 2020",
    knowledge: Knowledge::Sequence,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean (s - t)²` over all elements of scores `[heads, L, L]` before the softmax, elements of `floor` or below (those \
        that a mask put there) taken as 0 on both sides; summed over the pairs. Left as they are, the taps are the scores of all \
        stages, paired from the deepest up; a network without attention is refused. No adapter: heads and lengths must be equal, \
        widths need not be; where they are not, `attention_relation` compares what each position attends to.",
    source: "Jiao et al. 2020 (arXiv 1909.10351) eq. 7; their code's `att_loss`",
    weight: Weight { usual: 1.0, source: "TinyBERT", forms: &[] },
    recipe: "terms = [{ method = \"tinybert_attention\", \
        student = \"stage1.scores, stage2.scores\", teacher = \"stage2.scores, stage4.scores\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `tinybert_attention`.
pub static OPTIONS: &[Spec] = &[
    student("stages.scores"),
    teacher("stages.scores"),
    Spec {
        name: "floor",
        about: "scores of this or below are masked",
        kind: Kind::Number { default: -100.0, range: Range::Finite },
    },
];

/// `factor · Σ (s - t)²`, elements of `floor` or below taken as 0 on both sides.
///
/// * `student`, `teacher`: scores of any shape, the same for both.
/// * `d_student`: overwritten; 0 where the student's score is masked.
pub fn scores_distance<T: Real>(student: &[T], teacher: &[T], floor: T, factor: T, d_student: &mut [T]) -> T {
    let slope = factor + factor;
    let sum = maps::sum_pairs(student, teacher, d_student, |s, t| {
        let kept = if s <= floor { T::ZERO } else { s };
        let off = kept - if t <= floor { T::ZERO } else { t };
        (off * off, if s <= floor { T::ZERO } else { slope * off })
    });
    T::from_f64(sum) * factor
}

struct Scores {
    student: Vec<String>,
    teacher: Vec<String>,
    floor: f32,
}

/// The method `tinybert_attention`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let taps = pair.taps(options.text("student"), options.text("teacher"))?;
    for (s, t) in &taps {
        let refused = |expected: &str, action: &str| {
            let at = format!("taps `{}` and `{}`", s.name, t.name);
            Refusal::new(at, expected, format!("{:?} and {:?}", s.shape, t.shape), action)
        };
        let is_square = |shape: &[usize]| matches!(*shape, [_, rows, columns] if rows == columns);
        if !is_square(&s.shape) || !is_square(&t.shape) {
            return Err(refused("scores [heads, L, L] of attention", "name them (`stage1.scores`)"));
        }
        if s.shape != t.shape {
            let action = "give both networks as many heads and tokens, or choose `attention_relation`";
            return Err(refused("as many heads and tokens on both sides", action));
        }
    }
    let (student, teacher) = taps.into_iter().map(|(s, t)| (s.name, t.name)).unzip();
    Ok(Box::new(Scores { student, teacher, floor: options.number("floor") as f32 }))
}

impl Scores {
    /// What the sum over the scores of a pair is multiplied by. Refuses pairs of other lengths.
    fn factor(&self, i: usize, s: &[f32], t: &[f32], batch: &Batch<'_>) -> Result<f32> {
        let ours = super::columns(&self.student[i], s, batch)?;
        let theirs = super::columns(&self.teacher[i], t, batch)?;
        if ours != theirs {
            let action = "give both networks inputs of one length";
            return Err(Refusal::new("tinybert_attention", format!("{ours} scores a sample"), theirs, action));
        }
        Ok(1.0 / s.len() as f32)
    }
}

impl gpu::losses::Kernel for Scores {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        for (i, (&s, &t)) in seen.student.iter().zip(seen.teacher).enumerate() {
            let floats = [self.floor, self.factor(i, s, t, seen.batch)?];
            gpu::losses::tinybert_attention::scores_distance(seen.gpu, i, [s, t], floats, given);
        }
        Ok(())
    }
}

impl Loss for Scores {
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
        let mut total = 0.0;
        for (i, (s, t)) in student.iter().zip(teacher).enumerate() {
            let factor = self.factor(i, s, t, batch)?;
            total += scores_distance(s, t, self.floor, factor, d_student[i]);
        }
        Ok(total)
    }
}
