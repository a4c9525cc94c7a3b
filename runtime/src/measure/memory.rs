//! Peak memory: a fresh process loads a model, runs it a few times and says the largest resident size it ever had.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Job, inputs};
use crate::error::{Exit, Refusal, Result};
use crate::files;

/// Runs before the peak is read: buffers that a backend makes on first use are there after one.
const RUNS: usize = 5;

/// A process's peak, and what the plan says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Largest resident size, in KiB.
    pub peak_kib: u64,
    /// Bytes of the arena, where the backend knows.
    pub arena_bytes: Option<usize>,
    /// Bytes of weights and tables as the kernels hold them, where the backend knows.
    pub weights_bytes: Option<usize>,
}

/// Loads and runs a model and reads this process's peak: to be called in a child.
pub fn measure(job: &Job) -> Result<Peak> {
    // Random inputs: reading data would count its buffers.
    let job = Job { data: None, ..job.clone() };
    let mut backend = job.load(1)?;
    let mut random = inputs::Random::new(1);
    let fed: Vec<_> = backend.inputs().iter().map(|ty| random.tensor(ty, (-1.0, 1.0))).collect();
    for (i, x) in fed.iter().enumerate() {
        backend.feed(i, x.view())?;
    }
    for _ in 0..RUNS {
        backend.run()?;
    }
    let plan = backend.plan_bytes();
    Ok(Peak {
        peak_kib: peak_kib()?,
        arena_bytes: plan.map(|plan| plan.arena_bytes),
        weights_bytes: plan.map(|plan| plan.weights_bytes),
    })
}

/// The largest resident size that this process has had, in KiB: `VmHWM` of `/proc/self/status`.
pub fn peak_kib() -> Result<u64> {
    let path = Path::new("/proc/self/status");
    let text = files::read_text(path).map_err(|e| e.with_exit(Exit::Lacking))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.ok_or_else(|| {
        let found = line.map_or("none".into(), |line| format!("`{}`", line.trim()));
        Refusal::new(path.display(), "a line VmHWM in kB", found, "measure memory on Linux").with_exit(Exit::Lacking)
    })
}
