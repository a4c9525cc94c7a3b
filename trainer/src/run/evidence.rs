//! What a run was made of, so that a verdict can be followed back to the data: `evidence.json`, schema `kd.evidence/1`.
//! It is the last file of a run: where it is, the run is complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kd_runtime::measure::{device::Device, memory};
use kd_runtime::report::json;
use kd_runtime::{Refusal, Result, data::Source, files};
use serde::{Deserialize, Serialize};

use super::clock;
use super::folder::{EVIDENCE, Folder, LOCK};
use super::results;
use crate::data::{Counts, Prepared};
use crate::recipe::Recipe;

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
    /// SHA-256 of every other file of the run folder, without those in [`UNLISTED`].
    pub files: BTreeMap<String, String>,
}

/// Folders that evidence does not list: what only a resumption needs, what teachers said (each cache is checked when it is
/// opened), and TensorBoard's files, which hold times.
pub const UNLISTED: [&str; 3] = ["checkpoints", "cache", "tensorboard"];

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
    /// The GPU that computed, and what it lacked; left out where the host did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// How many processes trained together; left out where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
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
    pub train: Counts,
    /// Samples that an epoch is selected with.
    pub validation: Counts,
    /// Samples that are reported with.
    pub test: Counts,
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

impl TeacherIdentity {
    /// Of a teacher that has taught; an error if that changed it.
    pub fn new(judged: &results::Teacher, before: String, after: String) -> Result<Self> {
        let results::Teacher { name, sha256, .. } = judged.clone();
        if before != after {
            let found = format!("sha256 {after}");
            return Err(Refusal::new(
                format!("teacher `{name}`"),
                format!("sha256 {before}"),
                found,
                "report this bug",
            ));
        }
        let accuracy = judged.judged.accuracy;
        Ok(Self { name, sha256, accuracy, network_before: before, network_after: after })
    }
}

impl Evidence {
    /// All but what is known at the end.
    pub fn new(
        recipe: &Recipe,
        data: &Prepared,
        teachers: Vec<TeacherIdentity>,
        starts: Vec<Start>,
        device: Device,
    ) -> Self {
        let source = Source { format: recipe.data.format.clone(), path: recipe.data.path.clone(), reading: None };
        let part = |samples| Counts::of(samples, data.description.classes.len());
        Self {
            schema: SCHEMA,
            program: Program::this(),
            starts,
            ended: String::new(),
            recipe_sha256: files::sha256(recipe.to_toml().as_bytes()),
            device,
            data: DataIdentity {
                source: source.to_string(),
                sha256: data.description.sha256.clone(),
                classes: data.description.classes.clone(),
                train: part(&data.train),
                validation: part(&data.validation),
                test: part(&data.test),
            },
            teachers,
            seeds: recipe.seeds(),
            peak_mib: None,
            files: BTreeMap::new(),
        }
    }

    /// Fills in what is known at the end, when every other file is written.
    pub fn end(&mut self, folder: &Folder) -> Result<()> {
        self.files = files_of(folder.path())?;
        self.device.read_after();
        self.peak_mib = memory::peak_kib().ok().map(|kib| kib as f64 / 1024.0);
        self.ended = clock::utc();
        Ok(())
    }
}

/// Every start of a run, beside its checkpoints: `kd.starts/1`.
#[derive(Serialize, Deserialize)]
struct Starts {
    schema: String,
    starts: Vec<Start>,
}

const STARTS: &str = "checkpoints/starts.json";
const STARTS_SCHEMA: &str = "kd.starts/1";

/// Notes a start of the run; gives all so far.
pub fn add_start(
    folder: &Folder,
    command_line: Vec<String>,
    gpu: Option<String>,
    processes: Option<usize>,
) -> Result<Vec<Start>> {
    let path = folder.path().join(STARTS);
    let refuse = |found| Refusal::new(path.display(), "the starts of a run", found, "begin anew with --force");
    let mut starts = if path.exists() {
        let read: Starts = serde_json::from_str(&files::read_text(&path)?).map_err(|e| refuse(e.to_string()))?;
        read.starts
    } else {
        Vec::new()
    };
    starts.push(Start { started: clock::utc(), command_line, gpu, processes });
    let record = Starts { schema: STARTS_SCHEMA.into(), starts };
    folder.write(STARTS, json::pretty(&record).as_bytes())?;
    Ok(record.starts)
}

/// SHA-256 of the folder's files and those of its folders, without evidence and lock, and without [`UNLISTED`].
fn files_of(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut left = vec![String::new()];
    while let Some(under) = left.pop() {
        let path = folder.join(&under);
        for entry in fs::read_dir(&path).map_err(|e| files::refuse_read(&path, &e))? {
            let entry = entry.map_err(|e| files::refuse_read(&path, &e))?;
            let name = format!("{under}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                if !UNLISTED.contains(&&*name) {
                    left.push(format!("{name}/"));
                }
            } else if name != EVIDENCE && name != LOCK {
                found.insert(name, files::sha256(&files::read(&entry.path())?));
            }
        }
    }
    Ok(found)
}
