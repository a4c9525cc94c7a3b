//! From gradients to new parameters: batches gathered to a step, clipping, the optimizer with its groups, the max-norm
//! constraint, and the average that follows.

use kd_runtime::Result;

use super::average::Average;
use super::table::OPTIMIZERS;
use super::{Optimizer, Rule, clip, groups, max_norm};
use crate::exec::{Executor, Parameter};
use crate::recipe::Train;

/// All that `[train]` says about a step.
pub struct Stepper {
    optimizer: Box<dyn Optimizer>,
    rules: Vec<Rule>,
    clip_value: Option<f64>,
    clip_norm: Option<f64>,
    max_norm: Option<f64>,
    /// [`Executor::unit_axes`]; no axis where a parameter is not stepped.
    unit_axes: Vec<usize>,
    average: Option<Average>,
    gathers: bool,
    gathered: Gathered,
}

/// Sums of gradients over the batches of a step, times their samples.
#[derive(Default)]
struct Gathered {
    samples: usize,
    own: Vec<Vec<f32>>,
    task: Vec<Vec<f32>>,
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
        Ok(Self {
            optimizer: (kind.build)(&train.optimizer.options, parameters, &rules)?,
            clip_value: train.clip_value,
            clip_norm: train.clip_norm,
            max_norm: train.max_norm,
            unit_axes: axes.map(|(axis, rule)| if rule.is_stepped { axis } else { usize::MAX }).collect(),
            average: train.ema.map(|decay| Average::new(network, decay, train.ema_warmup)),
            gathers: train.accumulate > 1,
            gathered: Gathered::default(),
            rules,
        })
    }

    /// Takes in the gradients of a batch of `n` samples, to be stepped by together with those of other batches: the mean
    /// over all their samples. `task` as [`Optimizer::step`] has it.
    pub fn gather(&mut self, parameters: &[Parameter<f32>], task: &[Vec<f32>], n: usize) {
        if self.gathers {
            self.gathered.samples += n;
            add(&mut self.gathered.own, parameters.iter().map(|p| &p.gradient[..]), n as f32);
            add(&mut self.gathered.task, task.iter().map(|task| &task[..]), n as f32);
        }
    }

    /// Steps by the gradients of the last batch, or of those that were gathered.
    pub fn step(&mut self, parameters: &mut [Parameter<f32>], task: &mut [Vec<f32>], lr_factor: f64) {
        if self.gathers {
            let samples = std::mem::take(&mut self.gathered.samples).max(1) as f32;
            task.iter_mut().zip(&self.gathered.task).for_each(|(task, sum)| task.resize(sum.len(), 0.0));
            take(&mut self.gathered.own, parameters.iter_mut().map(|p| &mut p.gradient[..]), samples);
            take(&mut self.gathered.task, task.iter_mut().map(Vec::as_mut_slice), samples);
        }
        // What is frozen does not count as long either.
        for (i, p) in parameters.iter_mut().enumerate().filter(|(i, _)| !self.rules[*i].is_stepped) {
            p.gradient.fill(0.0);
            task.get_mut(i).into_iter().for_each(Vec::clear);
        }
        if let Some(most) = self.clip_value {
            clip::values(parameters, task, most as f32);
        }
        if let Some(most) = self.clip_norm {
            clip::global_norm(parameters, task, most as f32);
        }
        self.optimizer.step(parameters, task, lr_factor);
        if let Some(most) = self.max_norm {
            max_norm::constrain(parameters, &self.unit_axes, most as f32);
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

/// `sums += n · arrays`.
fn add<'a>(sums: &mut Vec<Vec<f32>>, arrays: impl ExactSizeIterator<Item = &'a [f32]>, n: f32) {
    sums.resize(arrays.len(), Vec::new());
    for (sum, array) in sums.iter_mut().zip(arrays) {
        sum.resize(array.len(), 0.0);
        sum.iter_mut().zip(array).for_each(|(sum, g)| *sum += n * g);
    }
}

/// `arrays = sums / n`; the sums begin anew.
fn take<'a>(sums: &mut [Vec<f32>], arrays: impl Iterator<Item = &'a mut [f32]>, n: f32) {
    for (sum, array) in sums.iter_mut().zip(arrays) {
        array.iter_mut().zip(&*sum).for_each(|(to, sum)| *to = sum / n);
        sum.clear();
    }
}
