//! Factor transfer: the student follows what an auto-encoder makes of the teacher.

use kd_runtime::{Refusal, Result};

use super::adapters::{Connector, layer, meet, student, teacher};
use super::at::places;
use super::joint::Joint;
use super::maps::{to_unit, to_unit_back};
use super::{Batch, Knowledge, Loss, Method, OwnGradient, Pair, Weight};
use crate::exec::{Parameter, Real, Role};
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::{Purpose, Rng};

/// The row of `ft`.
pub static METHOD: Method = Method {
    name: "ft",
    about: "factor transfer: a paraphraser of the teacher, a translator of the student",
    cite: "Kim et al. 2018",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean |q(s) - q(f(t))|^power` over batch and places, with `q` the mean over channels of the squares at each place, \
        divided by its length. `f` is the paraphraser: it makes `rate` times the teacher's channels of them, and is trained to \
        give them back, `mean (g(f(t)) - t)²` whatever the term's weight, in the first `paraphrase` share of the training, in which the student gets nothing \
        from this term; then it is frozen. The student's translator is a 3x3 convolution with batch norm.\n\n\
        The authors' paraphraser has three 3x3 convolutions with batch norm and leaky ReLU each way, trained for 30 epochs \
        before; here it is one 1x1 convolution each way, of which only the span matters to `q`. Its arrays lie in checkpoints and \
        are never exported.",
    source: "Kim, Park, Kwak 2018 (arXiv 1802.04977) eq. 1 to 3",
    weight: Weight { usual: 200.0, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"ft\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `ft`.
pub static OPTIONS: &[Spec] = &[
    student("last"),
    teacher("last"),
    Spec { name: "power", about: "exponent of the difference", kind: Kind::Count { default: 1, least: 1, most: 2 } },
    Spec {
        name: "rate",
        about: "channels of the factor for each of the teacher's",
        kind: Kind::Number { default: 0.5, range: Range::PositiveShare },
    },
    Spec {
        name: "paraphrase",
        about: "share of the training in which the paraphraser alone is trained",
        kind: Kind::Number { default: 0.1, range: Range::BelowOne },
    },
];

/// The mean over channels of the squares at each place, divided by its length; gives what it was divided by.
fn factor<T: Real>(x: &[T], q: &mut [T]) -> T {
    q.fill(T::ZERO);
    for row in x.chunks_exact(q.len()) {
        q.iter_mut().zip(row).for_each(|(q, &x)| *q += x * x);
    }
    let share = T::ONE / T::from_usize(x.len() / q.len());
    q.iter_mut().for_each(|q| *q *= share);
    to_unit(q)
}

/// `mean |q(s) - q(t)|^power` over batch and places, `power` 1 or 2.
///
/// * `student`: `[batch, channels[0], places]`, `teacher` (its factor): `[batch, channels[1], places]`.
/// * `d_student`: overwritten; the derivative of `|0|` is 0.
///
/// Source: Kim et al. 2018 (arXiv 1802.04977) eq. 3; RepDistiller's `FactorTransfer` with `p1 = 2`.
pub fn factor_distance<T: Real>(
    student: &[T],
    teacher: &[T],
    channels: [usize; 2],
    places: usize,
    power: usize,
    d_student: &mut [T],
) -> T {
    let batch = student.len() / (channels[0] * places).max(1);
    let count = (batch * places) as f64;
    let (mut q_s, mut q_t, mut d_q) = (vec![T::ZERO; places], vec![T::ZERO; places], vec![T::ZERO; places]);
    let samples = student.chunks_exact(channels[0] * places).zip(teacher.chunks_exact(channels[1] * places));
    let mut total = 0.0;
    for ((s, t), d) in samples.zip(d_student.chunks_exact_mut(channels[0] * places)) {
        let divisor = factor(s, &mut q_s);
        factor(t, &mut q_t);
        for (d, (&s, &t)) in d_q.iter_mut().zip(q_s.iter().zip(&q_t)) {
            let off = (s - t).to_f64();
            let (value, slope) = match power {
                1 if off == 0.0 => (0.0, 0.0),
                1 => (off.abs(), off.signum()),
                _ => (off * off, 2.0 * off),
            };
            total += value;
            *d = T::from_f64(slope / count);
        }
        to_unit_back(&q_s, divisor, &mut d_q);
        let share = T::from_f64(2.0 / channels[0] as f64);
        for (row, d) in s.chunks_exact(places).zip(d.chunks_exact_mut(places)) {
            let places = row.iter().zip(&d_q);
            d.iter_mut().zip(places).for_each(|(d, (&x, &d_q))| *d = x * d_q * share);
        }
    }
    T::from_f64(total / count)
}

/// `mean (decode · encode · t - t)²` over all elements of the teacher's map.
///
/// * `teacher`: `[batch, channels, places]`; `encode` `[factors, channels]`, `decode` `[channels, factors]`.
/// * `d_encode`, `d_decode`: overwritten.
pub fn reconstruction<T: Real>(
    teacher: &[T],
    [encode, decode]: [&[T]; 2],
    channels: usize,
    places: usize,
    [d_encode, d_decode]: [&mut [T]; 2],
) -> T {
    let factors = encode.len() / channels;
    let (mut code, mut d_code) = (vec![T::ZERO; factors * places], vec![T::ZERO; factors * places]);
    let mut off = vec![T::ZERO; channels * places];
    let rate = T::from_f64(2.0 / teacher.len() as f64);
    d_encode.fill(T::ZERO);
    d_decode.fill(T::ZERO);
    let mut total = 0.0;
    for t in teacher.chunks_exact(channels * places) {
        let sample = Matrix::rows(t, places);
        multiply(&mut code, Matrix::rows(encode, channels), sample, [factors, places, channels], T::ONE, false);
        off.iter_mut().zip(t).for_each(|(off, &t)| *off = -t);
        let product = [channels, places, factors];
        multiply(&mut off, Matrix::rows(decode, factors), Matrix::rows(&code, places), product, T::ONE, true);
        total += off.iter().map(|off| off.to_f64() * off.to_f64()).sum::<f64>();
        let back = Matrix::rows(&off, places);
        let product = [channels, factors, places];
        multiply(d_decode, back, Matrix::rows(&code, places).t(), product, rate, true);
        multiply(&mut d_code, Matrix::rows(decode, factors).t(), back, [factors, places, channels], rate, false);
        let product = [factors, channels, places];
        multiply(d_encode, Matrix::rows(&d_code, places), sample.t(), product, T::ONE, true);
    }
    T::from_f64(total / teacher.len() as f64)
}

struct Transfer {
    student: [String; 1],
    teacher: [String; 1],
    joint: Joint,
    own: Vec<Parameter<f32>>,
    power: usize,
    /// Share of the training in which the paraphraser is trained.
    paraphrase: f64,
    /// Whether the last batch was one of that share.
    paraphrases: bool,
    /// The teacher's factor.
    code: Vec<f32>,
}

/// The method `ft`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let taps = pair.taps_that(student, teacher, |s, t| places(s, t, false))?;
    let [(from, to)] = &taps[..] else {
        let action = "name one of the last maps of each network";
        return Err(Refusal::new("ft", "one tap of each network", taps.len(), action));
    };
    let channels = to.shape[0];
    let factors = ((channels as f64 * options.number("rate")).ceil() as usize).clamp(1, channels);
    let tap = pair.adapt(from, |net, prefix| {
        meet(net, &format!("{prefix}.0"), &to.shape)?;
        layer(net, &format!("{prefix}.0"), factors, Connector { kernel: 3, ..Connector::NORM })
    })?;
    let joint = Joint::common(&tap, to, false)?;
    let own = [("encode", 0, factors, channels), ("decode", 1, channels, factors)].map(|(part, i, outputs, inputs)| {
        let mut rng = Rng::new(pair.own_seed, Purpose::Initialize, u64::MAX, i);
        let bound = 1.0 / (inputs as f64).sqrt();
        let value: Vec<f32> = (0..outputs * inputs).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
        let name = format!("{}.{part}", pair.prefix);
        let gradient = vec![0.0; value.len()].into();
        Parameter { name, shape: vec![outputs, inputs], role: Role::Weight, gradient, value: value.into() }
    });
    Ok(Box::new(Transfer {
        student: [tap.name],
        teacher: [to.name.clone()],
        joint,
        own: own.to_vec(),
        power: options.count("power"),
        paraphrase: options.number("paraphrase"),
        paraphrases: true,
        code: Vec::new(),
    }))
}

impl Loss for Transfer {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn own(&self) -> Vec<Parameter<f32>> {
        self.own.clone()
    }

    fn own_gradient(&self) -> OwnGradient {
        if self.paraphrases { OwnGradient::Apart } else { OwnGradient::Nothing }
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        self.joint.check([&self.student[0], &self.teacher[0]], [student[0], teacher[0]], batch)?;
        let (ours, theirs) = self.joint.maps();
        let places = theirs.places();
        let [Parameter { value: encode, gradient: d_encode, .. }, Parameter { value: decode, gradient: d_decode, .. }] =
            own
        else {
            return Err(Refusal::new("ft", "its two arrays", own.len(), "resume from the same recipe"));
        };
        self.paraphrases = batch.progress < self.paraphrase;
        let (power, code, first) = (self.power, &mut self.code, self.paraphrases);
        Ok(self.joint.compare(student[0], teacher[0], d_student[0], |s, t, d| {
            if first {
                d.fill(0.0);
                return reconstruction(t, [encode, decode], theirs.channels, places, [d_encode, d_decode]);
            }
            d_encode.fill(0.0);
            d_decode.fill(0.0);
            let sample = theirs.elements();
            code.resize(s.len(), 0.0);
            for (t, code) in t.chunks_exact(sample).zip(code.chunks_exact_mut(ours.elements())) {
                let product = [ours.channels, places, theirs.channels];
                let encode = Matrix::rows(encode, theirs.channels);
                multiply(code, encode, Matrix::rows(t, places), product, 1.0, false);
            }
            factor_distance(s, code, [ours.channels; 2], places, power, d)
        }))
    }
}
