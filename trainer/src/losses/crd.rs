//! Relations: a sample's embedding by one network against the other's memory of it and of others.

use kd_runtime::{Refusal, Result};

use super::embed::{self, Embedding};
use super::relation::{Units, to_f64, write};
use super::taps::{STUDENT_FEATURES, TEACHER_FEATURES, within};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight, columns};
use crate::exec::random::{Stream, mix};
use crate::exec::{Parameter, Real, Role};
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::{Purpose, Rng};

/// The row of `crd`.
pub static METHOD: Method = Method {
    name: "crd",
    about: "contrastive representation distillation",
    cite: "Tian et al. 2020",
    knowledge: Knowledge::Relation,
    needs_labels: true,
    needs_whole_batch: true,
    formula: "`-mean_b [ln(P / (P + c)) + Σ_{negatives} ln(c / (P + c))]` with `P = exp(<v, m> / temperature) / Z` and `c \
        = negatives / samples + 1e-7` (without 1e-7 above the line), once with v the student's embedding and m the \
        teacher's memory, once the other way round. v is a trained linear embedding of length 1; m the memory's row \
        of the same sample, or of a negative. After the batch its rows become `momentum · m + (1 - momentum) · v`, \
        of length 1. Z is set in the first batch to the mean of exp(·) times the samples. Published beside `kd`.\n\n\
        Negatives are drawn anew for each sample and step, by seed and progress, from the samples whose class \
        differs as far as classes were seen yet (RepDistiller's sampler for CIFAR; without a seen class, from all \
        others), with replacement: more of them than there are other samples would say nothing new, so that left out they are no \
        more. The memories (samples · embed · 2 floats), Z and the classes lie in checkpoints.",
    source: "Tian, Krishnan, Isola 2020 (arXiv 1910.10699) eq. 17-19; memory: RepDistiller",
    weight: Weight { usual: 0.8, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"crd\" }, { method = \"kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `crd`.
pub static OPTIONS: &[Spec] = &[
    STUDENT_FEATURES,
    TEACHER_FEATURES,
    Spec {
        name: "embed",
        about: "values of the embeddings",
        kind: Kind::Count { default: 128, least: 1, most: 1 << 14 },
    },
    Spec {
        name: "negatives",
        about: "negatives of each sample",
        kind: Kind::Optional {
            kind: &Kind::Count { default: MOST_NEGATIVES, least: 1, most: 1 << 20 },
            left_out: "16384, but no more than other samples",
        },
    },
    Spec {
        name: "temperature",
        about: "what cosines are divided by, from 0.02 to 10000",
        kind: Kind::Number { default: 0.07, range: Range::Positive },
    },
    Spec {
        name: "momentum",
        about: "share of a memory's row that stays",
        kind: Kind::Number { default: 0.5, range: Range::BelowOne },
    },
];

/// Negatives of each sample where nothing is said and there are as many samples.
const MOST_NEGATIVES: usize = 16384;
/// Of cosines: below, `exp(1 / temperature)` times the samples would leave the f32 in which Z is kept.
const TEMPERATURES: [f64; 2] = [0.02, 1e4];
/// Added to the noise, so that no logarithm is of 0.
const EPSILON: f64 = 1e-7;

/// What both halves of the loss share.
#[derive(Clone, Copy, Debug)]
pub struct Contrast<'a> {
    /// `[batch, 1 + negatives]`: places in the memory, of the sample itself first.
    pub places: &'a [usize],
    /// Rows of the memory.
    pub samples: usize,
    /// What cosines are divided by.
    pub temperature: f64,
}

impl Contrast<'_> {
    /// One half: embeddings `[batch, columns]` of one side (lengths are divided out here) against the other side's memory
    /// `[samples, columns]`. `z` is set where it is not above 0. `d` is overwritten. Gives the value and the unit rows.
    pub fn half<T: Real>(
        &self,
        embedded: &[T],
        memory: &[T],
        columns: usize,
        z: &mut f64,
        d: &mut [T],
    ) -> (f64, Vec<f64>) {
        let units = Units::new(&to_f64(embedded), columns, 0.0);
        let batch = embedded.len() / columns.max(1);
        let each = self.places.len() / batch.max(1);
        let row = |place: usize| &memory[place * columns..][..columns];
        let cosine = |v: &[f64], m: &[T]| v.iter().zip(m).fold(0.0, |sum, (v, m)| sum + v * m.to_f64());
        let rows = || self.places.chunks_exact(each.max(1)).zip(units.rows.chunks_exact(columns));
        let mut scores: Vec<f64> = rows()
            .flat_map(|(places, v)| places.iter().map(move |&place| (cosine(v, row(place)) / self.temperature).exp()))
            .collect();
        if *z <= 0.0 {
            *z = scores.iter().sum::<f64>() / scores.len() as f64 * self.samples as f64;
        }
        let noise = (each - 1) as f64 / self.samples as f64;
        let mut total = 0.0;
        for (i, score) in scores.iter_mut().enumerate() {
            let p = *score / *z;
            let both = p + noise + EPSILON;
            // The score becomes the slope by the cosine.
            let slope = if i % each == 0 {
                total -= (p / both).ln();
                p / both - 1.0
            } else {
                total -= (noise / both).ln();
                p / both
            };
            *score = slope / (self.temperature * batch as f64);
        }
        let mut d_units = vec![0.0; units.rows.len()];
        for ((places, d), slopes) in
            self.places.chunks_exact(each).zip(d_units.chunks_exact_mut(columns)).zip(scores.chunks_exact(each))
        {
            for (&place, slope) in places.iter().zip(slopes) {
                d.iter_mut().zip(row(place)).for_each(|(d, m)| *d += slope * m.to_f64());
            }
        }
        units.backward(columns, &mut d_units);
        write(&d_units, d);
        (total / batch as f64, units.rows)
    }
}

/// Moves the memory's rows of a batch towards the embeddings, unit rows `[batch, columns]`.
pub fn remember<T: Real>(memory: &mut [T], places: &[usize], units: &[f64], columns: usize, momentum: f64) {
    for (&place, unit) in places.iter().zip(units.chunks_exact(columns)) {
        let row = &mut memory[place * columns..][..columns];
        let moved: Vec<f64> = row.iter().zip(unit).map(|(m, v)| momentum * m.to_f64() + (1.0 - momentum) * v).collect();
        write(&Units::new(&moved, columns, 0.0).rows, row);
    }
}

struct Contrastive {
    student: [String; 1],
    teacher: [String; 1],
    embedding: Embedding,
    prefix: String,
    samples: usize,
    negatives: usize,
    temperature: f64,
    momentum: f64,
    seed: u64,
}

fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (student, teacher) = pair.one(options.text("student"), options.text("teacher"))?;
    let (student, embedding) = Embedding::both(pair, &student, &teacher, options.count("embed"))?;
    Ok(Box::new(Contrastive {
        student: [student.name],
        teacher: [teacher.name],
        embedding,
        prefix: pair.prefix.clone(),
        samples: pair.samples,
        negatives: negatives(options, pair.samples),
        temperature: within("temperature", options.number("temperature"), TEMPERATURES)?,
        momentum: options.number("momentum"),
        seed: pair.own_seed,
    }))
}

/// How many negatives each sample has, of so many samples in all.
pub fn negatives(options: &Options, samples: usize) -> usize {
    let others = samples.saturating_sub(1).max(1);
    options.optional("negatives", Options::count).unwrap_or(MOST_NEGATIVES.min(others))
}

/// A class that was not seen yet.
const UNSEEN: f32 = -1.0;
/// Draws of one negative before one of the sample's own class is taken.
const MOST_DRAWS: u64 = 8;

impl Contrastive {
    /// Places `[batch, 1 + negatives]` of a step: the sample, then negatives. `classes` are those seen so far.
    fn draw(&self, batch: &Batch<'_>, classes: &[f32]) -> Vec<usize> {
        let mut places = Vec::with_capacity(batch.size * (1 + self.negatives));
        for (&own, &label) in batch.places.iter().zip(batch.labels) {
            places.push(own);
            let stream = Stream::new(self.seed ^ mix(batch.progress.to_bits()), own as u64);
            for i in 0..self.negatives {
                let draw = |turn: u64| {
                    let other = (stream.bits(i as u64 * MOST_DRAWS + turn) % (self.samples as u64 - 1)) as usize;
                    other + usize::from(other >= own)
                };
                let fits = |place: &usize| classes[*place] != label as f32;
                places.push((0..MOST_DRAWS).map(draw).find(fits).unwrap_or_else(|| draw(0)));
            }
        }
        places
    }
}

impl Loss for Contrastive {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn own(&self) -> Vec<Parameter<f32>> {
        let columns = self.embedding.outputs;
        let mut own = self.embedding.own();
        let mut rng = Rng::new(self.seed, Purpose::Initialize, u64::MAX, 1);
        // Uniform, of length about 1.
        let bound = (3.0 / columns as f64).sqrt();
        let mut memory = || (0..self.samples * columns).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
        let arrays = [
            ("memory.student", vec![self.samples, columns], memory()),
            ("memory.teacher", vec![self.samples, columns], memory()),
            ("z", vec![2], vec![0.0; 2]),
            ("classes", vec![self.samples], vec![UNSEEN; self.samples]),
        ];
        own.extend(arrays.into_iter().map(|(name, shape, value)| {
            let name = format!("{}.{name}", self.prefix);
            Parameter { name, shape, role: Role::Statistic, value: value.into(), gradient: Buffer::default() }
        }));
        own
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
        let most = batch.places.iter().copied().max().unwrap_or(0);
        if self.samples < 2 || most >= self.samples || batch.places.len() != batch.size {
            let expected = format!("places of {} samples, and at least 2 of them", batch.size);
            let found = format!("{} of {}", batch.places.len(), self.samples);
            return Err(Refusal::new("crd", expected, found, "train on more samples"));
        }
        let [weight, bias, memory_s, memory_t, z, classes] = own else { unreachable!("as many arrays as `own` gave") };
        let columns = self.embedding.outputs;
        let places = self.draw(batch, &classes.value);
        let contrast = Contrast { places: &places, samples: self.samples, temperature: self.temperature };
        let mut scales = [f64::from(z.value[0]), f64::from(z.value[1])];
        let (first, units_s) = contrast.half(student[0], &memory_t.value, columns, &mut scales[0], d_student[0]);
        let embedded = embed::forward(teacher[0], &weight.value, &bias.value);
        let mut d_teacher = vec![0.0; embedded.len()];
        let (second, units_t) = contrast.half(&embedded, &memory_s.value, columns, &mut scales[1], &mut d_teacher);
        embed::backward(teacher[0], &d_teacher, &mut weight.gradient, &mut bias.gradient);
        z.value.iter_mut().zip(scales).for_each(|(z, scale)| *z = scale as f32);
        remember(&mut memory_s.value, batch.places, &units_s, columns, self.momentum);
        remember(&mut memory_t.value, batch.places, &units_t, columns, self.momentum);
        for (&place, &label) in batch.places.iter().zip(batch.labels) {
            classes.value[place] = label as f32;
        }
        Ok((first + second) as f32)
    }
}
