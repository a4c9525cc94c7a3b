//! Our side of a case.

use std::time::Instant;

use kd_runtime::graph::ValueId;
use kd_runtime::{Refusal, Result};
use kd_trainer::exec::{Executor, Mode, Plan};
use kd_trainer::gpu::Gpu;
use kd_trainer::gpu::losses::ce::Wanted;
use kd_trainer::gpu::losses::{self, Answers, Given, Part, SUMS, Seen, targets};
use kd_trainer::gpu::ops::maps;
use kd_trainer::losses::Batch;
use kd_trainer::losses::ce::{Targets, cross_entropy};
use kd_trainer::losses::kd::soft_targets;
use kd_trainer::losses::rows::Reduction;
use kd_trainer::ops::kernels::buffer::Buffer;
use kd_trainer::optim::{Optimizer, adamw, groups, sgd};
use kd_trainer::options::{Options, Setting};
use kd_trainer::recipe::Choice;
use kd_trainer::rng::{Purpose, Rng};
use kd_trainer::zoo::{self, Site, table::ARCHS};

use super::{Case, Network, Work};

/// Logits of the teacher for every sample of a data set that is held in memory.
const CACHED_SAMPLES: usize = 50_000;

/// Of the soft targets.
const TEMPERATURE: f32 = 4.0;

/// A case that is ready to be stepped.
pub struct Ours {
    work: Work,
    executor: Executor<f32>,
    optimizer: Box<dyn Optimizer>,
    teacher: Option<Executor<f32>>,
    cache: Vec<f32>,
    x: Buffer<f32>,
    labels: Vec<usize>,
    taught: Buffer<f32>,
    d_logits: Buffer<f32>,
    d_taught: Buffer<f32>,
    on_gpu: Option<OnGpu>,
    classes: usize,
    seed: u64,
}

/// What losses of a GPU read and leave there.
struct OnGpu {
    gpu: Gpu,
    targets: Buffer<f32>,
    sums: Buffer<f32>,
    values: [Buffer<f32>; 2],
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
        let labels: Vec<usize> = (0..case.batch).map(|_| rng.below(case.classes as u64) as usize).collect();
        let gpu = device.gpu.as_ref();
        let answers = || Buffer::in_memory(gpu, case.batch * case.classes);
        let mut ours = Self {
            work: case.work,
            executor,
            optimizer,
            teacher,
            cache,
            x: gpu.map_or_else(|| Ok(x.clone().into()), |gpu| Buffer::moved(gpu, &x))?,
            taught: answers()?,
            d_logits: answers()?,
            d_taught: answers()?,
            on_gpu: gpu.map(|gpu| OnGpu::new(gpu, &batch(&labels))).transpose()?,
            labels,
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
        self.executor.update(|parameters| optimizer.step(parameters, &[], &[], 1.0));
        Ok(())
    }

    /// Forward, loss and backward. On a GPU nothing waits for it.
    fn train(&mut self) -> Result<()> {
        self.seed += 1;
        self.teach()?;
        let executor = &mut self.executor;
        let logits = executor.tap("logits")?;
        executor.queue_forward(&[logits], self.x.raw(), self.labels.len(), Mode::Train { seed: self.seed })?;
        let distills = matches!(self.work, Work::Distill { .. });
        if self.on_gpu.is_some() {
            self.losses_on_gpu(logits, distills);
        } else {
            let (values, d) = (executor.value(logits), &mut self.d_logits);
            cross_entropy(values, self.labels[..].into(), self.classes, &Targets::default(), Reduction::BatchMean, d);
            if distills {
                let d = &mut self.d_taught;
                soft_targets(values, &self.taught, self.classes, TEMPERATURE, Reduction::BatchMean, true, d);
            }
        }
        if distills {
            self.d_logits.blend(0.1, 0.9, &self.d_taught);
        }
        self.executor.backward(&[(logits, self.d_logits.raw())])
    }

    /// Queues both losses.
    fn losses_on_gpu(&mut self, logits: ValueId, distills: bool) {
        let Self { executor, on_gpu: Some(on_gpu), labels, taught, d_logits, d_taught, classes, .. } = self else {
            return;
        };
        let OnGpu { gpu, targets, sums, values: [hard, soft] } = on_gpu;
        let (batch, student, teacher) = (batch(labels), [executor.raw(logits)], [taught.raw()]);
        let seen = Seen { gpu, batch: &batch, targets: targets.raw(), student: &student, teacher: &teacher };
        let d = &mut [d_logits.raw_mut()];
        let mut given = Given { d_student: d, sums: sums.raw_mut(), value: hard.raw_mut() };
        let none = Targets::default();
        let wanted = Wanted { targets: &none, weights: &[], labelled: labels.len() as f64 };
        losses::ce::cross_entropy(&seen, 0, *classes, wanted, Part::WHOLE, &mut given);
        if distills {
            let d = &mut [d_taught.raw_mut()];
            let mut given = Given { d_student: d, sums: sums.raw_mut(), value: soft.raw_mut() };
            let (temperature, reduction) = (TEMPERATURE, Reduction::BatchMean);
            let form = losses::kd::Form { temperature, reduction, tau2: true, standardize: false };
            losses::kd::soft_targets(&seen, Answers::of(&seen, *classes), form, Part::WHOLE, &mut given);
        }
    }

    /// The teacher's logits of the batch.
    fn teach(&mut self) -> Result<()> {
        if let Some(teacher) = &mut self.teacher {
            let logits = teacher.tap("logits")?;
            teacher.queue_forward(&[logits], self.x.raw(), self.labels.len(), Mode::Eval)?;
            match &self.on_gpu {
                Some(on_gpu) => maps::copy(&on_gpu.gpu, self.taught.raw_mut(), teacher.raw(logits), false),
                None => self.taught.put(teacher.value(logits)),
            }
        } else if !self.cache.is_empty() {
            let mut rows = Vec::with_capacity(self.taught.len());
            for i in 0..self.labels.len() {
                // Samples of a batch lie anywhere in the data set.
                let sample = (self.seed as usize * 7919 + i * 104_729) % CACHED_SAMPLES;
                rows.extend_from_slice(&self.cache[sample * self.classes..][..self.classes]);
            }
            self.taught.put(&rows);
        }
        Ok(())
    }
}

/// A batch of these classes.
fn batch(labels: &[usize]) -> Batch<'_> {
    Batch { size: labels.len(), labels, mixed: &[], places: &[], progress: 0.0 }
}

impl OnGpu {
    fn new(gpu: &Gpu, batch: &Batch<'_>) -> Result<Self> {
        let (targets, sums) = (Buffer::moved(gpu, &targets(batch))?, Buffer::on(gpu, SUMS.max(batch.size))?);
        Ok(Self { gpu: gpu.clone(), targets, sums, values: [Buffer::on(gpu, 1)?, Buffer::on(gpu, 1)?] })
    }
}
