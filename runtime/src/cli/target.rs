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
    /// Finds and reads a model; refuses one in whose export any file has another sha256 than export.json records.
    pub fn open(named: &Path, precision: Option<Precision>, contract: Option<&Path>) -> Result<Self> {
        let path = find(named, precision)?;
        let bytes = files::read(&path)?;
        let sha256 = files::sha256(&bytes);
        check_export(path.parent().unwrap_or(Path::new("")))?;
        let beside = path.with_file_name("contract.json");
        let contract = match contract {
            Some(path) => Some(Contract::read(path)?),
            None if beside.is_file() => Some(Contract::read(&beside)?),
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

/// Refuses a folder in which a file has another sha256 than its export.json records (`files: { NAME: { sha256: SHA256 } }`).
/// Files that were not copied along are no matter; where there is no export.json, nothing is known.
fn check_export(folder: &Path) -> Result<()> {
    let record = folder.join("export.json");
    if !record.is_file() {
        return Ok(());
    }
    let refuse = |found: &dyn std::fmt::Display| {
        Refusal::new(
            record.display(),
            "the record of an export, with the sha256 of its files",
            found,
            "export the model again",
        )
    };
    let export: Value = serde_json::from_str(&files::read_text(&record)?).map_err(|e| refuse(&e))?;
    let recorded = export.get("files").and_then(Value::as_object).ok_or_else(|| refuse(&"no files"))?;
    for (name, entry) in recorded {
        let path = folder.join(name);
        // A name, not a way out of the folder.
        let is_name = path.file_name().is_some_and(|last| last == name.as_str());
        let expected = entry.get("sha256").and_then(Value::as_str).filter(|_| is_name);
        let expected = expected.ok_or_else(|| refuse(&format!("`{name}` with none")))?;
        if !path.is_file() {
            continue;
        }
        let found = files::sha256(&files::read(&path)?);
        if found != expected {
            let expected = format!("sha256 {expected}, as {} records", record.display());
            let action = "export the model again, or take the file that was exported";
            return Err(Refusal::new(path.display(), expected, found, action));
        }
    }
    Ok(())
}
