//! A small network that learns for some steps on a device and on the host, from the same weights and batches: with each
//! optimizer, with what comes before and after its steps, and with losses of each kind.

use kd_runtime::Result;
use serde::Serialize;

use super::{bound, contract, precision_of, worst};
use crate::data::{Counts, RawBatch, UNLABELLED};
use crate::exec::Compute;
use crate::exec::cases::noise;
use crate::optim::stepper::Stepper;
use crate::recipe::{Recipe, parse};
use crate::schemes::At;
use crate::schemes::learner::{Learner, StepValues};
use crate::teacher::{CacheWish, Network};
use crate::zoo::{self, Site};

/// Steps, whose batches are two in turns; more than are queued at once.
const STEPS: usize = 18;
const BATCH: usize = 8;
const CLASSES: usize = 4;
const INPUT: [usize; 3] = [3, 8, 8];
/// How far losses may be apart, relative to the first one, and parameters, relative to the way that an array has gone, in bounds of
/// operators: rounding grows with each step.
const BOUNDS: [f64; 2] = [50.0, 500.0];

/// What is learned: a name, the keys of `[train]`, and what `[distill]` has.
const CASES: &[(&str, &str, &str)] = &[
    ("sgd", "optimizer = { kind = \"sgd\", lr = 0.002, nesterov = true }", ""),
    ("adamw", "optimizer = { kind = \"adamw\", lr = 0.01 }", ""),
    ("adam", "optimizer = { kind = \"adam\", lr = 0.01 }", ""),
    ("rmsprop", "optimizer = { kind = \"rmsprop\", lr = 0.001, momentum = 0.5, centered = true, epsilon = 1e-3 }", ""),
    (
        "dot",
        "optimizer = { kind = \"dot\", lr = 0.01 }\nclip_norm = 1.0\nclip_value = 0.1",
        "terms = [{ method = \"kd\" }]",
    ),
    (
        "clipping",
        "optimizer = { kind = \"sgd\", lr = 0.05 }\nclip_norm = 0.5\nclip_value = 0.05\nmax_norm = 1.0\nema = 0.9\naccumulate = 2",
        "",
    ),
    (
        "the labels' options",
        "optimizer = { kind = \"sgd\", lr = 0.01 }\nlabel_smoothing = 0.1\nclass_weights = \"balanced\"",
        "terms = [{ method = \"kd\" }, { method = \"ce\", spread = \"others\", label_smoothing = 0.2 }]",
    ),
    (
        "answers",
        "optimizer = { kind = \"sgd\", lr = 0.01 }",
        "terms = [{ method = \"kd\" }, { method = \"kd\", standardize = true }, { method = \"mse_logits\", center = true }]",
    ),
    (
        "features",
        "optimizer = { kind = \"sgd\", lr = 0.01 }",
        "terms = [{ method = \"ab\", stage2 = \"joint\", weight = 0.01 }, { method = \"fitnets\", distance = \"smooth_l1\" }]",
    ),
    (
        "maps",
        "optimizer = { kind = \"sgd\", lr = 0.01 }",
        "terms = [{ method = \"at\", weight = 1.0 }, { method = \"nst\", weight = 0.1 }, \
         { method = \"fsp\", weight = 0.1 }, { method = \"soft_dtw\", weight = 0.01 }, \
         { method = \"attention_relation\", weight = 0.1 }, { method = \"sp\", weight = 1.0 }]",
    ),
    // Of the host, with an array of its own.
    (
        "relations",
        "optimizer = { kind = \"sgd\", lr = 0.01 }",
        "terms = [{ method = \"rkd_d\" }, { method = \"vid\", weight = 0.1 }]",
    ),
];

/// One of them.
#[derive(Debug, Serialize)]
pub struct Learning {
    /// What is learned.
    pub about: &'static str,
    /// The loss of the first and of the last step on the host.
    pub losses: [f64; 2],
    /// The largest difference between terms of both, relative to the first loss, and the longest between parameters in the end,
    /// relative to the way that an array has gone.
    pub worst: [f64; 2],
    /// What each may be.
    pub bounds: [f64; 2],
}

impl Learning {
    /// What is wrong.
    pub fn failure(&self) -> Option<String> {
        let Self { about, losses: [first, last], worst, bounds } = self;
        for ((worst, bound), what) in worst.iter().zip(bounds).zip(["losses", "parameters"]) {
            if worst.is_nan() || worst > bound {
                return Some(format!("learning with {about}: {what} differ by {worst:.1e}, at most {bound:.0e}"));
            }
        }
        (last >= first).then(|| format!("learning with {about}: the loss does not fall, from {first} to {last}"))
    }
}

/// All of them.
pub fn learning(compute: Compute<'_>) -> Result<Vec<Learning>> {
    let one = |&(about, train, distill): &(&'static str, &str, &str)| {
        let recipe = recipe(about, train, distill)?;
        let (host, device) = (learn(&recipe, Compute::host(1))?, learn(&recipe, compute)?);
        let losses = [host.0[0].loss, host.0[STEPS - 1].loss];
        Ok(Learning {
            about,
            losses,
            worst: apart(&host, &device),
            bounds: BOUNDS.map(|times| (times * bound(precision_of(compute))).min(0.5)),
        })
    };
    CASES.iter().map(one).collect()
}

/// The recipe of a case.
pub(crate) fn recipe(about: &str, train: &str, distill: &str) -> Result<Recipe> {
    let distill = match distill {
        "" => String::new(),
        terms => format!("[teacher]\nrun = \".\"\n[distill]\n{terms}\n"),
    };
    let text = format!(
        "[data]\nformat = \"cifar\"\npath = \".\"\n[student]\narch = \"resnet8\"\n[train]\nepochs = 1\nbatch = {BATCH}\n\
         {train}\n{distill}"
    );
    parse::parse(&text, about, &[])
}

/// Values of the steps, parameters before the first and in the end.
type Learned = (Vec<StepValues>, [Vec<Vec<f32>>; 2]);

fn apart(host: &Learned, device: &Learned) -> [f64; 2] {
    let first = host.0[0].loss;
    let steps = || host.0.iter().zip(&device.0);
    let terms = steps().flat_map(|(a, b)| a.terms.iter().zip(&b.terms).map(|(a, b)| (a - b).abs() / first));
    let losses = steps().map(|(a, b)| (a.loss - b.loss).abs() / first);
    let counts = |all: &[StepValues]| all.iter().map(|step| (step.samples, step.labelled)).collect::<Vec<_>>();
    // Logits that are all but equal may be in another order.
    let is_whole = counts(&host.0) == counts(&device.0)
        && steps().map(|(a, b)| a.right.abs_diff(b.right)).sum::<usize>() <= 1
        && host.1[1].len() == device.1[1].len();
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let arrays = host.1[0].iter().zip(&host.1[1]).zip(&device.1[1]);
    let parameters = arrays.map(|((before, a), b)| {
        let off = length(&mut a.iter().zip(b).map(|(a, b)| a - b));
        let way = length(&mut a.iter().zip(before).map(|(a, b)| a - b));
        off / way.max(1e-3 * (a.len() as f64).sqrt())
    });
    [worst(terms.chain(losses).chain((!is_whole).then_some(f64::NAN))), worst(parameters)]
}

/// A student and what steps it.
pub(crate) fn plan(recipe: &Recipe, compute: Compute<'_>) -> Result<(Learner, Stepper)> {
    let site = Site { input: INPUT.to_vec(), classes: CLASSES };
    let contract = contract(&site);
    let student = zoo::build(&recipe.student, &site, 1)?;
    let teacher = Network {
        name: "teacher".into(),
        graph: zoo::build(&recipe.student, &site, 2)?,
        contract: contract.clone(),
        sha256: String::new(),
        weight: 1.0,
        cache: CacheWish::OFF,
        notes: vec![],
    };
    let counts = Counts { n: 2 * BATCH, per_class: vec![3, 4, 4, 5] };
    let networks = [teacher];
    let distill = recipe.distills().then_some((&recipe.distill, &networks[..]));
    let learner = Learner::new(&student, &contract, &recipe.train, distill, compute, &counts, 1)?;
    let stepper = Stepper::new(&recipe.train, &learner.executor)?;
    Ok((learner, stepper))
}

fn learn(recipe: &Recipe, compute: Compute<'_>) -> Result<Learned> {
    let (mut learner, mut stepper) = plan(recipe, compute)?;
    let parameters = |learner: &Learner| learner.executor.parameters().iter().map(|p| p.value.to_vec()).collect();
    let (before, mut values) = (parameters(&learner), Vec::new());
    for step in 0..STEPS {
        values.extend(self::step(&mut learner, &mut stepper, step, recipe.train.accumulate)?);
    }
    values.extend(learner.settle()?);
    stepper.swap_average(learner.executor.parameters_mut());
    let after = parameters(&learner);
    learner.executor.wait()?;
    Ok((values, [before, after]))
}

/// Queues a step, from 0; gives what is known by then.
pub(crate) fn step(
    learner: &mut Learner,
    stepper: &mut Stepper,
    step: usize,
    accumulate: usize,
) -> Result<Vec<StepValues>> {
    let at = At { init: false, step, steps: STEPS, steps_per_epoch: STEPS };
    let batch = batch(step % 2, if step % 3 == 2 { BATCH - 3 } else { BATCH });
    let known = learner.queue(&batch, step as u64, at)?;
    let Learner { executor, task_gradients, .. } = learner;
    stepper.gather(executor.parameters(), task_gradients, &[], batch.labels.len())?;
    if (step + 1).is_multiple_of(accumulate) {
        executor.update(|parameters| stepper.step(parameters, task_gradients, 1.0));
    }
    Ok(known)
}

/// The first samples of a batch: of the second one they are mixed, and the class of one is not known.
fn batch(number: usize, samples: usize) -> RawBatch {
    let sample: usize = INPUT.iter().product();
    let mut labels: Vec<usize> = (0..samples).map(|i| i % CLASSES).collect();
    let mut values: Vec<f32> = noise(number as u64, samples * sample).into_iter().map(|v| v as f32).collect();
    // A class is a brightness.
    for (x, &label) in values.chunks_exact_mut(sample).zip(&labels) {
        x.iter_mut().for_each(|x| *x += label as f32);
    }
    let mut mixed = Vec::new();
    if number == 1 {
        mixed.extend((0..samples).map(|i| ((i + 1) % CLASSES, 1.0 - 0.05 * i as f32)));
        labels[3] = UNLABELLED;
    }
    RawBatch { values, labels, mixed, places: (0..samples).map(|i| number * BATCH + i).collect() }
}
