//! The angle between features.

use kd_runtime::Result;

use super::adapters::{CONNECTOR, TOKENS, connect_widths, student, teacher};
use super::joint::{Joint, OnGpu, PairLoss};
use super::{Knowledge, Loss, Method, Pair, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::options::{Options, Spec};

/// The row of `cosine`.
pub static METHOD: Method = Method {
    name: "cosine",
    about: "the angle between features, as DistilBERT's hidden states",
    cite: "Sanh et al. 2019",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`1 - s·t / (√(|s|² + 1e-16)·√(|t|² + 1e-16))`, mean over the batch and, of maps and tokens, over places; summed \
        over the pairs. Where the channels differ the student's go through a linear layer (a 1x1 convolution) with bias.\n\n\
        DistilBERT's is `tokens = true` on the last hidden states, its weight 1 beside 5 of `kd` at temperature 2. A row of \
        zeros has the value 1 and no gradient; torch's `CosineEmbeddingLoss` gives it one of 1e8.",
    source: "Sanh et al. 2019 (arXiv 1910.01108) §2; torch's `CosineEmbeddingLoss`",
    weight: Weight { usual: 1.0, source: "DistilBERT", forms: &[] },
    recipe: "terms = [{ method = \"cosine\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `cosine`.
pub static OPTIONS: &[Spec] = &[student("features"), teacher("features"), CONNECTOR, TOKENS];

/// Added to squared lengths.
const EPSILON: f64 = 1e-16;

/// `1 - cos(s, t)` of the channels at each place, mean over batch and places.
///
/// * `student`, `teacher`: `[batch, channels, places]`.
/// * `d_student`: overwritten; 0 where the student's or the teacher's channels are all 0.
pub fn angle<T: Real>(student: &[T], teacher: &[T], channels: usize, places: usize, d_student: &mut [T]) -> T {
    let sample = (channels * places).max(1);
    let rows = (student.len() / channels.max(1)) as f64;
    let mut sums = vec![[0.0_f64; 3]; places];
    let samples = student.chunks_exact(sample).zip(teacher.chunks_exact(sample));
    let mut total = 0.0;
    for ((s, t), d) in samples.zip(d_student.chunks_exact_mut(sample)) {
        sums.fill([0.0; 3]);
        for (s, t) in s.chunks_exact(places).zip(t.chunks_exact(places)) {
            for (sums, (s, t)) in sums.iter_mut().zip(s.iter().zip(t)) {
                let (s, t) = (s.to_f64(), t.to_f64());
                sums[0] += s * t;
                sums[1] += s * s;
                sums[2] += t * t;
            }
        }
        // From here on: what s and t are multiplied by in the gradient.
        for [product, ours, theirs] in &mut sums {
            let is_zero = *ours == 0.0 || *theirs == 0.0;
            let ours_square = *ours + EPSILON;
            let lengths = ours_square.sqrt() * (*theirs + EPSILON).sqrt();
            let cosine = *product / lengths;
            total += 1.0 - cosine;
            (*ours, *theirs) = if is_zero { (0.0, 0.0) } else { (cosine / ours_square / rows, -1.0 / lengths / rows) };
        }
        let channels = s.chunks_exact(places).zip(t.chunks_exact(places));
        for ((s, t), d) in channels.zip(d.chunks_exact_mut(places)) {
            for ((d, &[_, by_s, by_t]), (s, t)) in d.iter_mut().zip(&sums).zip(s.iter().zip(t)) {
                *d = T::from_f64(by_s * s.to_f64() + by_t * t.to_f64());
            }
        }
    }
    T::from_f64(total / rows)
}

/// The method `cosine`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let tokens = options.flag("tokens");
    let taps = pair.taps(options.text("student"), options.text("teacher"))?;
    let taps = connect_widths(pair, options, taps, tokens)?;
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, tokens)).collect::<Result<Vec<_>>>()?;
    let on_gpu: OnGpu = Box::new(|compared, gpu, sides, given| {
        let (channels, places) = (compared.student.channels, compared.student.places());
        gpu::losses::cosine::angle(gpu, compared.pair > 0, sides, channels, places, given);
        Ok(())
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), |compared, s, t, d| {
        angle(s, t, compared.student.channels, compared.student.places(), d)
    }))
}
