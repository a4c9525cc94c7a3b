//! How sure networks are of their answers to the test samples, what they take for what, and how soft what teachers say is.

use kd_runtime::Result;
use kd_runtime::contract::Meaning;
use kd_runtime::graph::Graph;

use super::results::{Bin, Insight, Softness};
use super::session::Session;
use crate::losses::rows::log_sum_exp;
use crate::recipe::Recipe;
use crate::teacher::{Network, largest, log_probability};

/// Intervals of the largest probability, of one width (Guo et al. 2017, arXiv 1706.04599, §2).
const BINS: usize = 15;
/// A table of more classes than that is not read.
const MOST_CLASSES: usize = 32;

/// Asks a network that is made for the run's data.
pub(super) fn look(session: &Session<'_>, name: &str, graph: &Graph) -> Result<Insight> {
    let output = &session.data.contract.output;
    let classes = output.classes.len();
    let mut seen = Answers::new(classes);
    session.ask(graph, std::slice::from_ref(&output.name), &session.data.test, |values, labels| {
        let rows = values[0].chunks_exact(classes.max(1));
        rows.zip(labels).for_each(|(row, &label)| seen.add(row, label));
        Ok(())
    })?;
    Ok(seen.insight(name))
}

/// Answers of a network, counted.
struct Answers {
    /// Of each bin: the sum of confidences, right answers, samples.
    sums: Vec<(f64, u64, u64)>,
    confusion: Vec<Vec<u64>>,
}

impl Answers {
    fn new(classes: usize) -> Self {
        let confusion = vec![vec![0; classes]; if classes > MOST_CLASSES { 0 } else { classes }];
        Self { sums: vec![(0.0, 0, 0); BINS], confusion }
    }

    /// The logits of a sample, and its class.
    fn add(&mut self, row: &[f32], label: usize) {
        let best = largest(row);
        count(&mut self.sums, (row[best] - log_sum_exp(row, 1.0)).exp(), best == label);
        if let Some(count) = self.confusion.get_mut(label).and_then(|row| row.get_mut(best)) {
            *count += 1;
        }
    }

    fn insight(self, name: &str) -> Insight {
        let (bins, ece) = reliability(&self.sums);
        Insight { name: name.into(), ece, bins, confusion: self.confusion }
    }
}

/// Counts an answer in its bin.
fn count(sums: &mut [(f64, u64, u64)], sure: f32, is_right: bool) {
    let sure = f64::from(sure);
    let (confidence, right, n) = &mut sums[((sure * BINS as f64) as usize).min(BINS - 1)];
    (*confidence, *right, *n) = (*confidence + sure, *right + u64::from(is_right), *n + 1);
}

/// The expected calibration error of answers: of each the largest probability, and whether its class is right.
pub(super) fn calibration_error(answers: impl Iterator<Item = (f32, bool)>) -> f64 {
    let mut sums = vec![(0.0, 0, 0); BINS];
    answers.for_each(|(sure, is_right)| count(&mut sums, sure, is_right));
    reliability(&sums).1
}

/// Bins that hold samples, and the expected calibration error: the mean over samples of the gap between confidence and
/// accuracy of their bin (eq. 3 there).
fn reliability(sums: &[(f64, u64, u64)]) -> (Vec<Bin>, f64) {
    let all = sums.iter().map(|(_, _, n)| n).sum::<u64>().max(1) as f64;
    let there = sums.iter().filter(|(_, _, n)| *n > 0);
    let bins: Vec<Bin> = there
        .map(|&(confidence, right, n)| Bin { confidence: confidence / n as f64, accuracy: right as f64 / n as f64, n })
        .collect();
    let ece = bins.iter().map(|bin| bin.n as f64 / all * (bin.confidence - bin.accuracy).abs()).sum();
    (bins, ece)
}

/// How sure each teacher is of the test samples, and the mean entropy of what it says of them, at 1 and at the temperatures of
/// the recipe's terms.
pub(super) fn look_at_teachers(session: &Session<'_>, teachers: &[Network]) -> Result<(Vec<Insight>, Vec<Softness>)> {
    let temperatures = temperatures(session.recipe);
    let (mut insights, mut found) = (Vec::new(), Vec::new());
    for teacher in teachers {
        let output = &teacher.contract.output;
        let mut sums = vec![0.0; temperatures.len()];
        let (mut n, mut logits) = (0_usize, Vec::new());
        let mut seen = Answers::new(output.classes.len());
        session.ask_teacher(teacher, &session.data.test, |values, labels| {
            let classes = values[0].len() / labels.len().max(1);
            for (row, &label) in values[0].chunks_exact(classes.max(1)).zip(labels) {
                logits.clear();
                let is_probability = output.meaning == Meaning::Probabilities;
                logits.extend(row.iter().map(|&x| if is_probability { log_probability(x) } else { x }));
                seen.add(&logits, label);
                n += 1;
                for (sum, &temperature) in sums.iter_mut().zip(&temperatures) {
                    *sum += entropy(&logits, temperature as f32);
                }
            }
            Ok(())
        })?;
        let most = (output.classes.len().max(1) as f64).ln();
        let rows = temperatures.iter().zip(&sums).map(|(&temperature, sum)| Softness {
            teacher: teacher.name.clone(),
            temperature,
            entropy_nats: sum / n.max(1) as f64,
            most_nats: most,
        });
        found.extend(rows);
        insights.push(seen.insight(&format!("teacher, {}", teacher.name)));
    }
    Ok((insights, found))
}

/// 1, and those of the terms, in ascending order.
fn temperatures(recipe: &Recipe) -> Vec<f64> {
    let of_terms = recipe.distill.terms.iter().map(|term| &term.method.options);
    let of_terms = of_terms.filter(|options| options.0.contains_key("temperature"));
    let mut all: Vec<f64> = std::iter::once(1.0).chain(of_terms.map(|options| options.number("temperature"))).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// `-Σ p ln p` in nats, of `p = softmax(logits / temperature)`.
fn entropy(logits: &[f32], temperature: f32) -> f64 {
    let inverse = 1.0 / temperature;
    let shift = log_sum_exp(logits, inverse);
    let log = |z: &f32| f64::from(z * inverse - shift);
    -logits.iter().map(log).map(|log| log.exp() * log).filter(|term| term.is_finite()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_grows_with_the_temperature_up_to_that_of_no_knowledge() {
        let logits = [4.0, 1.0, -2.0, 0.5];
        let found: Vec<f64> = [0.1, 1.0, 4.0, 1e4].map(|t| entropy(&logits, t)).to_vec();
        assert!(found.is_sorted() && found[0] < 1e-6, "{found:?}");
        assert!((found[3] - 4_f64.ln()).abs() < 1e-6, "{found:?}");
        let p: Vec<f64> = logits.iter().map(|z| f64::from(*z).exp()).collect();
        let sum: f64 = p.iter().sum();
        let expected = -p.iter().map(|p| p / sum * (p / sum).ln()).sum::<f64>();
        assert!((found[1] - expected).abs() < 1e-6, "{found:?} {expected}");
    }

    #[test]
    fn the_error_of_calibration_is_the_mean_gap() {
        // Three samples at 0.9, two of them right; one at 0.5, wrong.
        let (bins, ece) = reliability(&[(0.0, 0, 0), (0.5, 0, 1), (2.7, 2, 3)]);
        assert_eq!(bins.len(), 2);
        let expected = 0.25 * 0.5 + 0.75 * (0.9 - 2.0 / 3.0);
        assert!((ece - expected).abs() < 1e-12, "{ece}");
        let one_by_one = calibration_error([(0.9, true), (0.5, false), (0.9, false), (0.9, true)].into_iter());
        assert!((one_by_one - expected).abs() < 1e-6, "{one_by_one}");
    }
}
