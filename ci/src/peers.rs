//! `cargo xtask peers` and `cargo xtask compare`: other software beside ours. Neither is part of `ci`.

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

/// Runs a comparison of `benchmarks/` with optimization.
pub fn compare(args: &[String]) -> Result<(), Failure> {
    let Some(("training", rest)) = args.split_first().map(|(name, rest)| (name.as_str(), rest)) else {
        let found = args.first().map_or("nothing".to_string(), |arg| format!("`{arg}`"));
        let usage = "training [CASE…] [--threads N] [--rounds N] [--max-ratio R]";
        return Err(format!("compare: expected {usage}, found {found}").into());
    };
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", "training_step", "--"]);
    command.arg("--python").arg(python()?).args(["--output", "benchmarks/results/training.json"]).args(rest);
    fs::create_dir_all("benchmarks/results").map_err(|e| format!("benchmarks/results: {e}"))?;
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
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
