//! `cargo xtask peers`, `compare` and `study`: other software beside ours, and methods beside each other. None is part of `ci`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::shell::run as execute;

/// The interpreter of the environment that [`run`] makes.
const PYTHON: &str = "target/peers/bin/python";
/// Marks an environment whose packages are all there; its text is their list.
const STAMP: &str = "target/peers/kd-packages.txt";
const PACKAGES: &[&str] = &["numpy==2.4.6", "torch==2.15.0"];

/// Where raw samples are kept.
const RESULTS: &str = "benchmarks/results";

/// Makes the Python environment of the peers, once.
pub fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(format!("peers: expected no argument, found `{arg}`").into());
    }
    if fs::read_to_string(STAMP).is_ok_and(|packages| packages == PACKAGES.join("\n")) && Path::new(PYTHON).exists() {
        println!("peers: {} are in target/peers", PACKAGES.join(", "));
        return Ok(());
    }
    println!("peers: installs {} from PyPI into target/peers (about 3 GB: the CUDA build)", PACKAGES.join(", "));
    execute(Command::new("python3").args(["-m", "venv", "--clear", "target/peers"]))?;
    execute(Command::new(PYTHON).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    fs::write(STAMP, PACKAGES.join("\n")).map_err(|e| format!("{STAMP}: {e}"))?;
    Ok(())
}

/// What is compared, by which program of `benchmarks/`, and what it takes.
const COMPARISONS: &[(&str, &str, &str)] = &[
    ("training", "training_step", "[CASE…] [--device D] [--precision P] [--threads N] [--rounds N] [--max-ratio R]"),
    ("curve", "loss_curve", "RECIPE [KEY=VALUE…] [--steps N] [--first N] [--max-difference D]"),
    ("recipe", "recipe_run", "RECIPE [KEY=VALUE…] [--seeds N] [--threads N] [--margin POINTS]"),
];

/// Runs a comparison of `benchmarks/` with optimization.
pub fn compare(args: &[String]) -> Result<(), Failure> {
    let known = args.first().and_then(|name| COMPARISONS.iter().find(|row| row.0 == name));
    let Some((name, program, _)) = known else {
        let found = args.first().map_or("nothing".to_string(), |arg| format!("`{arg}`"));
        let usage: Vec<String> = COMPARISONS.iter().map(|(name, _, takes)| format!("{name} {takes}")).collect();
        return Err(format!("compare: expected {}, found {found}", usage.join(" | ")).into());
    };
    let python = python()?;
    let mut command = Command::new("cargo");
    if *name != "training" {
        execute(Command::new("cargo").args(["build", "--release", "--quiet", "--locked", "-p", "kd-trainer"]))?;
        command.env("PATH", path_with_ours()?);
    }
    command.args(["run", "--release", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", program, "--"]);
    // A part, or other settings, is not what is kept.
    let is_whole = args[1..].iter().all(|arg| *name != "training" && !arg.starts_with("--") && !arg.contains('='));
    let folder = if is_whole { RESULTS } else { "target/compare" };
    command.arg("--python").arg(python).args(["--output", &format!("{folder}/{name}.json")]).args(&args[1..]);
    fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
}

/// What is studied, and what it takes. The program of `benchmarks/` is `study_NAME`.
const STUDIES: &[(&str, &str)] = &[
    ("ucr", "[FOLDER] [--sets A,B] [--arms A,B] [--seeds N] [--steps N] [--jobs N]"),
    (
        "hinton",
        "[FOLDER] [--scale full|small] [--arms A,B] [--seeds N] [--teachers N] [--teacher-epochs N] [--epochs N] [--jobs N]",
    ),
];

/// Runs a study of `benchmarks/` with optimization, and renews what `docs/` says of it, unless it only shows that it works.
pub fn study(args: &[String]) -> Result<(), Failure> {
    let Some((name, _)) = args.first().and_then(|name| STUDIES.iter().find(|row| row.0 == name)) else {
        let usage: Vec<String> = STUDIES.iter().map(|(name, takes)| format!("{name} {takes}")).collect();
        return Err(format!("study: expected {}, found `{}`", usage.join(" | "), args.join(" ")).into());
    };
    execute(Command::new("cargo").args(["build", "--release", "--quiet", "--locked", "-p", "kd-trainer"]))?;
    let (mut command, program) = (Command::new("cargo"), format!("study_{name}"));
    command.args(["run", "--release", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", &program, "--"]);
    command.args(&args[1..]).env("PATH", path_with_ours()?);
    // More arms, or jobs, than by default are kept, too; a part, or other settings, is not.
    let is_whole =
        args.iter().all(|arg| !arg.starts_with("--") || arg == "--jobs" || (arg == "--arms" && name == &"hinton"));
    let (folder, report) = if is_whole { (RESULTS, "docs") } else { ("target/study", "target/study") };
    if !args.windows(2).any(|pair| pair == ["--scale", "small"]) {
        command.args(["--output", &format!("{folder}/study-{name}.json")]);
        command.args(["--report", &format!("{report}/study-{name}.md")]);
    }
    fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
}

/// The search path, our release programs first.
fn path_with_ours() -> Result<std::ffi::OsString, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let ours = std::path::absolute(target.join("release")).map_err(|e| format!("target: {e}"))?;
    let before = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&before))).map_err(|e| format!("PATH: {e}"))
}

/// `KD_PEERS_PYTHON`, or the environment that `cargo xtask peers` makes.
fn python() -> Result<PathBuf, String> {
    let named = std::env::var_os("KD_PEERS_PYTHON").filter(|value| !value.is_empty()).map(PathBuf::from);
    let python = named.unwrap_or_else(|| PYTHON.into());
    if python.exists() {
        return Ok(python);
    }
    let at = python.display();
    Err(format!("{at}: expected a Python with torch, found none; run `cargo xtask peers` or set KD_PEERS_PYTHON"))
}
