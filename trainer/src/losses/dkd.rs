//! Soft targets in two parts: the true class against all others, and the others among themselves.

use kd_runtime::Result;

use super::rows::{Average, divergence, log_softmax, log_sum_exp};
use super::taps::{AVERAGE, STUDENT_LOGITS, TEACHER_LOGITS, answers, temperature};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::Answers;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `dkd`.
pub static METHOD: Method = Method {
    name: "dkd",
    about: "decoupled soft targets",
    cite: "Zhao et al. 2022",
    knowledge: Knowledge::Response,
    needs_labels: true,
    needs_whole_batch: false,
    formula: "`temperature² · (alpha · KL(b_teacher ‖ b_student) + beta · KL(r_teacher ‖ r_student))`: b is the \
        probability of the true class beside that of all others, r the distribution over the others alone, both at \
        the temperature. With two classes the second part is 0. As published: beta 8 on most pairs, 2 for resnet56 \
        and resnet110 teachers, 6 for vgg13 and wrn-40-2; `weight` rising linearly over 20 epochs; CE beside it.\n\n\
        Official code masks with -1000 and takes the logarithm of a probability: at logits of 1e3 it is wrong or \
        infinite. Here the class is left out and all is in logarithms.",
    source: "Zhao et al. 2022 (arXiv 2203.08679) eq. 7",
    weight: Weight { usual: 1.0, source: "mdistiller", forms: &[] },
    recipe: "terms = [{ method = \"dkd\", schedule = { kind = \"constant\", warmup_epochs = 3.0, warmup_start = 0.0 } }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `dkd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_LOGITS,
    TEACHER_LOGITS,
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Number { default: 4.0, range: Range::Positive },
    },
    Spec {
        name: "alpha",
        about: "factor of the part of the true class",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
    Spec {
        name: "beta",
        about: "factor of the part of the other classes",
        kind: Kind::Number { default: 8.0, range: Range::NotNegative },
    },
    AVERAGE,
];

/// Says that of two classes one is no distribution over the others.
pub fn note_two_classes(pair: &mut Pair<'_>) {
    if pair.classes == 2 {
        pair.notes
            .push("has nothing of the classes that are not true: there is one, so that its second part is 0".into());
    }
}

/// One side of a row: logarithms of the probabilities of the true class and of all others, and of the others among
/// themselves.
struct Split<T> {
    binary: Vec<T>,
    others: Vec<T>,
}

impl<T: Real> Split<T> {
    fn new(row: &[T], label: usize, inverse: T) -> Self {
        let rest: Vec<T> = [&row[..label], &row[label + 1..]].concat();
        let (mut binary, mut others) = (Vec::new(), Vec::new());
        log_softmax(&rest, inverse, &mut others);
        log_softmax(&[row[label] * inverse, log_sum_exp(&rest, inverse)], T::ONE, &mut binary);
        Self { binary, others }
    }
}

/// `temperature² · (alpha · TCKD + beta · NCKD)`, mean over the batch, of logits `[batch, classes]`; gives both parts,
/// not weighted. `d_student` is overwritten with the gradient of the weighted sum. Zhao et al. 2022 (arXiv 2203.08679) eq. 7.
pub fn decoupled<T: Real>(
    [student, teacher]: [&[T]; 2],
    labels: &[usize],
    temperature: T,
    [alpha, beta]: [T; 2],
    d_student: &mut [T],
) -> [T; 2] {
    let classes = student.len() / labels.len().max(1);
    let inverse = T::ONE / temperature;
    let scale = temperature * temperature / T::from_usize(labels.len());
    let rows =
        student.chunks_exact(classes).zip(teacher.chunks_exact(classes)).zip(d_student.chunks_exact_mut(classes));
    let mut totals = [0.0; 2];
    for (((student, teacher), d), &label) in rows.zip(labels) {
        let (s, t) = (Split::new(student, label, inverse), Split::new(teacher, label, inverse));
        totals[0] += divergence(&s.binary, &t.binary).to_f64();
        totals[1] += divergence(&s.others, &t.others).to_f64();
        // Both differences of the binary part are each other's negative; each is rounded at its own size.
        let of_true = alpha * (s.binary[0].exp() - t.binary[0].exp());
        let of_others = alpha * (s.binary[1].exp() - t.binary[1].exp());
        let mut rest = s.others.iter().zip(&t.others);
        for (k, d) in d.iter_mut().enumerate() {
            let by_scaled = if k == label {
                of_true
            } else {
                let (&s, &t) = rest.next().expect("a row has one class more than the others");
                of_others * s.exp() + beta * (s.exp() - t.exp())
            };
            *d = by_scaled * inverse * scale;
        }
    }
    totals.map(|total| T::from_f64(total) * scale)
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let temperature = temperature(options)? as f32;
    let factors = [options.number("alpha") as f32, options.number("beta") as f32];
    note_two_classes(pair);
    let on_gpu = move |seen: &gpu::losses::Seen<'_>, [classes, _]: [usize; 2], given: &mut gpu::losses::Given<'_>| {
        gpu::losses::labelled::decoupled(seen, Answers::of(seen, classes), temperature, factors, given);
        Ok(())
    };
    answers(options, pair, Average::of(options.text("average")), Some(Box::new(on_gpu)), move |seen, d| {
        let parts = decoupled([seen.student, seen.teacher], seen.batch.labels, temperature, factors, d);
        factors[0] * parts[0] + factors[1] * parts[1]
    })
}
