//! From gradients to new parameters: batches gathered to a step, clipping, the optimizer with its groups, the max-norm
//! constraint, and the average that follows.

use kd_runtime::Result;

use super::average::Average;
use super::table::OPTIMIZERS;
use super::{Optimizer, Rule, clip, groups, max_norm};
use crate::exec::{Executor, Parameter};
use crate::ops::kernels::buffer::Buffer;
use crate::recipe::Train;

/// All that `[train]` says about a step.
pub struct Stepper {
    optimizer: Box<dyn Optimizer>,
    rules: Vec<Rule>,
    clip_value: Option<f64>,
    clip_norm: Option<f64>,
    clip_on_gpu: Option<clip::OnGpu>,
    max_norm: Option<f64>,
    /// [`Executor::unit_axes`]; no axis where a parameter is not stepped.
    unit_axes: Vec<usize>,
    average: Option<Average>,
    gathers: bool,
    gathered: Gathered,
    /// For each parameter whether a batch of the step depends on it; empty: all do.
    moves: Vec<bool>,
}

/// Sums of gradients over the batches of a step, times their samples.
#[derive(Default)]
struct Gathered {
    samples: usize,
    own: Vec<Buffer<f32>>,
    task: Vec<Buffer<f32>>,
}

impl Stepper {
    /// For the parameters of an executor, at the begin of training.
    pub fn new(train: &Train, executor: &Executor<f32>) -> Result<Self> {
        let parameters = executor.parameters();
        let rules = groups::rules(parameters, &train.groups, train.decay_norm_and_bias);
        let kind = OPTIMIZERS.iter().find(|kind| kind.name == train.optimizer.name);
        let kind = kind.expect("a checked choice names a row");
        let network = &parameters[..executor.network_parameters()];
        let axes = executor.unit_axes().into_iter().zip(&rules);
        let gpu = executor.gpu().filter(|_| train.clip_norm.is_some() || train.clip_value.is_some());
        Ok(Self {
            optimizer: (kind.build)(&train.optimizer.options, parameters, &rules)?,
            clip_value: train.clip_value,
            clip_norm: train.clip_norm,
            clip_on_gpu: gpu.map(|gpu| clip::OnGpu::new(gpu, parameters)).transpose()?,
            max_norm: train.max_norm,
            unit_axes: axes.map(|(axis, rule)| if rule.is_stepped { axis } else { usize::MAX }).collect(),
            average: train.ema.map(|decay| Average::new(network, decay, train.ema_warmup)).transpose()?,
            gathers: train.accumulate > 1,
            gathered: Gathered::default(),
            moves: Vec::new(),
            rules,
        })
    }

    /// Takes in the gradients of a batch of `n` samples, to be stepped by together with those of other batches: the mean
    /// over all their samples. `task` and `moves` as [`Optimizer::step`] has them. Refused where a GPU has no memory for the
    /// sums.
    pub fn gather(
        &mut self,
        parameters: &[Parameter<f32>],
        task: &[Buffer<f32>],
        moves: &[bool],
        n: usize,
    ) -> Result<()> {
        if self.gathered.samples == 0 {
            self.moves.clear();
            self.moves.extend_from_slice(moves);
        } else {
            self.moves.iter_mut().zip(moves).for_each(|(all, moves)| *all |= moves);
        }
        if self.gathers {
            let Gathered { samples, own, task: sums } = &mut self.gathered;
            if *samples == 0 {
                own.iter_mut().for_each(Buffer::zero);
                for (sum, task) in sums.iter_mut().zip(task) {
                    // None in all batches of a step, or in none.
                    if task.is_empty() { *sum = Buffer::default() } else { sum.zero() }
                }
            }
            *samples += n;
            add(own, parameters.iter().map(|p| &p.gradient), n as f32)?;
            add(sums, task.iter(), n as f32)?;
        }
        Ok(())
    }

    /// Steps by the gradients of the last batch, or of those that were gathered.
    pub fn step(&mut self, parameters: &mut [Parameter<f32>], task: &mut [Buffer<f32>], lr_factor: f64) {
        if self.gathers {
            let samples = std::mem::take(&mut self.gathered.samples).max(1) as f32;
            let own = parameters.iter_mut().map(|p| &mut p.gradient).zip(&mut self.gathered.own);
            for (gradient, sum) in own.chain(task.iter_mut().zip(&mut self.gathered.task)) {
                std::mem::swap(gradient, sum);
                gradient.divide(samples);
            }
        }
        // What is frozen does not count as long either.
        for (i, p) in parameters.iter_mut().enumerate().filter(|(i, _)| !self.rules[*i].is_stepped) {
            p.gradient.zero();
            task.get_mut(i).into_iter().for_each(Buffer::zero);
        }
        if let Some(most) = self.clip_value {
            match &self.clip_on_gpu {
                Some(clip) => clip.values(parameters, task, most as f32),
                None => clip::values(parameters, task, most as f32),
            }
        }
        if let Some(most) = self.clip_norm {
            match &mut self.clip_on_gpu {
                Some(clip) => clip.global_norm(parameters, task, most as f32),
                None => {
                    clip::global_norm(parameters, task, most as f32);
                }
            }
        }
        self.optimizer.step(parameters, task, &self.moves, lr_factor);
        if let Some(most) = self.max_norm {
            let moves = |i: usize| self.moves.get(i) != Some(&false);
            let axes = self.unit_axes.iter().enumerate().map(|(i, &axis)| if moves(i) { axis } else { usize::MAX });
            max_norm::constrain(parameters, &axes.collect::<Vec<_>>(), most as f32);
        }
        if let Some(average) = &mut self.average {
            average.follow(parameters);
        }
    }

    /// Exchanges the parameters for their average, or back; nothing where none is kept.
    pub fn swap_average(&mut self, parameters: &mut [Parameter<f32>]) {
        self.average.iter_mut().for_each(|average| average.swap(parameters));
    }

    /// All that a checkpoint must keep, by name, in a fixed order. Between steps nothing is gathered.
    pub fn state(&self) -> Vec<(String, &[f32])> {
        let average = self.average.iter().flat_map(Average::state);
        let optimizer = self.optimizer.state().into_iter();
        optimizer.chain(average.map(|(name, v)| (format!("average/{name}"), v))).collect()
    }

    /// The same for writing, same names and order: a checkpoint is copied into it.
    pub fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let average = self.average.iter_mut().flat_map(Average::state_mut);
        let optimizer = self.optimizer.state_mut().into_iter();
        optimizer.chain(average.map(|(name, v)| (format!("average/{name}"), v))).collect()
    }
}

/// `sums += n · arrays`; one that is empty is one of zeros.
fn add<'a>(sums: &mut Vec<Buffer<f32>>, arrays: impl Iterator<Item = &'a Buffer<f32>>, n: f32) -> Result<()> {
    for (i, array) in arrays.enumerate() {
        if sums.len() == i {
            sums.push(Buffer::default());
        }
        if sums[i].is_empty() && !array.is_empty() {
            sums[i] = array.beside(array.len())?;
        }
        if !array.is_empty() {
            sums[i].blend(1.0, n, array);
        }
    }
    Ok(())
}
