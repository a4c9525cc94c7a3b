//! The export folder, written at once from the networks in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kd_runtime::contract::Contract;
use kd_runtime::files::{self, NewFolder};
use kd_runtime::graph::Graph;
use kd_runtime::report::json;
use kd_runtime::{Result, onnx};
use serde::Serialize;

use crate::formats::safetensors;
use crate::verify::{Compared, Parity};

/// The value of `schema` in export.json.
pub const SCHEMA: &str = "kd.export/1";

/// Files of an export by name, as they will be written.
pub type Files = BTreeMap<&'static str, Vec<u8>>;

/// One file of the folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Of its bytes.
    pub sha256: String,
    /// Its bytes.
    pub size_bytes: u64,
}

/// What was exported, from what, and how well.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub program: String,
    /// The command line.
    pub command: Vec<String>,
    /// The model that was exported.
    pub source: Source,
    /// Name, sha256 and size of each file.
    pub files: BTreeMap<&'static str, Entry>,
    /// How ranges were found; null in floats.
    pub calibration: Option<CalibrationRecord>,
    /// Convolutions and matrix products that compute in integers, of how many; null in floats.
    pub integer_products: Option<[usize; 2]>,
    /// A line for each node that computes in floats although the network is quantized.
    pub stays_float: Vec<String>,
    /// Networks that must compute the same; null without data.
    pub parity: Option<Parity>,
    /// Float and int8 on the test part; null without data.
    pub accuracy: Option<Compared>,
    /// Percentage points that int8 may lose.
    pub max_drop_points: f64,
    /// Whether parity and accuracy hold.
    pub verdict: kd_runtime::budget::Verdict,
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// As the command named it.
    pub path: String,
    /// Of the ONNX file.
    pub sha256: String,
    /// Of the run's evidence.json, where it came from a run.
    pub evidence_sha256: Option<String>,
    /// The data, as `FORMAT:PATH`.
    pub data: Option<String>,
    /// Of the data's files.
    pub data_sha256: Option<String>,
}

/// How ranges were found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationRecord {
    /// The method.
    pub method: &'static str,
    /// Samples of the training part.
    pub samples: usize,
}

/// The files of an export: float always, int8 where there is one.
pub fn files(float: &Graph, int8: Option<&Graph>, contract: Option<&Contract>) -> Result<Files> {
    let mut files = Files::new();
    files.insert("model.onnx", onnx::write(float));
    files.insert("model.safetensors", safetensors::write_float(float)?);
    if let Some(int8) = int8 {
        files.insert("model.int8.onnx", onnx::write(int8));
        files.insert("model.int8.safetensors", safetensors::write_int8(int8)?);
    }
    if let Some(contract) = contract {
        files.insert("contract.json", contract.to_json().into_bytes());
    }
    Ok(files)
}

/// What export.json says of the files.
pub fn entries(files: &Files) -> BTreeMap<&'static str, Entry> {
    let entry = |bytes: &Vec<u8>| Entry { sha256: files::sha256(bytes), size_bytes: bytes.len() as u64 };
    files.iter().map(|(&name, bytes)| (name, entry(bytes))).collect()
}

/// Writes the folder: it appears whole under its name, or not at all. What was written is read back and compared.
pub fn write(path: &Path, force: bool, files: &Files, record: &Record) -> Result<()> {
    let folder = NewFolder::create(path, force)?;
    let text = json::pretty(record);
    let all = files.iter().map(|(&name, bytes)| (name, bytes.as_slice()));
    for (name, bytes) in all.chain([("export.json", text.as_bytes())]) {
        let file = folder.path().join(name);
        files::write_atomic(&file, bytes)?;
        let back = fs::read(&file).map_err(|error| files::refuse_read(&file, &error))?;
        if back != bytes {
            let found = "other bytes";
            let action = "check the disk";
            return Err(kd_runtime::Refusal::new(file.display(), "what was written", found, action)
                .with_exit(kd_runtime::Exit::Lacking));
        }
    }
    folder.finish()
}
