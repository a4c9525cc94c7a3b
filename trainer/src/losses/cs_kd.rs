//! What the network itself predicts for another sample of the same class.

use std::cell::RefCell;

use kd_runtime::Result;

use super::kd::soft_targets;
use super::rows::Reduction;
use super::taps::{STUDENT_LOGITS, logits, temperature};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `cs_kd`.
pub static METHOD: Method = Method {
    name: "cs_kd",
    about: "class-wise: its own prediction of another sample of the class",
    cite: "Yun et al. 2020",
    knowledge: Knowledge::Own,
    needs_labels: true,
    needs_whole_batch: true,
    formula: "`temperature² · KL(p_partner ‖ p)` with `p = softmax(logits / temperature)`, mean over the batch: the \
        partner is the next sample of the same class in the batch, going round, and nothing flows through its \
        prediction. The authors' sampler draws a partner for each sample; here a sample without one in the batch \
        adds 0, so have batches of several times the classes.",
    source: "Yun et al. 2020 (arXiv 2003.13964) eq. 3",
    weight: Weight { usual: 1.0, source: "the authors'; 3 for fine classes", forms: &[] },
    recipe: "terms = [{ method = \"cs_kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `cs_kd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    Spec {
        name: "temperature",
        about: "what the logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 4.0, range: Range::Positive },
    },
];

/// For each sample the next one of its class in the batch, going round; `None` of the only one.
pub fn partners(labels: &[usize]) -> Vec<Option<usize>> {
    let n = labels.len();
    let partner = |i: usize| (1..n).map(|step| (i + step) % n).find(|&j| labels[j] == labels[i]);
    (0..n).map(partner).collect()
}

/// `temperature² · KL(p_partner ‖ p)`, mean over the batch, of logits `[batch, classes]`, whose `targets` are the partners' logits,
/// taken as constants. `d` is overwritten; rows without partner add nothing. Yun et al. 2020 (arXiv 2003.13964) eq. 3.
pub fn class_wise<T: Real>(logits: &[T], targets: &[T], partners: &[Option<usize>], temperature: T, d: &mut [T]) -> T {
    let classes = logits.len() / partners.len().max(1);
    let mut own = targets.to_vec();
    for (i, partner) in partners.iter().enumerate() {
        let from = partner.map_or(&logits[i * classes..], |j| &targets[j * classes..]);
        own[i * classes..][..classes].copy_from_slice(&from[..classes]);
    }
    soft_targets(logits, &own, classes, temperature, Reduction::BatchMean, true, d)
}

struct ClassWise {
    student: [String; 1],
    temperature: f32,
    /// Room on a GPU for the partners' logits.
    room: RefCell<Buffer<f32>>,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let student = [pair.student_answer(options.text("student"))?.name];
    Ok(Box::new(ClassWise { student, temperature: temperature(options)? as f32, room: RefCell::default() }))
}

impl gpu::losses::Kernel for ClassWise {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let classes = logits(&self.student[0], seen.student[0], seen.batch)?;
        gpu::losses::labelled::class_wise(seen, classes, self.temperature, &mut self.room.borrow_mut(), given)
    }
}

impl Loss for ClassWise {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn least_batch(&self) -> usize {
        2
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        _teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        logits(&self.student[0], student[0], batch)?;
        let partners = partners(batch.labels);
        Ok(class_wise(student[0], student[0], &partners, self.temperature, d_student[0]))
    }
}
