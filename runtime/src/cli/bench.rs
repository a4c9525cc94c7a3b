//! The measurement: what is asked for is checked first, then each figure comes from processes of its own.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use super::args::{Bench, Format};
use super::judge::Measured;
use super::target::Target;
use super::usage;
use crate::backend::table;
use crate::budget::{Budget, LOOKS, Line, Verdict};
use crate::contract;
use crate::data::Source;
use crate::error::{Exit, Refusal, Result, Shown};
use crate::files;
use crate::measure::accuracy::Score;
use crate::measure::child::{Task, ask};
use crate::measure::device::Device;
use crate::measure::latency::{Latency, Plan};
use crate::measure::memory::Peak;
use crate::measure::{Job, stats};
use crate::report::{self, Report, json, text};

/// Processes per look at the latency: memory layout differs from process to process.
const PROCESSES: usize = 3;

/// Samples per process at the first look; three times as many bound p99.
const SAMPLES: usize = 334;

/// Processes per memory figure: the median of 5 has a bound.
const REPEATS: usize = 5;

pub(super) fn run(args: &Bench) -> Result<ExitCode> {
    let named = args.model.as_deref().unwrap_or(Path::new(""));
    let budget = args.budget.as_deref().map(Budget::read).transpose()?;
    let target = Target::open(named, args.precision, args.contract.as_deref())?;
    check_output(args.output.as_deref())?;
    let job = prepare(args, budget.as_ref(), &target)?;
    let report = measure(args, &job, budget.as_ref(), &target)?;
    let text = match args.format {
        Format::Text => text::render(&report),
        Format::Json => json::pretty(&report),
    };
    match &args.output {
        Some(path) => files::write_atomic(path, text.as_bytes())?,
        None => usage::print(&text)?,
    }
    Ok(usage::status(report.verdict))
}

/// Checks all that can be known before measuring.
fn prepare(args: &Bench, budget: Option<&Budget>, target: &Target) -> Result<Job> {
    table::row(&args.backend)?;
    let threads = threads(args, budget)?;
    if args.backend == "native" {
        target.graph.as_ref().map_err(Clone::clone)?;
        if threads != 1 {
            let action = "leave --threads out, or use --backend ort";
            return Err(Refusal::new("--threads", "1: native computes on one thread", threads, action));
        }
    }
    let wants_accuracy = budget.is_some_and(|budget| budget.limit("accuracy_top1").is_some());
    if wants_accuracy && args.data.is_none() {
        let at = args.budget.as_deref().unwrap_or(Path::new("budget")).display();
        let action = "pass --data FORMAT:PATH, or take accuracy_top1 out of the budget";
        return Err(Refusal::new(at, "data for accuracy_top1", "no --data", action));
    }
    if let Some(data) = &args.data {
        let data = Source::parse(data)?.read_as(target.contract.as_ref()).open()?;
        match (&target.contract, &target.graph) {
            (Some(contract), graph) => {
                let at = |e: Refusal| e.within(target.path.display());
                graph.as_ref().map_or(Ok(()), |graph| contract.check_model(graph)).map_err(at)?;
                contract
                    .check_data(data.description())
                    .map_err(|e| e.within(args.data.as_deref().unwrap_or_default()))?;
            }
            (None, Ok(graph)) => {
                return Err(contract::missing(&target.path, graph, "accuracy", &mut std::io::stdout().lock()));
            }
            (None, Err(refusal)) => return Err(refusal.clone()),
        }
    }
    Ok(Job {
        model: target.path.clone(),
        backend: args.backend.clone(),
        threads,
        ort_lib: args.ort_lib.clone(),
        contract: target.contract.clone(),
        data: args.data.clone(),
    })
}

fn threads(args: &Bench, budget: Option<&Budget>) -> Result<usize> {
    let stated = budget.and_then(|budget| budget.threads);
    let threads = match (args.threads.map(usize::from), stated) {
        (Some(asked), Some(stated)) if asked != stated => {
            let expected = format!("{stated}, as the budget states its limits for");
            return Err(Refusal::new("--threads", expected, asked, "leave --threads out"));
        }
        (asked, stated) => asked.or(stated).unwrap_or(1),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if threads > cores {
        let expected = format!("at most {cores}, the cores of this machine");
        return Err(Refusal::new("--threads", expected, threads, "use fewer threads").with_exit(Exit::Lacking));
    }
    Ok(threads)
}

/// A place that cannot be written is better known before measuring.
fn check_output(output: Option<&Path>) -> Result<()> {
    let Some(output) = output else { return Ok(()) };
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if output.is_dir() || !parent.is_dir() {
        let found = if output.is_dir() { "a folder" } else { "no folder to write it into" };
        return Err(Refusal::new(output.display(), "a file for the report", found, "choose another --output"));
    }
    Ok(())
}

fn measure(args: &Bench, job: &Job, budget: Option<&Budget>, target: &Target) -> Result<Report> {
    let mut device = Device::read();
    progress("memory");
    let (peaks, empty) = memory(job)?;
    let net_mib: Vec<f64> = peaks.iter().map(|peak| (mib(peak.peak_kib) - empty).max(0.0)).collect();
    let score: Option<Score> = match job.data {
        Some(_) => {
            progress("accuracy");
            Some(ask(&Task::Accuracy(job.clone()))?)
        }
        None => None,
    };
    let mut latency: Vec<Latency> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    let mut notes = target.notes.clone();
    // Each look doubles the samples; only lines on latency can gain from more.
    for look in 0..LOOKS {
        let samples = if look < 2 { SAMPLES } else { 2 * SAMPLES };
        let max_s = f64::from(args.max_time) / (PROCESSES * LOOKS) as f64;
        for _ in 0..PROCESSES {
            progress(&format!("latency, process {}", latency.len() + 1));
            let plan = Plan { samples, max_s };
            latency.push(ask(&Task::Latency(job.clone(), plan))?);
        }
        device.read_after();
        let size_bytes = target.bytes.len() as u64;
        let measured = Measured { size_bytes, latency: &latency, net_mib: &net_mib, score, device: &device };
        lines = budget.map(|budget| measured.judge(budget)).unwrap_or_default();
        if look + 1 == LOOKS || !lines.iter().any(|line| may_gain(line, &device)) {
            notes.extend(measured.notes());
            break;
        }
    }
    Ok(compose(job, budget, target, Figures { device, peaks, empty, score, latency, lines, notes }))
}

/// Whether more samples may decide a line.
fn may_gain(line: &Line, device: &Device) -> bool {
    line.verdict == Verdict::Undecided && line.name.starts_with("latency_") && device.invalid().is_none()
}

struct Figures {
    device: Device,
    peaks: Vec<Peak>,
    empty: f64,
    score: Option<Score>,
    latency: Vec<Latency>,
    lines: Vec<Line>,
    notes: Vec<String>,
}

fn memory(job: &Job) -> Result<(Vec<Peak>, f64)> {
    let mut peaks = Vec::with_capacity(REPEATS);
    let mut empties = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        empties.push(mib(ask::<u64>(&Task::Empty)?));
        peaks.push(ask::<Peak>(&Task::Memory(job.clone()))?);
    }
    Ok((peaks, stats::median(&empties).unwrap_or(0.0)))
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn compose(job: &Job, budget: Option<&Budget>, target: &Target, figures: Figures) -> Report {
    let Figures { device, peaks, empty, score, latency, lines, notes } = figures;
    let median = |of: fn(&Latency) -> f64| stats::median(&latency.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0);
    let peak: Vec<f64> = peaks.iter().map(|peak| mib(peak.peak_kib)).collect();
    let graph = target.graph.as_ref().ok();
    let stats_of = graph.and_then(|graph| graph.stats().ok());
    let quantizes = |graph: &crate::graph::Graph| graph.nodes.iter().any(|node| node.op.def().is_quantization());
    let verdict = budget.map(|_| Verdict::all(&lines));
    Report {
        schema: report::SCHEMA,
        model: report::Model {
            path: target.path.display().to_string(),
            sha256: target.sha256.clone(),
            size_bytes: target.bytes.len() as u64,
            parameters: stats_of.map(|stats| stats.parameters),
            macs: stats_of.map(|stats| stats.macs),
            precision: graph.map(|graph| if quantizes(graph) { "int8" } else { "f32" }),
        },
        backend: job.backend.clone(),
        threads: job.threads,
        device,
        load_ms: median(|latency| latency.load_ms),
        first_ms: median(|latency| latency.first_ms),
        memory: report::Memory {
            peak_mib: stats::median(&peak).unwrap_or(0.0),
            empty_mib: empty,
            arena_bytes: peaks.first().and_then(|peak| peak.arena_bytes),
            weights_bytes: peaks.first().and_then(|peak| peak.weights_bytes),
            allocations_per_inference: latency.iter().filter_map(|l| l.allocations).reduce(f64::max),
        },
        latency_ms: report::Latency::of(latency.iter().flat_map(|l| l.samples_ms.iter().copied()).collect()),
        accuracy: score.map(report::Accuracy::of),
        budget_name: budget.and_then(|budget| budget.name.clone()),
        budget: lines,
        verdict,
        notes,
    }
}

/// Says on a terminal what takes time.
fn progress(what: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err, "measuring {}", Shown(what));
    }
}
