//! `cargo xtask ci`: sets this machine up, then every check, cheapest first, and the tests last.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::shell::{capture, run as execute};
use crate::{Failure, licences, setup, tidy};

type Done = Result<(), String>;
type Step = (&'static str, fn() -> Done);

/// One target folder and one profile for all steps, so that nothing is built twice.
static STEPS: &[Step] = &[
    ("formatting", || cargo("fmt --all --check")),
    ("clippy", || cargo("clippy --workspace --all-targets --locked -- -D warnings")),
    ("clippy of ort and candle", || {
        cargo("clippy -p kd-runtime --features ort,candle --all-targets --locked -- -D warnings")
    }),
    ("docs", docs),
    ("licences and sources", licences::check),
    ("tidy", tidy::check),
    ("build: default", || cargo("build -p kd-runtime --locked")),
    ("build: no default features", || cargo("build -p kd-runtime --no-default-features --lib --locked")),
    ("build: ort", || cargo("build -p kd-runtime --features ort --locked")),
    ("build: candle", || cargo("build -p kd-runtime --features candle --locked")),
    ("check: no GPU", || cargo("check -p kd-trainer --no-default-features --lib --locked")),
    ("build: bare metal", || {
        cargo("build -p kd-runtime --no-default-features --lib --locked --target thumbv7em-none-eabihf")
    }),
    ("recipes", recipes),
    ("tests", || cargo("test --workspace --locked")),
    ("tests of ort and candle", || cargo("test -p kd-runtime --features ort,candle --locked")),
    ("tests of cloud", || cargo("test -p kd-trainer --features cloud --test cloud --locked")),
    ("GPU kernels", crate::cuda::compiled),
    ("an export in Python", python),
];

/// Runs the command: `--no-install` only says what is missing; a name of a step runs that step alone.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let begin = Instant::now();
    let names: Vec<&str> = STEPS.iter().map(|step| step.0).collect();
    let only = match args {
        [] => None,
        [flag] if flag == "--no-install" => return Ok(setup::report()?),
        [name] if names.contains(&name.as_str()) => Some(name),
        _ => {
            let found = args.join(" ");
            let expected = names.join(", ");
            return Err(format!("ci: expected nothing, --no-install or one of: {expected}; found `{found}`").into());
        }
    };
    setup::install()?;
    let mut times = vec![("set-up", begin.elapsed())];
    for (name, step) in STEPS.iter().filter(|step| only.is_none_or(|only| only == step.0)) {
        println!("ci: {name}");
        let start = Instant::now();
        step().map_err(|line| format!("ci: {name}: {line}"))?;
        times.push((name, start.elapsed()));
    }
    for (name, time) in times {
        println!("{name:28} {:7.1} s", time.as_secs_f64());
    }
    println!("{:28} {:7.1} s", "ci: all passed", begin.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(words: &str) -> Done {
    execute(Command::new("cargo").args(words.split_whitespace()))
}

fn docs() -> Done {
    let words = "doc --workspace --no-deps --locked --quiet";
    execute(Command::new("cargo").args(words.split_whitespace()).env("RUSTDOCFLAGS", "-D warnings"))
}

fn recipes() -> Done {
    for path in crate::recipes::all()? {
        let mut command = Command::new("cargo");
        command.args([
            "run",
            "--quiet",
            "--locked",
            "-p",
            "kd-trainer",
            "--bin",
            "kd-train",
            "--",
            "check",
            "--no-data",
        ]);
        capture(command.arg(&path))?;
        println!("{}: ok", path.display());
    }
    Ok(())
}

/// Makes a small run, exports it and lets onnx, ONNX Runtime and safetensors judge the files.
fn python() -> Done {
    let folder = Path::new("target/ci-export");
    let run = folder.join("run");
    let export = folder.join("export");
    let program = |package: &str, name: &str| {
        let mut command = Command::new("cargo");
        command.args(["run", "--quiet", "--locked", "-p", package, "--bin", name, "--"]);
        command
    };
    let mut train = program("kd-trainer", "kd-train");
    train.args(["run", "recipes/digits.toml", "teacher.epochs=4", "train.epochs=4", "teacher.must_reach=0.5"]);
    execute(train.args(["compare.baseline=false", "--force", "--output"]).arg(&run))?;
    let mut convert = program("kd-exporter", "kd-export");
    // What so short a training loses by int8 is not the question here.
    execute(convert.args(["--int8", "--force", "--max-drop", "100"]).arg(&run).arg("-o").arg(&export))?;
    execute(Command::new(setup::PYTHON).arg("ci/python/check_export.py").arg(&export))
}
