//! Where a teacher comes from, and what it says: frozen, in eval mode, never changed.

pub mod batch;
pub mod cache;

mod source;
#[cfg(test)]
mod tests;

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result, files, onnx};

pub use source::open;

use crate::data::{RawBatch, Samples, scale};
use crate::exec::{Compute, Executor, Mode, Plan};
use crate::losses::rows::log_sum_exp;

/// Whether and how a teacher's answers are kept (keys of `[teacher]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheWish {
    /// Whether to keep them where that is possible.
    pub wanted: bool,
    /// Augmented views of each sample; 0: none, with augmentations the teacher is asked at every step.
    pub views: usize,
    /// How they are kept.
    pub precision: cache::Precision,
}

impl CacheWish {
    /// No cache.
    pub const OFF: Self = Self { wanted: false, views: 0, precision: cache::Precision::F32 };
}

/// A network that teaches.
pub struct Network {
    /// What messages and evidence call it: `run DIR`, `onnx FILE`, `arch NAME`.
    pub name: String,
    /// The network.
    pub graph: Graph,
    /// What it is fed, and what its output means.
    pub contract: Contract,
    /// SHA-256 of the model file it came from.
    pub sha256: String,
    /// Its share in the mean of several teachers, already divided by their sum.
    pub weight: f64,
    /// Whether and how its answers are kept.
    pub cache: CacheWish,
    /// What is to be said of it once, one line each.
    pub notes: Vec<String>,
}

/// Right answers of a network (eval mode) over samples, and every predicted class in order. The prediction is the first
/// largest output; refuses outputs that are not numbers.
pub struct Answers {
    /// Predicted class of each sample.
    pub predicted: Vec<usize>,
    /// Samples answered rightly.
    pub right: usize,
    /// Mean cross-entropy in nats with the true classes.
    pub loss: f64,
}

/// How samples are asked about: so many at a time, and what computes.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// Samples of a batch, at most.
    pub batch: usize,
    /// What computes.
    pub compute: Compute<'a>,
}

/// Asks a network (eval mode) about samples in their order, batch by batch: `each` gets the values of the taps, a row a
/// sample, and the labels. A graph for one sample at a time is opened first ([`batch::open`]).
pub fn ask(
    graph: &Graph,
    contract: &Contract,
    samples: &Samples,
    taps: &[String],
    pace: Pace<'_>,
    mut each: impl FnMut(&[&[f32]], &[usize]) -> Result<()>,
) -> Result<()> {
    let graph = batch::open(graph)?;
    let batch = pace.batch.min(samples.len()).max(1);
    let Compute { threads, gpu } = pace.compute;
    let plan = Plan { batch, taps: taps.to_vec(), backward: false, threads, gpu: gpu.cloned() };
    let mut executor = Executor::<f32>::new(&graph, &plan)?;
    let taps = taps.iter().map(|tap| executor.tap(tap)).collect::<Result<Vec<_>>>()?;
    let (mut raw, mut x) = (RawBatch::default(), Vec::new());
    let places: Vec<usize> = (0..samples.len()).collect();
    for places in places.chunks(batch) {
        samples.gather(places, &mut raw);
        scale(contract, &raw.values, &mut x);
        executor.forward(&x, places.len(), Mode::Eval)?;
        let values: Vec<&[f32]> = taps.iter().map(|&tap| executor.value(tap)).collect();
        each(&values, &raw.labels)?;
    }
    Ok(())
}

/// Evaluates a graph on samples, as [`ask`] does.
pub fn evaluate(graph: &Graph, contract: &Contract, samples: &Samples, pace: Pace<'_>) -> Result<Answers> {
    let mut answers = Answers { predicted: Vec::with_capacity(samples.len()), right: 0, loss: 0.0 };
    let output = &contract.output;
    ask(graph, contract, samples, std::slice::from_ref(&output.name), pace, |values, labels| {
        let classes = values[0].len() / labels.len().max(1);
        for (row, &label) in values[0].chunks_exact(classes.max(1)).zip(labels) {
            check_numbers(row, &output.name, answers.predicted.len())?;
            let predicted = largest(row);
            answers.predicted.push(predicted);
            answers.right += usize::from(predicted == label);
            answers.loss += cross_entropy(row, label, output.meaning)?;
        }
        Ok(())
    })?;
    answers.loss /= samples.len().max(1) as f64;
    Ok(answers)
}

/// The first largest of a row.
pub fn largest(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// The logarithm of a probability, of at least the smallest normal number: 0 has none. NaN stays.
pub fn log_probability(p: f32) -> f32 {
    if p < f32::MIN_POSITIVE { f32::MIN_POSITIVE.ln() } else { p.ln() }
}

/// SHA-256 of a network with its parameters, however it is held: of the ONNX file that it would be written to.
pub fn parameters_sha256(graph: &Graph) -> String {
    files::sha256(&onnx::write(graph))
}

/// Whether two graphs compute the same with the same weights; what they and their values are called does not count.
pub fn same_network(a: &Graph, b: &Graph) -> bool {
    same_operators(a, b) && a.initializers.values().eq(b.initializers.values())
}

/// Whether two graphs have the same operators in the same order.
pub fn same_operators(a: &Graph, b: &Graph) -> bool {
    a.nodes.len() == b.nodes.len() && a.nodes.iter().zip(&b.nodes).all(|(a, b)| a.op == b.op)
}

/// Minus infinity is the logarithm of 0; nothing else that is not finite means something.
fn check_numbers(row: &[f32], output: &str, sample: usize) -> Result<()> {
    match row.iter().find(|value| value.is_nan() || **value == f32::INFINITY) {
        Some(value) => {
            let at = format!("output `{output}` of sample {sample}");
            Err(Refusal::new(at, "numbers", value, "train the network again, or choose another"))
        }
        None => Ok(()),
    }
}

/// Cross-entropy in nats of one row with the true class.
fn cross_entropy(row: &[f32], label: usize, meaning: Meaning) -> Result<f64> {
    let value = *row.get(label).ok_or_else(|| {
        let expected = format!("a class below {}, the network's outputs", row.len());
        Refusal::new("label", expected, label, "choose the data that the network was made for")
    })?;
    Ok(f64::from(match meaning {
        Meaning::Probabilities => -log_probability(value),
        _ => log_sum_exp(row, 1.0) - value,
    }))
}
