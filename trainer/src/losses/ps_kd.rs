//! What the network itself predicted for a sample when it last saw it.

use kd_runtime::{Refusal, Result};

use super::rows::{log_softmax, weighted_cross_entropy};
use super::taps::{STUDENT_LOGITS, logits};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real, Role};
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `ps_kd`.
pub static METHOD: Method = Method {
    name: "ps_kd",
    about: "progressive: its own prediction of the last epoch",
    cite: "Kim et al. 2021",
    knowledge: Knowledge::Own,
    needs_labels: true,
    needs_whole_batch: true,
    formula: "`-Σ_k ((1 - a) · [k = label] + a · p_before[k]) · ln p[k]`: p_before is the distribution that the network \
        gave the sample when it was last trained on, and a grows from 0 to `alpha` with the progress of the training \
        (in the paper by epochs: `a = 0.8 · t / T`). A sample that was not seen yet has its label alone. This is the \
        whole loss: set `task_weight = 0`. The stored predictions (samples · classes floats) lie in checkpoints.",
    source: "Kim, Ji, Yoon, Hwang 2021 (arXiv 2006.12000) eq. 4-5",
    weight: Weight { usual: 1.0, source: "the paper's, beside nothing", forms: &[] },
    recipe: "task_weight = 0.0\nterms = [{ method = \"ps_kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `ps_kd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    Spec {
        name: "alpha",
        about: "share of the stored prediction at the end of the training",
        kind: Kind::Number { default: 0.8, range: Range::Share },
    },
];

/// `-Σ_k ((1 - share) [k = label] + share · before) ln softmax(student)`, mean over the batch, of logits `[batch, classes]`.
/// `before` holds distributions `[batch, classes]`; a row that is 0 was never written and counts as the label. Both are
/// overwritten: `before` with the present distributions, `d_student` with the gradient. Kim et al. 2021 (arXiv 2006.12000).
pub fn past_prediction<T: Real>(student: &[T], labels: &[usize], share: T, before: &mut [T], d_student: &mut [T]) -> T {
    let classes = student.len() / labels.len().max(1);
    let factor = T::ONE / T::from_usize(labels.len());
    let rows =
        student.chunks_exact(classes).zip(before.chunks_exact_mut(classes)).zip(d_student.chunks_exact_mut(classes));
    let mut log = Vec::new();
    let mut total = 0.0;
    for (((student, before), d), &label) in rows.zip(labels) {
        log_softmax(student, T::ONE, &mut log);
        let share = if before.iter().all(|&p| p == T::ZERO) { T::ZERO } else { share };
        before.iter_mut().for_each(|p| *p = share * *p);
        before[label] += T::ONE - share;
        total += weighted_cross_entropy(&log, before, T::ONE, factor, d).to_f64();
        before.iter_mut().zip(&log).for_each(|(p, log)| *p = log.exp());
    }
    T::from_f64(total) * factor
}

struct Progressive {
    student: [String; 1],
    alpha: f64,
    prefix: String,
    samples: usize,
    classes: usize,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let tap = pair.student_answer(options.text("student"))?;
    Ok(Box::new(Progressive {
        classes: tap.elements(),
        student: [tap.name],
        alpha: options.number("alpha"),
        prefix: pair.prefix.clone(),
        samples: pair.samples,
    }))
}

impl Loss for Progressive {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn own(&self) -> Vec<Parameter<f32>> {
        let (name, shape) = (format!("{}.predictions", self.prefix), vec![self.samples, self.classes]);
        let value = vec![0.0; self.samples * self.classes];
        vec![Parameter { name, shape, role: Role::Statistic, value: value.into(), gradient: Buffer::default() }]
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        _teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        logits(&self.student[0], student[0], batch)?;
        let [predictions] = own else { unreachable!("as many arrays as `own` gave") };
        let row = |&place: &usize| predictions.value.get(place * self.classes..(place + 1) * self.classes);
        let Some(rows) = batch.places.iter().map(row).collect::<Option<Vec<&[f32]>>>() else {
            let found = batch.places.iter().max().copied().unwrap_or(0);
            let expected = format!("places below {}", self.samples);
            return Err(Refusal::new("ps_kd", expected, found, "report this as a bug"));
        };
        let mut before = rows.concat();
        let share = (self.alpha * batch.progress) as f32;
        let value = past_prediction(student[0], batch.labels, share, &mut before, d_student[0]);
        for (&place, row) in batch.places.iter().zip(before.chunks_exact(self.classes)) {
            predictions.value[place * self.classes..][..self.classes].copy_from_slice(row);
        }
        Ok(value)
    }
}
