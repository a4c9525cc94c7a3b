//! A small network trained for some steps on a device and on the host, from the same weights and batches.

use kd_runtime::Result;
use serde::Serialize;

use crate::exec::cases::noise;
use crate::exec::{Compute, Executor, Mode, Plan};
use crate::losses::ce::{Labels, Targets, cross_entropy};
use crate::losses::rows::Reduction;
use crate::optim::groups;
use crate::optim::table::OPTIMIZERS;
use crate::options::Options;
use crate::recipe::Choice;
use crate::zoo::table::ARCHS;
use crate::zoo::{self, Site};

/// Batches that are learned from, one after another and again.
const STEPS: usize = 12;
const BATCH: usize = 8;
const CLASSES: usize = 4;
const INPUT: [usize; 3] = [3, 8, 8];
/// How far the losses may be apart, relative to the first: rounding grows with each step.
const BOUND: f64 = 1e-3;

/// One optimizer.
#[derive(Debug, Serialize)]
pub struct Training {
    /// Its name.
    pub optimizer: &'static str,
    /// The loss of the first and of the last step on the host.
    pub losses: [f64; 2],
    /// The largest difference between the losses of both, relative to the first.
    pub worst: f64,
    /// What it may be.
    pub bound: f64,
}

impl Training {
    /// What is wrong.
    pub fn failure(&self) -> Option<String> {
        let Self { optimizer, losses: [first, last], worst, bound } = self;
        if worst.is_nan() || worst > bound {
            return Some(format!(
                "training with {optimizer}: losses differ by {worst:.1e} of the first, at most {bound:.0e}"
            ));
        }
        (last >= first).then(|| format!("training with {optimizer}: the loss does not fall, from {first} to {last}"))
    }
}

/// A residual network with each optimizer.
pub fn training(compute: Compute<'_>) -> Result<Vec<Training>> {
    let one = |optimizer: &'static str| {
        let host = losses(optimizer, Compute::host(1))?;
        let device = losses(optimizer, compute)?;
        let apart = host.iter().zip(&device).map(|(a, b)| (a - b).abs() / host[0]);
        let worst = apart.fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
        Ok(Training { optimizer, losses: [host[0], host[STEPS - 1]], worst, bound: BOUND })
    };
    OPTIMIZERS.iter().filter(|kind| !kind.splits).map(|kind| one(kind.name)).collect()
}

/// The loss of each step.
fn losses(optimizer: &str, compute: Compute<'_>) -> Result<Vec<f64>> {
    let site = Site { input: INPUT.to_vec(), classes: CLASSES };
    let arch = ARCHS.iter().find(|arch| arch.name == "resnet8").expect("a row's name");
    let graph = zoo::build(&Choice { name: arch.name, options: Options::defaults(arch.options) }, &site, 1)?;
    let Compute { threads, gpu } = compute;
    let plan = Plan { batch: BATCH, taps: vec![], backward: true, threads, gpu: gpu.cloned() };
    let mut executor = Executor::<f32>::new(&graph, &plan)?;
    let kind = OPTIMIZERS.iter().find(|kind| kind.name == optimizer).expect("a row's name");
    let rules = groups::rules(executor.parameters(), &[], false);
    let mut optimizer = (kind.build)(&Options::defaults(kind.options), executor.parameters(), &rules)?;
    let sample: usize = INPUT.iter().product();
    let labels: Vec<usize> = (0..BATCH).map(|i| i % CLASSES).collect();
    let output = graph.outputs[0];
    let mut all = Vec::with_capacity(STEPS);
    for step in 0..STEPS {
        let mut x: Vec<f32> = noise(step as u64 % 2, BATCH * sample).into_iter().map(|v| v as f32).collect();
        // A class is a brightness.
        for (x, &label) in x.chunks_exact_mut(sample).zip(&labels) {
            x.iter_mut().for_each(|x| *x += label as f32);
        }
        executor.forward(&x, BATCH, Mode::Train { seed: step as u64 })?;
        let logits = executor.value(output).to_vec();
        let mut d = vec![0.0; logits.len()];
        let classes = Labels { classes: &labels, mixed: &[] };
        let loss = cross_entropy(&logits, classes, CLASSES, &Targets::smoothed(0.0), Reduction::BatchMean, &mut d);
        all.push(f64::from(loss));
        executor.backward(&[(output, &d)])?;
        executor.update(|parameters| optimizer.step(parameters, &[], 0.1));
    }
    Ok(all)
}
