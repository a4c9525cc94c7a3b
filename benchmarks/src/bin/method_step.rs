//! `method_step [METHOD…] [--threads N] [--rounds N] [--max-ratio R]`: the forward and backward passes of a training step,
//! without the optimizer's, of ResNet-8 beside a ResNet-20 with `kd` and a method, and the same with `kd` alone, in turns.
//! Prints a line per method. Exits with 1 if a ratio is above R.

use std::process::ExitCode;
use std::time::Instant;

use kd_benchmarks::training::quantile;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::{Refusal, Result};
use kd_trainer::data::{Counts, RawBatch};
use kd_trainer::exec::Compute;
use kd_trainer::losses::table::METHODS;
use kd_trainer::recipe::{Choice, parse::parse};
use kd_trainer::rng::{Purpose, Rng};
use kd_trainer::schemes::At;
use kd_trainer::schemes::learner::Learner;
use kd_trainer::teacher::{CacheWish, Network};
use kd_trainer::zoo::{self, Site, table::ARCHS};

const INPUT: [usize; 3] = [3, 32, 32];
const CLASSES: usize = 10;
const BATCH: usize = 64;
/// Steps of a turn.
const TURN: usize = 5;

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

/// Whether no ratio is above the limit.
fn run() -> Result<bool> {
    let usage = |found: String| {
        let expected = "methods, --threads N, --rounds N, --max-ratio R";
        Refusal::new("method_step", expected, found, "correct it")
    };
    let (mut threads, mut rounds, mut max_ratio, mut names) = (2, 12, f64::INFINITY, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if !arg.starts_with("--") {
            names.push(arg);
            continue;
        }
        let value = args.next().ok_or_else(|| usage(format!("{arg} without a value")))?;
        let wrong = || usage(format!("{arg} {value}"));
        match arg.as_str() {
            "--threads" => threads = value.parse().ok().filter(|&n: &usize| n > 0).ok_or_else(wrong)?,
            "--rounds" => rounds = value.parse().ok().filter(|&n: &usize| n > 0).ok_or_else(wrong)?,
            "--max-ratio" => max_ratio = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    if names.is_empty() {
        names.extend(METHODS.iter().map(|method| method.name.to_string()).filter(|name| name != "kd"));
    }
    println!("{:20} {:>6} {:>9} {:>9} {:>9}", "ms a step", "ratio", "with it", "kd alone", "p90 of it");
    let mut within = true;
    for name in &names {
        let (mut with, mut alone) = (learner(Some(name), threads)?, learner(None, threads)?);
        let batch = batch();
        let (mut with_ms, mut alone_ms) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=rounds {
            for (learner, times) in [(&mut with, &mut with_ms), (&mut alone, &mut alone_ms)] {
                for step in 0..TURN {
                    let start = Instant::now();
                    let at = At {
                        init: false,
                        step: round * TURN + step,
                        steps: (rounds + 1) * TURN,
                        steps_per_epoch: TURN,
                    };
                    learner.step(&batch, step as u64, at)?;
                    if round > 0 {
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                }
            }
        }
        let [ours, kd] = [&with_ms, &alone_ms].map(|times| quantile(times, 0.5));
        println!("{name:20} {:>6.3} {ours:>9.3} {kd:>9.3} {:>9.3}", ours / kd, quantile(&with_ms, 0.9));
        within &= ours / kd <= max_ratio;
    }
    Ok(within)
}

/// A ResNet-8 that learns from a ResNet-20 by `kd`, and by a method if one is given.
fn learner(method: Option<&str>, threads: usize) -> Result<Learner> {
    let more =
        method.map_or(String::new(), |name| format!(", {{ method = \"{name}\", weight = 1.0, stage = \"main\" }}"));
    let text = format!(
        "[data]\nformat = \"digits\"\n[teacher]\narch = \"resnet20\"\n[student]\narch = \"resnet8\"\n\
         [train]\nbatch = {BATCH}\n[distill]\nterms = [{{ method = \"kd\" }}{more}]\n"
    );
    let recipe = parse(&text, "method_step", &[])?;
    let description = Description {
        shape: INPUT.to_vec(),
        layout: "CHW".into(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        raw_max: None,
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    let contract = Contract::for_data(&description, "x", "logits", Meaning::Logits);
    let network = |name: &str, seed: u64| {
        let arch = ARCHS.iter().find(|arch| arch.name == name);
        let arch = arch.ok_or_else(|| Refusal::new("method_step", "a known architecture", name, "build it first"))?;
        let options = kd_trainer::options::Options::defaults(arch.options);
        zoo::build(&Choice { name: arch.name, options }, &Site { input: INPUT.to_vec(), classes: CLASSES }, seed)
    };
    let teacher = Network {
        name: "arch resnet20".into(),
        graph: network("resnet20", 2)?,
        contract: contract.clone(),
        sha256: String::new(),
        weight: 1.0,
        cache: CacheWish::OFF,
        notes: Vec::new(),
    };
    Learner::new(
        &network("resnet8", 1)?,
        &contract,
        &recipe.train,
        Some((&recipe.distill, &[teacher])),
        Compute::host(threads),
        &Counts { n: BATCH, per_class: Vec::new() },
        1,
    )
}

/// Noise, of any classes.
fn batch() -> RawBatch {
    let mut rng = Rng::new(1, Purpose::Augment, 0, 0);
    let values = (0..BATCH * INPUT.iter().product::<usize>()).map(|_| rng.normal() as f32).collect();
    let labels = (0..BATCH).map(|i| i % CLASSES).collect();
    RawBatch { values, labels, places: (0..BATCH).collect(), ..RawBatch::default() }
}
