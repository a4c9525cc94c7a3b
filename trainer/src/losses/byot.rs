//! Self distillation: exits behind the student's own stages learn from its deepest part.

use kd_runtime::{Refusal, Result};

use super::ce::{Labels, Targets, cross_entropy, labelled};
use super::kd::soft_targets;
use super::pair::STAGES;
use super::rows::{Reduction, log_softmax, weighted_cross_entropy};
use super::taps::{TEMPERATURES, logits, within};
use super::{Batch, Knowledge, Loss, Method, Pair, Tap, Weight, columns};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::options::{Kind, Options, Range, Spec};
use crate::zoo::layers::Conv;

/// The row of `byot`.
pub static METHOD: Method = Method {
    name: "byot",
    about: "be your own teacher: exits learn from the deepest part",
    cite: "Zhang et al. 2019",
    knowledge: Knowledge::Own,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "sum over the exits of `(1 - alpha) · CE + alpha · temperature² · KL(p_deepest ‖ p_exit) + lambda · mean \
        (F_exit - F_deepest)²`. Nothing flows into the deepest logits and features: they learn from the task's loss \
        alone (but see `seed_literal`). An exit stands behind every stage but the last: bottleneck convolutions (1x1, strided to the last \
        stage's size, 1x1; batch norm and ReLU each) to the width of the deepest features, the mean over places, a \
        linear layer; of a vector a linear layer with ReLU, and one to the classes. F are the features before an \
        exit's last layer; where the deepest may be negative (`ts_transformer`, `lstm`, `gru`) the last ReLU before them is left \
        out, and a note says so. Each exit can be kept as a student of its own.\n\n\
        CE has both classes of a mixed sample; `train.label_smoothing` and `train.class_weights` are the task's alone.\n\n\
        `form` says what else differs, and what the other options are when left out. `paper`: the squares are summed over \
        the features (mean over the batch), temperature 1. `seed_literal`: the same sum over all classifiers, the deepest \
        included: its `(1 - alpha) · CE` is part of the term, which is the whole loss; `task_weight` above 0 is refused. \
        `journal` (the authors' later code): no temperature², the soft cross-entropy and the length, not squared, of the \
        whole batch's difference, for all exits but the last; that code's linear layer on the exit's side of it, its separable \
        convolutions and its attention are left out. `masked` (third-party code, `task_weight = 0.9`): alpha 0.1, \
        lambda 1e-6, the soft cross-entropy and the sum of squares where either feature is above 0.",
    source: "Zhang et al. 2019 (arXiv 1905.08094) eq. 4-8",
    weight: Weight { usual: 1.0, source: "the paper's", forms: &[] },
    recipe: "terms = [{ method = \"byot\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `byot`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "student", about: "tap with the deepest logits", kind: Kind::Text { default: "logits" } },
    Spec { name: "features", about: "tap with the deepest features", kind: Kind::Text { default: "features" } },
    Spec {
        name: "at",
        about: "taps that get an exit, with commas between, or `stages`: all but the last",
        kind: Kind::Text { default: STAGES },
    },
    Spec {
        name: "alpha",
        about: "share of the deepest answer, beside the label",
        kind: Kind::Optional {
            kind: &Kind::Number { default: 0.3, range: Range::Share },
            left_out: "0.3; masked: 0.1",
        },
    },
    Spec {
        name: "temperature",
        about: "what both logits are divided by, from 0.001 to 10000",
        kind: Kind::Optional {
            kind: &Kind::Number { default: 3.0, range: Range::Positive },
            left_out: "3.0; paper, seed_literal: 1.0",
        },
    },
    Spec {
        name: "tau2",
        about: "whether to multiply the soft part by temperature²",
        kind: Kind::Optional { kind: &Kind::Flag { default: true }, left_out: "true; journal, seed_literal: false" },
    },
    Spec {
        name: "lambda",
        about: "factor of the features' part",
        kind: Kind::Optional {
            kind: &Kind::Number { default: 0.03, range: Range::NotNegative },
            left_out: "0.03; masked: 1e-6",
        },
    },
    Spec {
        name: "form",
        about: "the default, or what a paper or code has: it decides what the options above are when left out",
        kind: Kind::Choice { default: "mean", known: FORMS },
    },
];

/// The words of the option `form`.
pub const FORMS: &[&str] = &["mean", "paper", SEED_LITERAL, "journal", "masked"];

/// The form whose term holds the deepest cross-entropy too.
pub const SEED_LITERAL: &str = "seed_literal";

/// Factors of an exit's parts, and how they are made.
#[derive(Clone, Debug)]
pub struct Form<T> {
    /// Share of the deepest answer.
    pub alpha: T,
    /// Of both logits.
    pub temperature: T,
    /// Whether the soft part is times temperature².
    pub tau2: bool,
    /// Factor of the features' part.
    pub lambda: T,
    /// A word of [`FORMS`].
    pub word: String,
}

/// An exit beside the deepest part.
#[derive(Clone, Copy, Debug)]
pub struct Exit<'a, T> {
    /// Logits `[batch, classes]`: the exit's, the deepest.
    pub logits: [&'a [T]; 2],
    /// Features `[batch, width]`: the exit's, the deepest.
    pub features: [&'a [T]; 2],
    /// Whether no other exit is deeper.
    pub is_last: bool,
}

impl Form<f32> {
    /// As options say, and where they say nothing as their form has it.
    fn of(options: &Options) -> Result<Self> {
        let word = options.text("form").to_string();
        let (alpha, temperature, tau2, lambda) = match &*word {
            "paper" => (0.3, 1.0, true, 0.03),
            SEED_LITERAL => (0.3, 1.0, false, 0.03),
            "journal" => (0.3, 3.0, false, 0.03),
            "masked" => (0.1, 3.0, true, 1e-6),
            _ => (0.3, 3.0, true, 0.03),
        };
        let number = |name, left_out| options.optional(name, Options::number).unwrap_or(left_out) as f32;
        let temperature = options.optional("temperature", Options::number).unwrap_or(temperature);
        Ok(Self {
            alpha: number("alpha", alpha),
            temperature: within("temperature", temperature, TEMPERATURES)? as f32,
            tau2: options.optional("tau2", Options::flag).unwrap_or(tau2),
            lambda: number("lambda", lambda),
            word,
        })
    }
}

impl<T: Real> Exit<'_, T> {
    /// The exit's loss; the deepest part is constant. `d_logits` and `d_features`, of the exit, are overwritten. Zhang et al.
    /// 2019 (arXiv 1905.08094) eq. 4-8.
    pub fn loss<'l>(
        &self,
        labels: impl Into<Labels<'l>>,
        form: &Form<T>,
        d_logits: &mut [T],
        d_features: &mut [T],
    ) -> T {
        let labels = labels.into();
        let batch = labels.classes.len();
        let classes = self.logits[0].len() / batch.max(1);
        let mut d_soft = vec![T::ZERO; d_logits.len()];
        let hard = cross_entropy(self.logits[0], labels, classes, &Targets::default(), Reduction::BatchMean, d_logits);
        let soft = self.soft(classes, form, &mut d_soft);
        for (d, &d_soft) in d_logits.iter_mut().zip(&d_soft) {
            *d = (T::ONE - form.alpha) * *d + form.alpha * d_soft;
        }
        let hint = self.hint(batch, form, d_features);
        d_features.iter_mut().for_each(|d| *d = form.lambda * *d);
        (T::ONE - form.alpha) * hard + form.alpha * soft + form.lambda * hint
    }

    /// The part of the deepest answer.
    fn soft(&self, classes: usize, form: &Form<T>, d: &mut [T]) -> T {
        let [own, deepest] = self.logits;
        if !matches!(&*form.word, "journal" | "masked") {
            return soft_targets(own, deepest, classes, form.temperature, Reduction::BatchMean, form.tau2, d);
        }
        let inverse = T::ONE / form.temperature;
        let scale = if form.tau2 { form.temperature * form.temperature } else { T::ONE };
        let scale = scale / T::from_usize(own.len() / classes.max(1));
        let (mut log_s, mut log_t) = (Vec::new(), Vec::new());
        let mut total = 0.0;
        let rows = own.chunks_exact(classes).zip(deepest.chunks_exact(classes)).zip(d.chunks_exact_mut(classes));
        for ((own, deepest), d) in rows {
            log_softmax(own, inverse, &mut log_s);
            log_softmax(deepest, inverse, &mut log_t);
            log_t.iter_mut().for_each(|log| *log = log.exp());
            total += weighted_cross_entropy(&log_s, &log_t, inverse, scale, d).to_f64();
        }
        T::from_f64(total) * scale
    }

    /// The part of the features.
    fn hint(&self, batch: usize, form: &Form<T>, d: &mut [T]) -> T {
        let [own, deepest] = self.features;
        let is_masked = form.word == "masked";
        let mut total = 0.0;
        for ((d, &x), &y) in d.iter_mut().zip(own).zip(deepest) {
            *d = if is_masked && x <= T::ZERO && y <= T::ZERO { T::ZERO } else { x - y };
            total += (*d * *d).to_f64();
        }
        let total = T::from_f64(total);
        let two = T::from_f64(2.0);
        let (value, factor) = match &*form.word {
            "journal" if self.is_last || total == T::ZERO => (T::ZERO, T::ZERO),
            "journal" => (total.sqrt(), T::ONE / total.sqrt()),
            "masked" => (total, two),
            "mean" => (total / T::from_usize(own.len()), two / T::from_usize(own.len())),
            _ => (total / T::from_usize(batch), two / T::from_usize(batch)),
        };
        d.iter_mut().for_each(|d| *d = factor * *d);
        value
    }
}

struct Exits {
    /// Logits of the exits, their features, the deepest logits and features.
    taps: Vec<String>,
    form: Form<f32>,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let form = Form::of(options)?;
    let (logits, features) = (pair.student_answer(options.text("student"))?, pair.student(options.text("features"))?);
    let mut stages = pair.student_taps(options.text("at"))?;
    let is_stages = options.text("at") == STAGES;
    let deepest = if is_stages { stages.pop() } else { pair.student_taps(STAGES)?.pop() };
    let (Some(deepest), false) = (deepest, stages.is_empty()) else {
        let action = "choose a deeper student, or name taps as `at`";
        return Err(Refusal::new("byot", "a student of at least 2 stages", "fewer", action));
    };
    let (mut taps, mut widths) = (Vec::new(), Vec::new());
    let ends_in_relu = pair.student_is_never_negative(&features);
    if !ends_in_relu {
        pair.note_no_relu("each exit's features", &[format!("the deepest `{}`", features.name)]);
    }
    for (i, stage) in stages.iter().enumerate() {
        let exit = exit(pair, stage, &deepest, (features.elements(), ends_in_relu), i + 1)?;
        taps.push(exit.1.name.clone());
        widths.push(exit.0.name);
        pair.exits.push(exit.1);
    }
    taps.extend(widths);
    taps.extend([logits.name, features.name]);
    Ok(Box::new(Exits { taps, form }))
}

/// Adds an exit behind a stage; its features, of the width of the deepest and behind a ReLU or not, and its logits.
fn exit(
    pair: &mut Pair<'_>,
    stage: &Tap,
    deepest: &Tap,
    (width, ends_in_relu): (usize, bool),
    number: usize,
) -> Result<(Tap, Tap)> {
    let classes = pair.classes;
    let features = pair.adapt(stage, |net, prefix| {
        let name = format!("{prefix}.exit{number}");
        let [_, places @ ..] = &*stage.shape else { return Ok(()) };
        if places.len() > 2 {
            let (at, found) = (format!("tap `{}`", stage.name), format!("{:?}", stage.shape));
            let action = "name another tap as `at`";
            return Err(Refusal::new(at, "a map [C, H, W], a series [C, T] or a vector [F]", found, action));
        }
        if places.is_empty() {
            if ends_in_relu {
                net.linear(&format!("{name}.pre"), width)?;
                net.relu(&format!("{name}.features"));
            } else {
                net.linear(&format!("{name}.features"), width)?;
            }
            return Ok(());
        }
        // Down to the size of the last stage; a vector there has none.
        let mut strides = [1; 2];
        let offset = 2 - places.len();
        for (axis, &size) in places.iter().enumerate() {
            let least = deepest.shape.get(1 + axis).copied().unwrap_or(size);
            strides[offset + axis] = (size / least.max(1)).max(1);
        }
        let inner = (width.min(deepest.shape[0]) / 4).max(1);
        net.conv_norm_relu(&format!("{name}.1"), &Conv::square(inner, 1, 1))?;
        let kernel = strides.map(|stride| stride.max(3));
        let strided = Conv { kernel, stride: strides, ..Conv::square(inner, 3, 1) };
        net.conv_norm_relu(&format!("{name}.2"), &strided)?;
        let (last, widened) = (format!("{name}.3"), Conv::square(width, 1, 1));
        if ends_in_relu { net.conv_norm_relu(&last, &widened) } else { net.conv_norm(&last, &widened) }?;
        net.global_average(&format!("{name}.features"));
        Ok(())
    })?;
    let logits = pair.adapt(&features, |net, prefix| net.linear(&format!("{prefix}.exit{number}.logits"), classes))?;
    Ok((features, logits))
}

impl Exits {
    /// Logits of a sample. Refuses taps without rows for the samples, and labels that have no logit.
    fn classes(&self, batch: &Batch<'_>, student: &[&[f32]]) -> Result<usize> {
        for (name, values) in self.taps.iter().zip(student) {
            columns(name, values, batch)?;
        }
        let deepest = student.len() - 2;
        logits(&self.taps[deepest], student[deepest], batch)
    }
}

impl gpu::losses::Kernel for Exits {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let classes = self.classes(seen.batch, seen.student)?;
        let labelled = labelled(Labels::of(seen.batch), &Targets::<f32>::default());
        gpu::losses::byot::exits(seen, classes, &self.form, labelled, given);
        Ok(())
    }
}

impl Loss for Exits {
    fn student_taps(&self) -> &[String] {
        &self.taps
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        if self.form.word == "journal" { None } else { Some(self) }
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        _teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let exits = student.len() / 2 - 1;
        let classes = self.classes(batch, student)?;
        let (d_logits, rest) = d_student.split_at_mut(exits);
        let (d_features, d_deepest) = rest.split_at_mut(exits);
        d_deepest.iter_mut().for_each(|d| d.fill(0.0));
        let labels = Labels::of(batch);
        let mut total = 0.0;
        if self.form.word == SEED_LITERAL {
            let (targets, weight) = (Targets::default(), 1.0 - self.form.alpha);
            let deepest = student[2 * exits];
            total += weight * cross_entropy(deepest, labels, classes, &targets, Reduction::BatchMean, d_deepest[0]);
            d_deepest[0].iter_mut().for_each(|d| *d *= weight);
        }
        for (i, (d_logits, d_features)) in d_logits.iter_mut().zip(d_features).enumerate() {
            let exit = Exit {
                logits: [student[i], student[2 * exits]],
                features: [student[exits + i], student[2 * exits + 1]],
                is_last: i + 1 == exits,
            };
            total += exit.loss(labels, &self.form, d_logits, d_features);
        }
        Ok(total)
    }
}
