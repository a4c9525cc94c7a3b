//! Our side of a case.

use std::time::Instant;

use kd_runtime::{Refusal, Result};
use kd_trainer::exec::{Executor, Mode, Plan};
use kd_trainer::gpu::Gpu;
use kd_trainer::losses::ce::{Targets, cross_entropy};
use kd_trainer::losses::kd::soft_targets;
use kd_trainer::losses::rows::Reduction;
use kd_trainer::optim::{Optimizer, adamw, groups, sgd};
use kd_trainer::options::{Options, Setting};
use kd_trainer::recipe::Choice;
use kd_trainer::rng::{Purpose, Rng};
use kd_trainer::zoo::{self, Site, table::ARCHS};

use super::{Case, Network, Work};

/// Logits of the teacher for every sample of a data set that is held in memory.
const CACHED_SAMPLES: usize = 50_000;

/// A case that is ready to be stepped.
pub struct Ours {
    work: Work,
    executor: Executor<f32>,
    optimizer: Box<dyn Optimizer>,
    teacher: Option<Executor<f32>>,
    cache: Vec<f32>,
    x: Vec<f32>,
    labels: Vec<usize>,
    taught: Vec<f32>,
    d_logits: Vec<f32>,
    d_taught: Vec<f32>,
    classes: usize,
    seed: u64,
}

/// Where it is computed.
#[derive(Clone, Debug)]
pub struct Device {
    /// Threads of the host.
    pub threads: usize,
    /// A GPU, if not on the host.
    pub gpu: Option<Gpu>,
}

fn executor(network: &Network, case: &Case, backward: bool, device: &Device) -> Result<Executor<f32>> {
    let arch = ARCHS.iter().find(|arch| arch.name == network.arch);
    let arch = arch.ok_or_else(|| Refusal::new("case", "a known architecture", network.arch, "build it first"))?;
    let mut options = Options::defaults(arch.options);
    if let Some((name, counts)) = network.counts {
        options = options.with(name, Setting::Counts(counts.to_vec()));
    }
    let site = Site { input: case.input.to_vec(), classes: case.classes };
    let graph = zoo::build(&Choice { name: arch.name, options }, &site, 1)?;
    let Device { threads, gpu } = device.clone();
    Executor::new(&graph, &Plan { batch: case.batch, taps: Vec::new(), backward, threads, gpu })
}

impl Ours {
    /// Plans the case.
    pub fn new(case: &Case, device: &Device) -> Result<Self> {
        let executor = executor(&case.student, case, true, device)?;
        let rules = groups::rules(executor.parameters(), &[], true);
        let optimizer = if case.work == Work::AdamW {
            adamw::build(&Options::defaults(adamw::OPTIONS), executor.parameters(), &rules)?
        } else {
            let options = Options::defaults(sgd::OPTIONS).with("lr", Setting::Number(0.01));
            sgd::build(&options, executor.parameters(), &rules)?
        };
        let teacher = match case.work {
            Work::Distill { teacher, cached: false } => {
                Some(self::executor(&super::plain(teacher), case, false, device)?)
            }
            _ => None,
        };
        let mut rng = Rng::new(1, Purpose::Augment, 0, 0);
        let mut normal = |elements: usize| -> Vec<f32> { (0..elements).map(|_| rng.normal() as f32).collect() };
        let x = normal(case.batch * case.input.iter().product::<usize>());
        let cached = matches!(case.work, Work::Distill { cached: true, .. });
        let cache = normal(if cached { CACHED_SAMPLES * case.classes } else { 0 });
        let mut ours = Self {
            work: case.work,
            executor,
            optimizer,
            teacher,
            cache,
            x,
            labels: (0..case.batch).map(|_| rng.below(case.classes as u64) as usize).collect(),
            taught: vec![0.0; case.batch * case.classes],
            d_logits: vec![0.0; case.batch * case.classes],
            d_taught: vec![0.0; case.batch * case.classes],
            classes: case.classes,
            seed: 0,
        };
        if ours.work == Work::AdamW {
            // Gradients to step by.
            ours.train()?;
        }
        Ok(ours)
    }

    /// Times of so many steps in ms; of a GPU, which works on while the host goes on, their mean alone.
    pub fn steps_ms(&mut self, n: usize) -> Result<Vec<f64>> {
        let gpu = self.executor.gpu().cloned();
        let block = if gpu.is_some() { n } else { 1 };
        let mut times = Vec::with_capacity(n / block);
        for _ in 0..n / block {
            let start = Instant::now();
            for _ in 0..block {
                self.step()?;
            }
            gpu.as_ref().map_or(Ok(()), Gpu::wait)?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / block as f64);
        }
        Ok(times)
    }

    fn step(&mut self) -> Result<()> {
        if self.work != Work::AdamW {
            self.train()?;
        }
        let optimizer = &mut *self.optimizer;
        self.executor.update(|parameters| optimizer.step(parameters, &[], 1.0));
        Ok(())
    }

    /// Forward, loss and backward.
    fn train(&mut self) -> Result<()> {
        self.seed += 1;
        let batch = self.labels.len();
        self.teach()?;
        let executor = &mut self.executor;
        executor.forward(&self.x, batch, Mode::Train { seed: self.seed })?;
        let logits = executor.tap("logits")?;
        let (values, d) = (executor.value(logits), &mut self.d_logits);
        cross_entropy(values, self.labels[..].into(), self.classes, &Targets::default(), Reduction::BatchMean, d);
        if matches!(self.work, Work::Distill { .. }) {
            let (taught, d_taught) = (&self.taught, &mut self.d_taught);
            soft_targets(values, taught, self.classes, 4.0, Reduction::BatchMean, true, d_taught);
            d.iter_mut().zip(d_taught).for_each(|(d, t)| *d = 0.1 * *d + 0.9 * *t);
        }
        executor.backward(&[(logits, d)])
    }

    /// The teacher's logits of the batch.
    fn teach(&mut self) -> Result<()> {
        if let Some(teacher) = &mut self.teacher {
            teacher.forward(&self.x, self.labels.len(), Mode::Eval)?;
            let logits = teacher.tap("logits")?;
            self.taught.copy_from_slice(teacher.value(logits));
        } else if !self.cache.is_empty() {
            for (i, row) in self.taught.chunks_exact_mut(self.classes).enumerate() {
                // Samples of a batch lie anywhere in the data set.
                let sample = (self.seed as usize * 7919 + i * 104_729) % CACHED_SAMPLES;
                row.copy_from_slice(&self.cache[sample * self.classes..][..self.classes]);
            }
        }
        Ok(())
    }
}
