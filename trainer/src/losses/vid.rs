//! Variational information: a Gaussian around what the student regresses.

use kd_runtime::Result;

use super::adapters::{Connector, layer, meet, student, teacher};
use super::joint::Joint;
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real, Role};
use crate::options::{Kind, Options, Range, Spec};

/// The row of `vid`.
pub static METHOD: Method = Method {
    name: "vid",
    about: "variational information: a Gaussian with trained variances around the regressed feature",
    cite: "Ahn et al. 2019",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`mean ½·((m(s) - t)² / v + ln v)` over all elements, with `v = softplus(log_scale) + 1e-5` of each of the teacher's \
        channels and `m` three 1x1 convolutions without bias (of vectors linear layers, which have one), ReLU between them; summed over the pairs. `log_scale` is trained \
        beside the student from `v = variance`; it lies in checkpoints and is never exported. It may become negative: a term that \
        falls below 0 is no error.\n\n\
        mdistiller keeps `log_scale` in a list that its optimizer never sees, so that the variances stay what they were.",
    source: "Ahn, Hu, Damianou, Lawrence, Dai 2019 (arXiv 1904.05835) eq. 5, 6",
    weight: Weight { usual: 1.0, source: "RepDistiller", forms: &[] },
    recipe: "terms = [{ method = \"vid\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `vid`.
pub static OPTIONS: &[Spec] = &[
    student("stages"),
    teacher("stages"),
    Spec {
        name: "variance",
        about: "first variance of every channel",
        kind: Kind::Number { default: 5.0, range: Range::Positive },
    },
];

/// The least variance.
pub const LEAST_VARIANCE: f64 = 1e-5;

/// `mean ½·((m - t)² / v + ln v)`, `v = softplus(log_scale) + least`, over all elements.
///
/// * `regressed`, `teacher`: `[batch, channels, places]`; `log_scale`: of each channel.
/// * `d_regressed`, `d_log_scale`: overwritten.
///
/// Source: Ahn et al. 2019 (arXiv 1904.05835) eq. 5, 6 without its constant.
pub fn information<T: Real>(
    regressed: &[T],
    teacher: &[T],
    log_scale: &[T],
    places: usize,
    least: f64,
    d_regressed: &mut [T],
    d_log_scale: &mut [T],
) -> T {
    let channels = log_scale.len();
    let share = 1.0 / regressed.len() as f64;
    let variances: Vec<f64> = log_scale
        .iter()
        .map(|a| {
            // ln(1 + e^a) without overflow.
            let a = a.to_f64();
            let positive = if a < 0.0 { 0.0 } else { a };
            positive + (-a.abs()).exp().ln_1p() + least
        })
        .collect();
    let mut squares = vec![0.0; channels];
    let planes = regressed.chunks_exact(places).zip(teacher.chunks_exact(places));
    for (i, ((m, t), d)) in planes.zip(d_regressed.chunks_exact_mut(places)).enumerate() {
        let factor = T::from_f64(share / variances[i % channels]);
        let mut square = T::ZERO;
        for ((&m, &t), d) in m.iter().zip(t).zip(d) {
            let off = m - t;
            square += off * off;
            *d = off * factor;
        }
        squares[i % channels] += square.to_f64();
    }
    let elements = (regressed.len() / channels.max(1)) as f64;
    let mut total = 0.0;
    for (((&v, &square), a), d) in variances.iter().zip(&squares).zip(log_scale).zip(d_log_scale) {
        total += 0.5 * (square / v + elements * v.ln());
        let sigmoid = 1.0 / (1.0 + (-a.to_f64()).exp());
        *d = T::from_f64(0.5 * share * (elements / v - square / (v * v)) * sigmoid);
    }
    T::from_f64(total * share)
}

struct Information {
    student: Vec<String>,
    teacher: Vec<String>,
    joints: Vec<Joint>,
    own: Vec<Parameter<f32>>,
}

/// The method `vid`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let variance = options.number("variance").max(2.0 * LEAST_VARIANCE) - LEAST_VARIANCE;
    // The inverse of softplus.
    let log_scale = (variance + (-(-variance).exp()).ln_1p()) as f32;
    let mut loss = Information { student: vec![], teacher: vec![], joints: vec![], own: vec![] };
    for (i, (from, to)) in pair.taps(options.text("student"), options.text("teacher"))?.into_iter().enumerate() {
        let channels = to.shape[0];
        let from = pair.adapt(&from, |net, prefix| {
            meet(net, &format!("{prefix}.{i}"), &to.shape)?;
            for (part, relu) in [(1, true), (2, true), (3, false)] {
                let connector = Connector { bias: false, relu, ..Connector::LINEAR };
                layer(net, &format!("{prefix}.{i}.{part}"), channels, connector)?;
            }
            Ok(())
        })?;
        loss.joints.push(Joint::common(&from, &to, false)?);
        loss.own.push(Parameter {
            name: format!("{}.{i}.log_scale", pair.prefix),
            shape: vec![channels],
            role: Role::BiasOrNorm,
            value: vec![log_scale; channels].into(),
            gradient: vec![0.0; channels].into(),
        });
        loss.student.push(from.name);
        loss.teacher.push(to.name);
    }
    Ok(Box::new(loss))
}

impl Loss for Information {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn own(&self) -> Vec<Parameter<f32>> {
        self.own.clone()
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        let mut total = 0.0;
        for (i, (joint, own)) in self.joints.iter_mut().zip(own).enumerate() {
            joint.check([&self.student[i], &self.teacher[i]], [student[i], teacher[i]], batch)?;
            let (places, Parameter { value: log_scale, gradient, .. }) = (joint.maps().1.places(), own);
            total += joint.compare(student[i], teacher[i], d_student[i], |s, t, d| {
                information(s, t, log_scale, places, LEAST_VARIANCE, d, gradient)
            });
        }
        Ok(total)
    }
}
