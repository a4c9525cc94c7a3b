//! `cargo xtask demo [--budget FILE]`: the whole chain on the digits, with the programs as a user runs them.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Failure;
use crate::shell::{built, given, run as execute};

const RECIPE: &str = "recipes/digits.toml";
const RUN: &str = "target/demo/run";
const EXPORT: &str = "target/demo/export";
const BUDGET: &str = "budgets/demo.toml";
/// Seconds of latency samples per network.
const SAMPLING_S: &str = "3";

/// Rows of the table: what, and the model that is measured.
const ROWS: &[(&str, &str)] = &[
    ("teacher", "target/demo/run/teacher/model.onnx"),
    ("student alone", "target/demo/run/baseline/model.onnx"),
    ("student distilled", "target/demo/run/student/model.onnx"),
    ("its int8", "target/demo/export/model.int8.onnx"),
];

/// Runs the command; leaves with the exit code of the program that ended it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let budget = match args {
        [] => BUDGET.to_string(),
        [flag, file] if flag == "--budget" => given(file),
        _ => return Err(format!("demo: expected nothing or --budget FILE, found `{}`", args.join(" ")).into()),
    };
    if !Path::new(&budget).is_file() {
        return Err(format!("{budget}: expected a budget, found no such file; name one of budgets/").into());
    }
    let programs = ["-p", "kd-runtime", "-p", "kd-exporter", "-p", "kd-trainer", "--bins"];
    execute(Command::new("cargo").args(["build", "--quiet", "--release", "--locked"]).args(programs))?;
    step("kd-train", &["run", RECIPE, "--force", "--output", RUN])?;
    step("kd-export", &["--int8", "--force", RUN, "-o", EXPORT])?;
    let mut table =
        Vec::from([["", "accuracy", "parameters", "bytes", "p50 ms", "p95 ms", "peak MiB"].map(String::from)]);
    let mut last = (Value::Null, 0);
    for (i, (what, model)) in ROWS.iter().enumerate() {
        // Only the int8 student is judged.
        let limits = if i + 1 == ROWS.len() { Some(&*budget) } else { None };
        last = bench(model, limits)?;
        table.push(row(what, &last.0));
    }
    print(&table);
    let (report, code) = last;
    for line in report["budget"].as_array().into_iter().flatten() {
        let text = |key: &str| line[key].as_str().unwrap_or("?").to_string();
        let figure = |key: &str| line[key].as_f64().map_or("-".to_string(), |x| format!("{}", round(x)));
        if text("verdict") != "pass" {
            println!(
                "{}: limit {}, measured {}: {}",
                text("name"),
                figure("limit"),
                figure("measured"),
                text("verdict")
            );
        }
    }
    println!("verdict: {}", report["verdict"].as_str().unwrap_or("?"));
    if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) }
}

/// One program, its results not shown: the table says them.
fn step(program: &str, args: &[&str]) -> Result<(), Failure> {
    eprintln!("demo: {program} {}", args.join(" "));
    let mut command = Command::new(built(program)?);
    let status = command.args(args).stdout(Stdio::null()).status().map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(exit_code(status))) }
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A report of kd-bench and its exit code; a measurement that ended without a report ends the demo.
fn bench(model: &str, budget: Option<&str>) -> Result<(Value, u8), Failure> {
    let mut command = Command::new(built("kd-bench")?);
    command.args([model, "--data", "digits", "--format", "json", "--max-time", SAMPLING_S]);
    if let Some(budget) = budget {
        command.args(["--budget", budget]);
    }
    eprintln!("demo: {}", crate::shell::shown(&command));
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("kd-bench: {e}"))?;
    match serde_json::from_slice(&output.stdout) {
        Ok(report) => Ok((report, exit_code(output.status))),
        Err(_) => Err(Failure::Exit(exit_code(output.status))),
    }
}

fn row(what: &str, report: &Value) -> [String; 7] {
    let count = |value: &Value| value.as_u64().map_or("-".into(), |n| n.to_string());
    let figure = |value: &Value| value.as_f64().map_or("-".into(), |x| format!("{x:.4}"));
    let accuracy = report["accuracy"]["top1"].as_f64().map_or("-".into(), |x| format!("{:.2} %", 100.0 * x));
    let latency = &report["latency_ms"];
    // Above an empty process, as a budget means it.
    let memory = &report["memory"];
    let peak = memory["peak_mib"].as_f64().zip(memory["empty_mib"].as_f64());
    let peak = peak.map_or("-".into(), |(peak, empty)| format!("{:.2}", peak - empty));
    let (parameters, bytes) = (count(&report["model"]["parameters"]), count(&report["model"]["size_bytes"]));
    [what.to_string(), accuracy, parameters, bytes, figure(&latency["p50"]), figure(&latency["p95"]), peak]
}

/// Four significant digits.
fn round(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

fn print(rows: &[[String; 7]]) {
    let widths: Vec<usize> = (0..7).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = (1..7).map(|i| format!("{:>width$}", row[i], width = widths[i])).collect();
        println!("{:width$}  {}", row[0], cells.join("  "), width = widths[0]);
    }
}
