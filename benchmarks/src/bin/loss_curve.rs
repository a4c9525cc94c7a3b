//! `loss_curve RECIPE [KEY=VALUE…] [--python FILE] [--kd-train FILE] [--steps N] [--first N] [--max-difference D]
//! [--output FILE]`: the loss of every training step, ours and PyTorch's, from the same weights on the same batches.
//! Exits with 1 if the relative difference of one of the first N steps is above D.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kd_benchmarks::args::Args;
use kd_benchmarks::scratch::Scratch;
use kd_benchmarks::training::checked;
use kd_runtime::{Refusal, Result, files};
use kd_trainer::data::augment;
use kd_trainer::data::{self, Counts, RawBatch};
use kd_trainer::exec::Compute;
use kd_trainer::exec::{Parameter, Role};
use kd_trainer::optim::schedule::SCHEDULES;
use kd_trainer::optim::stepper::Stepper;
use kd_trainer::recipe::Recipe;
use kd_trainer::recipe::parse;
use kd_trainer::schemes::At;
use kd_trainer::schemes::learner::Learner;
use kd_trainer::zoo::{self, Site};
use serde_json::{Value, json};

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
    let args = Args::read(&["python", "kd-train", "steps", "first", "max-difference", "output"])?;
    let recipe_path = PathBuf::from(args.first("RECIPE")?);
    let steps = args.count("steps", 200)?;
    let first = args.count("first", 50)?;
    let most: f64 = args.number("max-difference", 1e-3)?;
    let recipe = parse::read(&recipe_path, args.rest())?;
    let scratch = Scratch::new("loss-curve")?;
    let [ours, torch, other] = compare(&args, &recipe_path, &recipe, steps, scratch.path())?;
    let between = |a: &[f64], b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1e-9)).collect()
    };
    let off = between(&ours, &torch);
    // One that is no number is the largest: nothing is equal to it.
    let largest = |off: &[f64]| off.iter().fold(0.0_f64, |a, &b| if b > a || b.is_nan() { b } else { a });
    println!("{:>6} {:>10} {:>10} {:>11}", "step", "ours", "torch", "difference");
    for step in [1, 10, 25, 50, 100, 150, 200].into_iter().filter(|&step| step <= ours.len()) {
        println!("{step:>6} {:>10.6} {:>10.6} {:>11.2e}", ours[step - 1], torch[step - 1], off[step - 1]);
    }
    let start = &off[..first.min(off.len())];
    println!(
        "largest relative difference: {:.2e} in the first {}, {:.2e} in all {}",
        largest(start),
        start.len(),
        largest(&off),
        off.len()
    );
    let itself = between(&other, &torch);
    println!(
        "torch from itself in the other memory layout: {:.2e} and {:.2e}",
        largest(&itself[..first.min(itself.len())]),
        largest(&itself)
    );
    if let Some(path) = args.get("output") {
        let record = json!({
            "schema": "kd.loss_curve/2", "recipe": recipe.to_toml(), "ours": ours, "torch": torch,
            "torch_other_layout": other,
        });
        files::write_atomic(Path::new(path), format!("{record}\n").as_bytes())?;
        println!("raw samples: {path}");
    }
    Ok(ours.len() == torch.len() && largest(start) <= most)
}

/// Losses of ours, of PyTorch, and of PyTorch with the same numbers in another memory layout.
fn compare(args: &Args, path: &Path, recipe: &Recipe, steps: usize, scratch: &Path) -> Result<[Vec<f64>; 3]> {
    let data = data::prepare(recipe)?;
    check_batch(recipe.train.batch, data.train.len())?;
    let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
    let graph = zoo::build(&recipe.student, &site, recipe.run.seed)?;
    let (train, seed) = (&recipe.train, recipe.run.seed);
    let counts = Counts::of(&data.train, site.classes);
    let compute = Compute::host(recipe.run.threads);
    let mut learner = Learner::new(&graph, &data.contract, train, None, compute, &counts, seed)?;
    let mut stepper = Stepper::new(train, &learner.executor)?;
    let schedule = SCHEDULES.iter().find(|kind| kind.name == train.schedule.name).expect("a checked choice");
    let augment = augment::build(&recipe.data.augment, &data.description.shape, data.description.raw_max)?;
    let trained = |p: &&Parameter<f32>| p.role != Role::Statistic;
    let weights: Vec<f32> =
        learner.executor.parameters().iter().filter(trained).flat_map(|p| p.value.to_vec()).collect();
    let (mut all_x, mut all_labels, mut factors, mut ours) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut raw, mut x) = (RawBatch::default(), Vec::new());
    let mut epoch = 0;
    while ours.len() < steps {
        let order = data::order(data.train.len(), seed, epoch);
        for places in order.chunks_exact(train.batch).take(steps - ours.len()) {
            data::load(&data.train, None, places, &augment, seed, epoch, &mut raw);
            data::scale(&data.contract, &raw.values, &mut x);
            all_x.extend_from_slice(&x);
            all_labels.extend(raw.labels.iter().map(|&label| label as i64));
            let (step, steps_per_epoch) = (ours.len(), data.train.len().div_ceil(train.batch));
            let at = At { init: false, step, steps: steps_per_epoch * train.epochs, steps_per_epoch };
            let factor = (schedule.factor)(&train.schedule.options, at.step, at.steps, at.steps_per_epoch);
            ours.push(learner.step(&raw, 0, at)?.loss);
            learner.executor.update(|parameters| stepper.step(parameters, &mut [], factor));
            factors.push(factor);
        }
        epoch += 1;
    }
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let write = |name: &str, bytes: &[u8]| files::write_atomic(&scratch.join(name), bytes);
    write("weights.f32", &floats(&weights))?;
    write("x.f32", &floats(&all_x))?;
    write("labels.i64", &all_labels.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    write("about.json", json!({ "batch": train.batch, "lr_factors": factors }).to_string().as_bytes())?;
    let resolved = scratch.join("recipe.json");
    checked(args, path, &resolved)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/torch_recipe.py");
    let mut command = Command::new(args.get("python").unwrap_or("python3"));
    command.arg(script).arg("curve").arg(&resolved).arg(recipe.run.threads.to_string()).arg(scratch);
    let answer: Value = kd_benchmarks::training::answer(&mut command)?;
    let losses = |key: &str| -> Result<Vec<f64>> {
        let list = answer[key].as_array().map(|list| list.iter().filter_map(Value::as_f64).collect());
        list.ok_or_else(|| Refusal::new("torch", format!("`{key}`"), &answer, "read its messages above"))
    };
    Ok([ours, losses("losses")?, losses("losses_other_layout")?])
}

/// Refuses a batch that no epoch of so many samples fills: steps are of whole batches.
fn check_batch(batch: usize, samples: usize) -> Result<()> {
    if batch <= samples {
        return Ok(());
    }
    let expected = format!("at most {samples}, the training samples");
    Err(Refusal::new("train.batch", expected, batch, "lower it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_no_epoch_fills_is_refused() {
        assert_eq!(check_batch(64, 64), Ok(()));
        let refusal = check_batch(65, 64).err().map(|refusal| refusal.to_string());
        assert_eq!(
            refusal.as_deref(),
            Some("train.batch: expected at most 64, the training samples, found 65; lower it")
        );
    }
}
