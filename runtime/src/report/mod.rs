//! What `kd-bench` reports: one structure, shown as text or as JSON (`kd.bench/1`).

pub mod json;
pub mod text;

use serde::Serialize;

use crate::budget::{ALPHA, Line, Verdict};
use crate::measure::accuracy::Score;
use crate::measure::device::Device;
use crate::measure::stats;

/// The value of `schema`.
pub const SCHEMA: &str = "kd.bench/1";

/// All figures of one model on one device. What is not known is `null`, never 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The model.
    pub model: Model,
    /// Name of the backend.
    pub backend: String,
    /// Threads that compute one inference.
    pub threads: usize,
    /// The device and its state.
    pub device: Device,
    /// Reading the file, parsing and planning; median of the processes.
    pub load_ms: f64,
    /// The first inference; median of the processes.
    pub first_ms: f64,
    /// Inferences after warm-up.
    pub latency_ms: Latency,
    /// Peak memory.
    pub memory: Memory,
    /// Right answers, where there are data and a contract.
    pub accuracy: Option<Accuracy>,
    /// The budget's name.
    pub budget_name: Option<String>,
    /// A line a limit.
    pub budget: Vec<Line>,
    /// The verdict on all limits, where there is a budget.
    pub verdict: Option<Verdict>,
    /// What a reader should know: conversions, drift, other load.
    pub notes: Vec<String>,
}

/// The model's file and sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// As it was found.
    pub path: String,
    /// Of the file.
    pub sha256: String,
    /// Of the file.
    pub size_bytes: u64,
    /// Weights and biases; `null` where only the backend can read the model.
    pub parameters: Option<u64>,
    /// Multiply-accumulates of one sample; `null` where only the backend can read the model.
    pub macs: Option<u64>,
    /// `int8` where the model quantizes, else `f32`.
    pub precision: Option<&'static str>,
}

/// Latency of single inferences, in ms; quantiles by nearest rank, `null` where the samples cannot bound them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Number of samples.
    pub n: usize,
    /// The fastest.
    pub min: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90 % are not slower.
    pub p90: Option<f64>,
    /// 95 % are not slower.
    pub p95: Option<f64>,
    /// 99 % are not slower.
    pub p99: Option<f64>,
    /// All samples, in the order of measuring, process by process.
    pub samples: Vec<f64>,
}

impl Latency {
    /// Of samples in the order of measuring.
    pub fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = |p| stats::quantile(&sorted, p).filter(|_| stats::supports(sorted.len(), p, ALPHA));
        Self {
            n: sorted.len(),
            min: sorted.first().copied(),
            p50: quantile(0.50),
            p90: quantile(0.90),
            p95: quantile(0.95),
            p99: quantile(0.99),
            samples,
        }
    }
}

/// Memory of a process that loads and runs the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Its largest resident size, median of the processes.
    pub peak_mib: f64,
    /// The same of a process that loads nothing.
    pub empty_mib: f64,
    /// The arena of the plan.
    pub arena_bytes: Option<usize>,
    /// Weights and tables as the kernels hold them.
    pub weights_bytes: Option<usize>,
    /// Counted, where the backend's allocations can be.
    pub allocations_per_inference: Option<f64>,
}

/// Right answers on the test data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of right answers.
    pub top1: f64,
    /// Samples.
    pub n: u64,
    /// Two-sided 95 % interval of Clopper and Pearson.
    pub ci: (f64, f64),
}

impl Accuracy {
    /// Of a score.
    pub fn of(score: Score) -> Self {
        let top1 = score.right as f64 / score.n.max(1) as f64;
        Self { top1, n: score.n, ci: stats::share_interval(score.right, score.n, ALPHA) }
    }
}
