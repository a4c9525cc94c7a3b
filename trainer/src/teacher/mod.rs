//! Where a teacher comes from, and what it says: frozen, in eval mode, never changed.

use kd_runtime::Result;
use kd_runtime::contract::Contract;
use kd_runtime::graph::Graph;

use crate::data::Samples;

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

/// Evaluates a graph on samples.
pub fn evaluate(
    graph: &Graph,
    contract: &Contract,
    samples: &Samples,
    batch: usize,
    threads: usize,
) -> Result<Answers> {
    let _ = (graph, contract, samples, batch, threads);
    todo!()
}
