//! What every study is asked for on its command line, and how it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::Value;

use crate::args::Args;

/// Options of every study.
const OPTIONS: &[&str] = &["arms", "seeds", "jobs", "kd-train", "runs", "output", "report"];

/// What a study is asked for, whatever it is about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where its data are.
    pub folder: PathBuf,
    /// Where its runs are, each in a folder of its own.
    pub runs: PathBuf,
    /// The `kd-train` that does them.
    pub program: String,
    /// Seeds of an arm, from 1 on.
    pub seeds: usize,
    /// Runs at a time.
    pub jobs: usize,
}

impl Asked {
    /// What `args` ask for, and where they do not: `seeds`, runs in `runs`, and the data of `folder`, which is `what`.
    pub fn read(args: &Args, what: &str, folder: Option<PathBuf>, runs: &str, seeds: usize) -> Result<Self> {
        let none = || Refusal::new("FOLDER", what, "none", "name it").with_exit(Exit::Lacking);
        Ok(Self {
            folder: args.first("FOLDER").ok().map(PathBuf::from).or(folder).ok_or_else(none)?,
            runs: args.get("runs").unwrap_or(runs).into(),
            program: args.get("kd-train").unwrap_or("kd-train").into(),
            seeds: args.count("seeds", seeds)?,
            jobs: args.count("jobs", std::thread::available_parallelism().map_or(1, usize::from))?,
        })
    }
}

/// The command line of a study with options of its own.
pub fn args(own: &[&str]) -> Result<Args> {
    Args::read(&[own, OPTIONS].concat())
}

/// Writes the raw results to the file that `--output` names, if it names one.
pub fn keep(args: &Args, results: &Value) -> Result<()> {
    match args.get("output") {
        Some(path) => files::write_atomic(Path::new(path), format!("{results}\n").as_bytes()),
        None => Ok(()),
    }
}

/// How the program of a study ends: a refusal is printed.
pub fn end(study: Result<()>) -> ExitCode {
    match study {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}
