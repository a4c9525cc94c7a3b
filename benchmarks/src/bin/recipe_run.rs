//! `recipe_run RECIPE [KEY=VALUE…] [--python FILE] [--kd-train FILE] [--seeds N] [--threads N] [--margin POINTS]
//! [--output FILE]`: a recipe trained whole by `kd-train` and by PyTorch, seed by seed in turns. Prints accuracies and
//! times. Exits with 1 unless the 90 % confidence interval of the mean difference of accuracies lies within ± POINTS.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use kd_benchmarks::args::Args;
use kd_benchmarks::scratch::Scratch;
use kd_benchmarks::training::{answer, checked, quantile};
use kd_runtime::measure::stats;
use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::{Value, json};

/// One side's run of one seed.
struct Run {
    /// Right answers in percent of the test samples.
    accuracy: f64,
    /// Of training, reading of the data included with ours.
    seconds: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn run() -> Result<bool> {
    let args = Args::read(&["python", "kd-train", "seeds", "threads", "margin", "output"])?;
    let recipe = PathBuf::from(args.first("RECIPE")?);
    let seeds = args.count("seeds", 5)? as u64;
    let threads = args.count("threads", 2)?;
    let margin: f64 = args.number("margin", 1.0)?;
    let scratch = Scratch::new("recipe-run")?;
    let resolved = scratch.path().join("recipe.json");
    checked(&args, &recipe, &resolved)?;
    println!("{:>5} {:>9} {:>9} {:>11} {:>11} {:>6}", "seed", "ours %", "torch %", "ours s", "torch s", "ratio");
    let (mut ours, mut torch) = (Vec::new(), Vec::new());
    for seed in 1..=seeds {
        let (a, b) = (own(&args, &recipe, seed, threads, scratch.path())?, peer(&args, seed, threads, &resolved)?);
        let ratio = a.seconds / b.seconds;
        println!(
            "{seed:>5} {:>9.2} {:>9.2} {:>11.1} {:>11.1} {ratio:>6.2}",
            a.accuracy, b.accuracy, a.seconds, b.seconds
        );
        ours.push(a);
        torch.push(b);
    }
    drop(scratch);
    let of = |runs: &[Run], what: fn(&Run) -> f64| runs.iter().map(what).collect::<Vec<f64>>();
    let (accuracy, accuracy_torch) = (of(&ours, |r| r.accuracy), of(&torch, |r| r.accuracy));
    let (seconds, seconds_torch) = (of(&ours, |r| r.seconds), of(&torch, |r| r.seconds));
    let (mean, std) = stats::mean_std(&accuracy).unwrap_or_default();
    let (mean_torch, std_torch) = stats::mean_std(&accuracy_torch).unwrap_or_default();
    let (median, median_torch) = (quantile(&seconds, 0.5), quantile(&seconds_torch, 0.5));
    println!(
        "{:>5} {mean:>9.2} {mean_torch:>9.2} {median:>11.1} {median_torch:>11.1} {:>6.2}  means, median times",
        "all",
        median / median_torch
    );
    println!("standard deviations: {std:.2} and {std_torch:.2} points");
    let differences: Vec<f64> = accuracy.iter().zip(&accuracy_torch).map(|(a, b)| a - b).collect();
    let interval = stats::mean_bounds(&differences, 0.05);
    match interval {
        Some((low, high)) => {
            println!("ours - torch: 90 % confidence interval {low:+.2} to {high:+.2} points, margin {margin}")
        }
        None => println!("ours - torch: {:+.2} points; one seed has no interval", differences.first().unwrap_or(&0.0)),
    }
    if let Some(path) = args.get("output") {
        let rows = |runs: &[Run]| -> Vec<Value> {
            runs.iter().map(|run| json!({ "accuracy_percent": run.accuracy, "seconds": run.seconds })).collect()
        };
        let text = files::read_text(&recipe)?;
        let record = json!({
            "schema": "kd.recipe_run/1", "recipe": text, "overrides": args.rest(), "threads": threads,
            "ours": rows(&ours), "torch": rows(&torch), "interval_90": interval,
        });
        files::write_atomic(Path::new(path), format!("{record}\n").as_bytes())?;
        println!("raw samples: {path}");
    }
    let within = |(low, high): (f64, f64)| low >= -margin && high <= margin;
    Ok(interval.map_or_else(|| differences.iter().all(|d| d.abs() <= margin), within))
}

fn own(args: &Args, recipe: &Path, seed: u64, threads: usize, scratch: &Path) -> Result<Run> {
    let output = scratch.join(format!("run-{seed}"));
    let mut command = Command::new(args.get("kd-train").unwrap_or("kd-train"));
    command.arg("run").arg(recipe).args(args.rest());
    command.args([format!("run.seed={seed}"), format!("run.threads={threads}"), "compare.seeds=[]".into()]);
    command.arg("--output").arg(&output).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().map_err(|e| lacking("kd-train", &e))?;
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(lacking("kd-train", &status));
    }
    let path = output.join("results.json");
    let results: Value = serde_json::from_str(&files::read_text(&path)?).map_err(|e| lacking("results.json", &e))?;
    let share = results["arms"][0]["seeds"][0]["last"]["accuracy"].as_f64();
    let accuracy = 100.0 * share.ok_or_else(|| lacking("results.json", &"no accuracy"))?;
    Ok(Run { accuracy, seconds })
}

fn peer(args: &Args, seed: u64, threads: usize, resolved: &Path) -> Result<Run> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/torch_recipe.py");
    let mut command = Command::new(args.get("python").unwrap_or("python3"));
    command.arg(script).arg("train").arg(resolved).args([threads.to_string(), seed.to_string()]);
    let said = answer(&mut command)?;
    let number = |key: &str| said[key].as_f64().ok_or_else(|| lacking("torch", &format!("no `{key}`")));
    Ok(Run { accuracy: 100.0 * number("right")? / number("n")?, seconds: number("seconds")? })
}

fn lacking(what: &str, found: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(what, "a run to its end", found, "read its messages above").with_exit(Exit::Lacking)
}
