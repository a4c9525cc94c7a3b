//! What every study is asked for on its command line, and how it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::Value;

use crate::args::Args;
use crate::{material, shared};

/// Options of every study.
const OPTIONS: &[&str] = &["arms", "seeds", "jobs", "kd-train", "runs", "output", "report", "part"];

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
    /// Whether data and seeds are those of a study of which nothing is said.
    pub by_default: bool,
}

/// What a study is of where its command line does not say it.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// What its data are, in words.
    pub what: &'static str,
    /// The environment variable that names their folder.
    pub variable: &'static str,
    /// Their folder below `../shared`.
    pub place: &'static str,
    /// Where its runs are.
    pub runs: &'static str,
    /// Seeds of an arm.
    pub seeds: usize,
}

impl Asked {
    /// What `args` ask for, and where they do not, `defaults` say.
    pub fn read(args: &Args, defaults: Defaults) -> Result<Self> {
        let Defaults { what, variable, place, runs, seeds: usual } = defaults;
        let none = || Refusal::new("FOLDER", what, "none", "name it").with_exit(Exit::Lacking);
        let named = args.first("FOLDER").ok().map(PathBuf::from);
        // A folder has one name, whichever way it is written: recipes name it, and a run of another recipe is refused.
        let one_name = |folder: PathBuf| folder.canonicalize().unwrap_or(folder);
        let folder = named.or_else(|| material(variable, place)).map(one_name).ok_or_else(none)?;
        let seeds = args.count("seeds", usual)?;
        Ok(Self {
            by_default: seeds == usual && shared(place).map(one_name).as_ref() == Some(&folder),
            folder,
            runs: args.get("runs").unwrap_or(runs).into(),
            program: args.get("kd-train").unwrap_or("kd-train").into(),
            seeds,
            jobs: args.count("jobs", std::thread::available_parallelism().map_or(1, usize::from))?,
        })
    }
}

/// The command line of a study with options of its own.
pub fn args(own: &[&str]) -> Result<Args> {
    Args::read(&[own, OPTIONS].concat())
}

/// Where the option `--output` or `--report` has a file written, if it does: where it says if the study is whole, under the
/// same name in the folder of `--part` if it is a part or of other settings, and that folder is named.
pub fn place(args: &Args, option: &str, is_whole: bool) -> Result<Option<PathBuf>> {
    let Some(named) = args.get(option) else { return Ok(None) };
    let Some(part) = args.get("part").filter(|_| !is_whole) else { return Ok(Some(named.into())) };
    let none = || Refusal::new(format!("--{option}"), "a file", format!("`{named}`"), "name one");
    let name = Path::new(named).file_name().ok_or_else(none)?;
    std::fs::create_dir_all(part).map_err(|e| files::refuse_write(Path::new(part), &e))?;
    Ok(Some(Path::new(part).join(name)))
}

/// Writes the raw results to the file of `--output`, if it names one: before anything is made of them.
pub fn keep(args: &Args, is_whole: bool, results: &Value) -> Result<()> {
    match place(args, "output", is_whole)? {
        Some(path) => files::write_atomic(&path, format!("{results}\n").as_bytes()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const DEFAULTS: Defaults =
        Defaults { what: "a folder", variable: "KD_NO_SUCH_VARIABLE", place: "no-such-data", runs: "runs", seeds: 3 };

    #[test]
    fn a_part_of_a_study_goes_to_a_place_of_its_own() {
        let scratch = Scratch::new("part").unwrap();
        let part = scratch.path().join("part");
        let line = ["--output", "kept/study.json", "--part", &part.to_string_lossy()].map(String::from);
        let args = Args::of(line.into_iter(), OPTIONS).unwrap();
        assert_eq!(place(&args, "output", true).unwrap(), Some("kept/study.json".into()));
        assert_eq!(place(&args, "output", false).unwrap(), Some(part.join("study.json")));
        assert_eq!(place(&args, "report", false).unwrap(), None);
        let alone = Args::of(["--output", "mine.json"].map(String::from).into_iter(), OPTIONS).unwrap();
        assert_eq!(place(&alone, "output", false).unwrap(), Some("mine.json".into()));
    }

    #[test]
    fn another_folder_is_not_the_default_and_has_one_name() {
        let scratch = Scratch::new("asked").unwrap();
        let around = scratch.path().join("../").join(scratch.path().file_name().unwrap());
        let args = Args::of([around.display().to_string()].into_iter(), OPTIONS).unwrap();
        let asked = Asked::read(&args, DEFAULTS).unwrap();
        assert_eq!(asked.folder, scratch.path().canonicalize().unwrap());
        assert!(!asked.by_default);
        let none = Args::of(std::iter::empty(), OPTIONS).unwrap();
        assert_eq!(Asked::read(&none, DEFAULTS).err().map(|refusal| refusal.exit), Some(Exit::Lacking));
    }
}
