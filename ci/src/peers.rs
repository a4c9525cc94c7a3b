//! `cargo xtask peers`, `compare` and `study`: other software beside ours, and methods beside each other. None is part of `ci`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::shell::{given, run as execute, target};

/// The interpreter of the environment that [`run`] makes.
const PYTHON: &str = "target/peers/bin/python";
/// Marks an environment whose packages are all there; its text is their list.
const STAMP: &str = "target/peers/kd-packages.txt";
const PACKAGES: &[&str] = &["numpy==2.4.6", "torch==2.15.0"];

/// Where raw samples are kept.
const RESULTS: &str = "benchmarks/results";
/// The recipe whose comparisons are kept.
const RECIPE: &str = "recipes/resnet8-cifar10.toml";

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
    let args = if *name == "training" { args[1..].to_vec() } else { from_here(&args[1..], &given) };
    let mut command = Command::new("cargo");
    if *name != "training" {
        execute(Command::new("cargo").args(["build", "--release", "--quiet", "--locked", "-p", "kd-trainer"]))?;
        command.env("PATH", path_with_ours()?);
    }
    command.args(["run", "--release", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", program, "--"]);
    let folder = if is_kept(name, &args) { RESULTS } else { "target/compare" };
    command.arg("--python").arg(python).args(["--output", &format!("{folder}/{name}.json")]).args(&args);
    fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
}

/// Whether a comparison is what is kept: every case, or the one recipe; a part, other settings and other recipes are not.
fn is_kept(name: &str, args: &[String]) -> bool {
    match args {
        [] => name == "training",
        [recipe] => {
            name != "training" && fs::canonicalize(recipe).is_ok_and(|it| fs::canonicalize(RECIPE).ok() == Some(it))
        }
        _ => false,
    }
}

/// A command line whose paths are named from the workspace, as `given` says: words that are no `KEY=VALUE`, and options' values.
fn from_here(args: &[String], given: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut option = None;
    let named = args.iter().map(|arg| {
        let is_path = match option.take() {
            // Without a folder it is looked for as the shell would.
            Some("--kd-train") => arg.contains('/'),
            Some("--runs" | "--output" | "--report" | "--part") => true,
            Some(_) => false,
            None if arg.starts_with("--") => {
                option = Some(arg.as_str());
                false
            }
            None => !arg.contains('='),
        };
        if is_path { given(arg) } else { arg.clone() }
    });
    named.collect()
}

/// What is studied, and what it takes. The program of `benchmarks/` is `study_NAME`.
const STUDIES: &[(&str, &str)] = &[
    ("ucr", "[FOLDER] [--sets A,B] [--arms A,B] [--seeds N] [--steps N] [--jobs N] [--runs DIR]"),
    (
        "hinton",
        "[FOLDER] [--scale full|small] [--arms A,B] [--seeds N] [--teachers N] [--teacher-epochs N] [--epochs N] [--jobs N] \
         [--runs DIR]",
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
    // Of an option that is given twice the last holds.
    command.args(kept(name, &args[1..])).args(from_here(&args[1..], &given)).env("PATH", path_with_ours()?);
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
}

/// Where a study is to write. The program knows its defaults, so it says what is a part, and of other settings or data. Who
/// names a place has the results there, whole or not, and nowhere else.
fn kept(name: &str, args: &[String]) -> Vec<String> {
    let is_named = args.iter().any(|arg| ["--output", "--report"].contains(&arg.as_str()));
    if is_named || args.windows(2).any(|pair| pair == ["--scale", "small"]) {
        return Vec::new();
    }
    let (results, report) = (format!("{RESULTS}/study-{name}.json"), format!("docs/study-{name}.md"));
    ["--output", &results, "--report", &report, "--part", "target/study"].map(String::from).to_vec()
}

/// The search path, our release programs first.
fn path_with_ours() -> Result<std::ffi::OsString, String> {
    let ours = std::path::absolute(target().join("release")).map_err(|e| format!("target: {e}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn only_the_whole_comparison_is_kept() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the workspace");
        let cases = [
            ("training", "", true),
            ("training", "mlp", false),
            ("training", "--threads 1", false),
            ("curve", RECIPE, true),
            ("recipe", "./recipes/../recipes/resnet8-cifar10.toml", true),
            ("recipe", "recipes/mnist-mlp.toml", false),
            ("curve", "recipes/resnet8-cifar10.toml train.batch=8", false),
            ("curve", "recipes/resnet8-cifar10.toml --steps 10", false),
            ("curve", "recipes/no-such-recipe.toml", false),
        ];
        let failed: Vec<_> = cases.iter().filter(|(name, line, kept)| is_kept(name, &words(line)) != *kept).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn a_study_says_itself_whether_it_is_whole() {
        let line = kept("hinton", &words("--arms distilled"));
        assert!(line.windows(2).any(|pair| pair == ["--part", "target/study"]), "{line:?}");
        for line in ["--scale small", "--arms distilled --output o.json", "--report r.md"] {
            assert!(kept("hinton", &words(line)).is_empty(), "{line}");
        }
    }

    #[test]
    fn paths_of_a_command_line_are_named_from_the_workspace() {
        let line =
            words("mnist --runs a --kd-train kd-train --arms b lr=0.1 --kd-train ./t --output o/p.json --report r.md");
        let expected = "X:mnist --runs X:a --kd-train kd-train --arms b lr=0.1 --kd-train X:./t --output X:o/p.json --report X:r.md";
        assert_eq!(from_here(&line, &|path| format!("X:{path}")), words(expected));
    }
}
