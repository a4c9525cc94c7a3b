//! What a run was made of, so that a verdict can be followed back to the data: `evidence.json`, schema `kd.evidence/1`.
//! It is the last file of a run: where it is, the run is complete.

use std::collections::BTreeMap;

use kd_runtime::measure::device::Device;
use serde::{Deserialize, Serialize};

use crate::data::Samples;

/// The value of `schema`.
pub const SCHEMA: &str = "kd.evidence/1";

/// The evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What computed it.
    pub program: Program,
    /// Every start of the run: one, and one a resumption.
    pub starts: Vec<Start>,
    /// When it ended, UTC.
    pub ended: String,
    /// SHA-256 of recipe.toml, the resolved recipe.
    pub recipe_sha256: String,
    /// The device, at the last start and at the end.
    pub device: Device,
    /// What was learned and measured from.
    pub data: DataIdentity,
    /// Who taught.
    pub teachers: Vec<TeacherIdentity>,
    /// Seeds of the students.
    pub seeds: Vec<u64>,
    /// Largest resident size of the last process, in MiB; `null` where the system cannot tell.
    pub peak_mib: Option<f64>,
    /// SHA-256 of every other file of the run folder, without checkpoints.
    pub files: BTreeMap<String, String>,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// `kd-train`.
    pub name: &'static str,
    /// Of the crate.
    pub version: &'static str,
    /// Git revision that it was built from, where the build was told (`KD_REVISION`).
    pub revision: Option<&'static str>,
}

impl Program {
    /// This program.
    pub fn this() -> Self {
        Self { name: "kd-train", version: env!("CARGO_PKG_VERSION"), revision: option_env!("KD_REVISION") }
    }
}

/// A start of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// When, UTC.
    pub started: String,
    /// The command line.
    pub command_line: Vec<String>,
}

/// The data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataIdentity {
    /// `FORMAT:PATH`.
    pub source: String,
    /// Over the bytes of its files.
    pub sha256: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Samples that are learned from.
    pub train: Part,
    /// Samples that an epoch is selected with.
    pub validation: Part,
    /// Samples that are reported with.
    pub test: Part,
}

/// A part of the data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Samples.
    pub n: usize,
    /// Samples of each class, in the classes' order.
    pub per_class: Vec<usize>,
}

impl Part {
    /// Of samples.
    pub fn of(samples: &Samples, classes: usize) -> Self {
        let mut per_class = vec![0; classes];
        for &label in &samples.labels {
            if let Some(n) = per_class.get_mut(label) {
                *n += 1;
            }
        }
        Self { n: samples.len(), per_class }
    }
}

/// A teacher.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TeacherIdentity {
    /// Where it came from.
    pub name: String,
    /// Of its model file.
    pub sha256: String,
    /// Accuracy that it was judged by before step 0.
    pub accuracy: f64,
    /// SHA-256 of the network in memory, written as ONNX, before it taught.
    pub network_before: String,
    /// The same after it taught: equal, or the run has failed.
    pub network_after: String,
}
