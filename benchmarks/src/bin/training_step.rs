//! `training_step PYTHON [CASE…] [--threads N] [--rounds N] [--output FILE]`: whole training steps, ours and PyTorch's in
//! turns. Prints a line per case; raw samples go to FILE as JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use kd_benchmarks::training::{CASES, Case, Ours, Peer, median};
use kd_runtime::{Refusal, Result, files};
use serde_json::{Value, json};

/// Steps of one side before it is the other's turn.
const TURN: usize = 5;

struct Asked {
    python: PathBuf,
    cases: Vec<&'static Case>,
    threads: Vec<usize>,
    rounds: usize,
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match read_args().and_then(|asked| run(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn read_args() -> Result<Asked> {
    let usage = |found: String| {
        let expected = "PYTHON [CASE…] [--threads N] [--rounds N] [--output FILE]";
        Refusal::new("training_step", expected, found, "see the source")
    };
    let mut args = std::env::args().skip(1);
    let python = args.next().ok_or_else(|| usage("nothing".into()))?.into();
    let mut asked = Asked { python, cases: Vec::new(), threads: vec![1, 2], rounds: 6, output: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| usage(format!("{arg} without a value")));
        match arg.as_str() {
            "--threads" => asked.threads = vec![value()?.parse().map_err(|e| usage(format!("--threads: {e}")))?],
            "--rounds" => asked.rounds = value()?.parse().map_err(|e| usage(format!("--rounds: {e}")))?,
            "--output" => asked.output = Some(value()?.into()),
            name => {
                let case = CASES.iter().find(|case| case.name == name);
                asked.cases.push(case.ok_or_else(|| usage(format!("`{name}`")))?);
            }
        }
    }
    if asked.cases.is_empty() {
        asked.cases = CASES.iter().collect();
    }
    Ok(asked)
}

fn run(asked: &Asked) -> Result<()> {
    let mut results = Vec::new();
    println!("{:12} {:>7} {:>10} {:>10} {:>7}", "case", "threads", "ours ms", "torch ms", "ratio");
    for &threads in &asked.threads {
        for case in &asked.cases {
            results.push(compare(asked, case, threads)?);
        }
    }
    if let Some(path) = &asked.output {
        let record = json!({ "schema": "kd.training_step/1", "cases": results });
        let text = serde_json::to_string(&record).unwrap_or_default();
        files::write_atomic(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

fn compare(asked: &Asked, case: &Case, threads: usize) -> Result<Value> {
    let mut ours = Ours::new(case, threads)?;
    for _ in 0..3 {
        ours.step_ms()?;
    }
    let mut peers = Vec::new();
    for form in ["contiguous", "channels_last"] {
        peers.push((form, Peer::start(&asked.python, case.name, threads, form)?, Vec::new()));
    }
    let mut samples = Vec::new();
    for _ in 0..asked.rounds {
        for _ in 0..TURN {
            samples.push(ours.step_ms()?);
        }
        for (_, peer, times) in &mut peers {
            times.extend(peer.steps_ms(TURN)?);
        }
    }
    peers.sort_by(|a, b| median(&a.2).total_cmp(&median(&b.2)));
    let (form, peer, torch) = &peers[0];
    let (a, b) = (median(&samples), median(torch));
    println!("{:12} {threads:>7} {a:>10.2} {b:>10.2} {:>7.2}  torch {} {form}", case.name, a / b, peer.version);
    Ok(json!({
        "case": case.name, "threads": threads, "ratio": a / b, "ours_ms": samples, "torch_ms": torch,
        "torch_version": peer.version, "torch_form": form,
    }))
}
