//! What the user names: an ONNX file, an export folder or a run folder; to a model file and what lies beside it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::Precision;
use crate::contract::Contract;
use crate::error::{Refusal, Result};
use crate::files;
use crate::graph::Graph;
use crate::onnx;

/// A model to measure.
pub struct Target {
    /// The ONNX file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Of the bytes.
    pub sha256: String,
    /// `--contract`, or `contract.json` beside the model.
    pub contract: Option<Contract>,
    /// The graph, or why our reader refuses it (another backend may still run it).
    pub graph: Result<Graph>,
    /// What the reader had to say.
    pub notes: Vec<String>,
}

impl Target {
    /// Finds and reads a model; refuses one whose sha256 its export.json does not record.
    pub fn open(named: &Path, precision: Option<Precision>, contract: Option<&Path>) -> Result<Self> {
        let path = find(named, precision)?;
        let bytes = files::read(&path)?;
        let sha256 = files::sha256(&bytes);
        check_record(&path, &sha256)?;
        let beside = path.with_file_name("contract.json");
        let contract = match contract {
            Some(path) => Some(Contract::read(path)?),
            None if beside.is_file() => {
                check_record(&beside, &files::sha256(&files::read(&beside)?))?;
                Some(Contract::read(&beside)?)
            }
            None => None,
        };
        let (graph, notes) = match onnx::read(&bytes) {
            Ok(model) => (Ok(model.graph), model.notes),
            Err(refusal) => (Err(refusal.within(path.display())), Vec::new()),
        };
        Ok(Self { path, bytes, sha256, contract, graph, notes })
    }
}

fn find(named: &Path, precision: Option<Precision>) -> Result<PathBuf> {
    if !named.is_dir() {
        if let Some(precision) = precision {
            let found = format!("a file and --precision {precision:?}").to_lowercase();
            return Err(Refusal::new(named.display(), "a folder to choose from", found, "leave --precision out"));
        }
        return Ok(named.to_path_buf());
    }
    let student = named.join("student");
    let folder = if student.is_dir() { student } else { named.to_path_buf() };
    let names: &[&str] = match precision {
        None => &["model.int8.onnx", "model.onnx"],
        Some(Precision::Int8) => &["model.int8.onnx"],
        Some(Precision::Float) => &["model.onnx"],
    };
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let action = "name an .onnx file, an export folder or a run folder";
        Refusal::new(folder.display(), names.join(" or "), "no such file", action)
    })
}

/// Refuses a file that export.json beside it records with another sha256 (`files: { NAME: SHA256 }`, or
/// `files: { NAME: { sha256: SHA256 } }`).
fn check_record(path: &Path, sha256: &str) -> Result<()> {
    let record = path.with_file_name("export.json");
    if !record.is_file() {
        return Ok(());
    }
    let export: Value = serde_json::from_str(&files::read_text(&record)?)
        .map_err(|e| Refusal::new(record.display(), "JSON", e, "export the model again"))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let entry = export.get("files").and_then(|files| files.get(&name));
    let recorded = entry.and_then(|entry| entry.as_str().or_else(|| entry.get("sha256").and_then(Value::as_str)));
    match recorded {
        Some(recorded) if recorded != sha256 => {
            let expected = format!("sha256 {recorded}, as {} records", record.display());
            Err(Refusal::new(
                path.display(),
                expected,
                sha256,
                "export the model again, or take the file that was exported",
            ))
        }
        _ => Ok(()),
    }
}
