//! A hand-made teacher.

use std::cell::RefCell;

use kd_runtime::Result;

use super::kd::soft_targets;
use super::rows::{REDUCTIONS, Reduction};
use super::taps::{STUDENT_LOGITS, logits, temperature};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `tf_kd`.
pub static METHOD: Method = Method {
    name: "tf_kd",
    about: "teacher-free: a hand-made teacher",
    cite: "Yuan et al. 2020",
    knowledge: Knowledge::Own,
    needs_labels: true,
    needs_whole_batch: false,
    formula: "`KL(q ‖ softmax(z_student))` with `q = softmax(u / temperature)`, u `correct` at the label and the rest of 1 \
        spread evenly over the other classes. The student's logits are not divided. The mean is over batch · \
        classes, as the authors' `KLDivLoss()` has it: their `alpha` and `multiplier` are `task_weight = 1 - alpha`, \
        `weight = alpha · multiplier` (0.1 and 1 to 100).",
    source: "Yuan et al. 2020 (arXiv 1909.11723) eq. 9-11",
    weight: Weight::ONE,
    recipe: "task_weight = 0.9\nterms = [{ method = \"tf_kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `tf_kd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    Spec {
        name: "correct",
        about: "what the hand-made teacher gives the true class, before it is divided by the temperature",
        kind: Kind::Number { default: 0.99, range: Range::PositiveShare },
    },
    Spec {
        name: "temperature",
        about: "what the hand-made teacher's numbers are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 20.0, range: Range::Positive },
    },
    Spec {
        name: "reduction",
        about: "sum over classes, then mean over the batch (`batchmean`), `sum` over both, or `mean` over both",
        kind: Kind::Choice { default: "mean", known: REDUCTIONS },
    },
];

/// `KL(q ‖ softmax(student))` with the hand-made q, of logits `[batch, classes]`. `d_student` is overwritten. Yuan et al. 2020
/// (arXiv 1909.11723) eq. 9-11.
pub fn hand_made<T: Real>(
    student: &[T],
    labels: &[usize],
    correct: T,
    temperature: T,
    reduction: Reduction,
    d_student: &mut [T],
) -> T {
    let classes = student.len() / labels.len().max(1);
    let [correct, rest] = teacher(correct, classes, temperature);
    let mut teacher = vec![rest; student.len()];
    for (row, &label) in teacher.chunks_exact_mut(classes).zip(labels) {
        row[label] = correct;
    }
    soft_targets(student, &teacher, classes, T::ONE, reduction, false, d_student)
}

/// Logits of the hand-made teacher: of the true class, and of each other one.
fn teacher<T: Real>(correct: T, classes: usize, temperature: T) -> [T; 2] {
    [correct, (T::ONE - correct) / T::from_usize(classes.max(2) - 1)].map(|share| share / temperature)
}

struct HandMade {
    student: [String; 1],
    correct: f32,
    temperature: f32,
    reduction: Reduction,
    /// Room on a GPU for the teacher's logits.
    room: RefCell<Buffer<f32>>,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    Ok(Box::new(HandMade {
        student: [pair.student_answer(options.text("student"))?.name],
        correct: options.number("correct") as f32,
        temperature: temperature(options)? as f32,
        reduction: Reduction::of(options.text("reduction")),
        room: RefCell::default(),
    }))
}

impl gpu::losses::Kernel for HandMade {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let classes = logits(&self.student[0], seen.student[0], seen.batch)?;
        let teacher = teacher(self.correct, classes, self.temperature);
        gpu::losses::labelled::hand_made(seen, classes, teacher, self.reduction, &mut self.room.borrow_mut(), given)
    }
}

impl Loss for HandMade {
    fn student_taps(&self) -> &[String] {
        &self.student
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
        Ok(hand_made(student[0], batch.labels, self.correct, self.temperature, self.reduction, d_student[0]))
    }
}
