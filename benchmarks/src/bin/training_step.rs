//! `training_step [CASE…] [--device cpu|cuda:N] [--precision f32|tf32] [--python FILE] [--peer FILE] [--threads N] [--rounds N]
//! [--max-ratio R] [--output FILE]`: whole training steps, ours and PyTorch's in turns, on the same device. Prints a line per case;
//! raw samples go to FILE as JSON, after each case. Exits with 1 if a ratio is above R, or a case failed.

use std::path::PathBuf;
use std::process::ExitCode;

use kd_benchmarks::training::{CASES, Case, Device, Ours, Peer, quantile};
use kd_runtime::{Refusal, Result, files};
use kd_trainer::gpu::{Gpu, Precision};
use kd_trainer::recipe::keys::PRECISIONS;
use kd_trainer::recipe::{self, parse};
use serde_json::{Value, json};

/// Steps before any is timed.
const WARM_UP: usize = 3;
/// Times that each side has its turn.
const ROUNDS: usize = 8;
/// Time of a side's turn in ms, about.
const TURN_MS: f64 = 400.0;

struct Asked {
    python: PathBuf,
    /// PyTorch's side.
    peer: PathBuf,
    /// As PyTorch calls it too.
    device: String,
    /// Of products on a GPU.
    precision: String,
    cases: Vec<&'static Case>,
    threads: Vec<usize>,
    rounds: usize,
    max_ratio: Option<f64>,
    output: Option<PathBuf>,
}

/// A line of the table.
struct Line {
    /// None where the case failed.
    ratio: Option<f64>,
    record: Value,
}

fn main() -> ExitCode {
    match read_args().and_then(|asked| run(&asked)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

fn read_args() -> Result<Asked> {
    let usage = |found: String| {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        let options = "--device cpu|cuda:N, --precision f32|tf32, --python FILE, --peer FILE, --threads N, --rounds N, --max-ratio R, --output FILE";
        Refusal::new("training_step", format!("{options} or cases of {}", names.join(", ")), found, "correct it")
    };
    let mut asked = Asked {
        python: "python3".into(),
        peer: concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_training.py").into(),
        device: "cpu".into(),
        precision: "f32".into(),
        cases: Vec::new(),
        threads: vec![1, 2],
        rounds: ROUNDS,
        max_ratio: None,
        output: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| usage(format!("{arg} without a value")));
        match arg.as_str() {
            "--python" => asked.python = value()?.into(),
            "--peer" => asked.peer = value()?.into(),
            "--device" => asked.device = value()?,
            "--precision" => asked.precision = value()?,
            "--threads" => asked.threads = vec![value()?.parse().map_err(|e| usage(format!("--threads: {e}")))?],
            "--rounds" => asked.rounds = value()?.parse().map_err(|e| usage(format!("--rounds: {e}")))?,
            "--max-ratio" => asked.max_ratio = Some(value()?.parse().map_err(|e| usage(format!("--max-ratio: {e}")))?),
            "--output" => asked.output = Some(value()?.into()),
            name => {
                let case = CASES.iter().find(|case| case.name == name);
                asked.cases.push(case.ok_or_else(|| usage(format!("`{name}`")))?);
            }
        }
    }
    let is_gpu = asked.device != "cpu";
    if asked.cases.is_empty() {
        asked.cases = CASES.iter().filter(|case| case.on.includes(is_gpu)).collect();
    }
    if is_gpu {
        // Of the host, which does little.
        asked.threads.truncate(1);
    }
    if !PRECISIONS.contains(&&*asked.precision) {
        return Err(usage(format!("--precision {}", asked.precision)));
    }
    if asked.precision != "f32" && !is_gpu {
        return Err(usage(format!("--precision {} without a GPU", asked.precision)));
    }
    if asked.rounds == 0 || asked.threads.contains(&0) {
        return Err(usage("a 0".into()));
    }
    Ok(asked)
}

/// Whether no case failed, and no ratio is above the limit.
fn run(asked: &Asked) -> Result<bool> {
    println!(
        "{:12} {:>7} {:>6}  {:>9} {:>9} {:>9}  {:>9} {:>9} {:>9}  of torch",
        "ms a step", "threads", "ratio", "ours", "p10", "p90", "torch", "p10", "p90"
    );
    let gpu = match parse::device(&asked.device) {
        Some(recipe::Device::Cpu) => None,
        Some(recipe::Device::Cuda(n)) => Some(Gpu::open(n, Precision::of(&asked.precision))?),
        None => return Err(Refusal::new("--device", "cpu or cuda:N", format!("`{}`", asked.device), "correct it")),
    };
    let mut lines = Vec::new();
    for &threads in &asked.threads {
        for case in &asked.cases {
            let line = compare(asked, case, &Device { threads, gpu: gpu.clone() });
            lines.push(line.unwrap_or_else(|refusal| {
                println!("{:12} {threads:>7} {:>6}  {refusal}", case.name, "failed");
                let record = json!({ "case": case.name, "threads": threads, "error": refusal.to_string() });
                Line { ratio: None, record }
            }));
            write(asked, gpu.as_ref(), &lines)?;
        }
    }
    if let Some(mean) = mean(&lines) {
        println!("{:12} {:>7} {mean:>6.3}", "geomean", "");
    }
    if let Some(path) = &asked.output {
        println!("raw samples: {}", path.display());
    }
    let holds = |ratio: f64| asked.max_ratio.is_none_or(|most| ratio <= most);
    Ok(lines.iter().all(|line| line.ratio.is_some_and(holds)))
}

/// The geometric mean of the ratios; `None` without any.
fn mean(lines: &[Line]) -> Option<f64> {
    let ratios: Vec<f64> = lines.iter().filter_map(|line| line.ratio).collect();
    (!ratios.is_empty()).then(|| (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

/// What is known, into the file.
fn write(asked: &Asked, gpu: Option<&Gpu>, lines: &[Line]) -> Result<()> {
    let Some(path) = &asked.output else { return Ok(()) };
    let cases: Vec<&Value> = lines.iter().map(|line| &line.record).collect();
    let record = json!({
        "schema": "kd.training_step/1", "cpu": cpu(), "gpu": gpu.map(Gpu::name), "geomean": mean(lines),
        "convolutions": gpu.map(Gpu::convolutions), "cases": cases,
    });
    files::write_atomic(path, format!("{record}\n").as_bytes())
}

fn compare(asked: &Asked, case: &Case, device: &Device) -> Result<Line> {
    let threads = device.threads;
    let mut ours = Ours::new(case, device)?;
    let mut peer = Peer::start(&asked.python, &asked.peer, case.name, threads, [&asked.device, &asked.precision])?;
    for (form, why) in &peer.failed {
        println!("{:12} {threads:>7} {:>6}  {form} of torch: {why}", case.name, "failed");
    }
    let forms = peer.forms.clone();
    let mut longest = ours.steps_ms(WARM_UP)?.last().copied().unwrap_or(0.0);
    longest = ours.steps_ms(1)?.last().map_or(longest, |&last| longest.min(last));
    for form in &forms {
        peer.steps_ms(form, WARM_UP)?;
        longest = peer.steps_ms(form, 1)?.last().map_or(longest, |&last| longest.max(last));
    }
    let turn = ((TURN_MS / longest) as usize).clamp(1, 1000);
    let (mut own, mut others) = (Vec::new(), vec![Vec::new(); forms.len()]);
    for _ in 0..asked.rounds {
        own.extend(ours.steps_ms(turn)?);
        for (form, times) in forms.iter().zip(&mut others) {
            times.extend(peer.steps_ms(form, turn)?);
        }
    }
    let best = forms.iter().zip(&others).min_by(|a, b| quantile(a.1, 0.5).total_cmp(&quantile(b.1, 0.5)));
    let Some((form, torch)) = best else {
        return Err(Refusal::new("peer", "a form of the case that works", "none", "read what failed"));
    };
    let ratio = quantile(&own, 0.5) / quantile(torch, 0.5);
    let three = |times: &[f64]| [0.5, 0.1, 0.9].map(|share| format!("{:>9.3}", quantile(times, share))).join(" ");
    let version = &peer.version;
    println!("{:12} {threads:>7} {ratio:>6.3}  {}  {}  {version} {form}", case.name, three(&own), three(torch));
    let record = json!({
        "case": case.name, "threads": threads, "ratio": ratio, "ours_ms": own, "torch_ms": torch,
        "torch_version": version, "torch_form": form, "torch_failed": peer.failed,
    });
    Ok(Line { ratio: Some(ratio), record })
}

/// The CPU's name, as Linux tells it.
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    line.map_or("unknown", |(_, name)| name).to_string()
}
