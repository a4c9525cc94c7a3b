//! What steps: optimizers, learning rates over time, clipping.

pub mod adamw;
pub mod average;
pub mod clip;
pub mod dot;
pub mod groups;
pub mod max_norm;
pub mod rmsprop;
pub mod schedule;
pub mod sgd;
pub mod specs;
pub mod stepper;
pub mod table;
#[cfg(test)]
mod tests;

use kd_runtime::Result;

use crate::exec::Parameter;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Options, Spec};

/// Makes an optimizer; see [`OptimizerKind::build`].
pub type Build = fn(&Options, &[Parameter<f32>], &[Rule]) -> Result<Box<dyn Optimizer>>;

/// A row of the table of optimizers (`optim/table.rs`: `pub static OPTIMIZERS: &[OptimizerKind]`).
pub struct OptimizerKind {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it is, on one line.
    pub about: &'static str,
    /// Its options, without `kind`. Every one has `lr`, the learning rate at a schedule's factor of 1.
    pub options: &'static [Spec],
    /// Whether it wants the gradient of the task's loss apart from that of the other terms, which takes a second backward
    /// pass.
    pub splits: bool,
    /// Makes the optimizer for these parameters, each with its rule, from checked options; what it keeps lies beside them.
    pub build: Build,
}

/// How one parameter is stepped; see [`groups::rules`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Whether it is stepped at all: neither a statistic nor frozen.
    pub is_stepped: bool,
    /// Times the learning rate.
    pub lr_factor: f64,
    /// Instead of the optimizer's weight decay.
    pub weight_decay: Option<f64>,
}

impl Rule {
    /// Its weight decay, where `own` is the optimizer's.
    pub fn decay(&self, own: f64) -> f64 {
        self.weight_decay.unwrap_or(own)
    }
}

/// What changes parameters by their gradients.
pub trait Optimizer {
    /// One step with a learning rate of `lr_factor · lr`, times that of each parameter's rule. `moves` says for each
    /// parameter whether anything that is learned depends on it (empty: all do): what does not stays what it is, with all
    /// that is kept of it, as a parameter without a gradient does in torch.
    ///
    /// `task` is empty unless gradients are apart ([`OptimizerKind::splits`]): then it holds for each parameter the gradient
    /// of the task's loss, empty where the task's loss has none, and the parameter's own is that of the other terms.
    fn step(&mut self, parameters: &mut [Parameter<f32>], task: &[Buffer<f32>], moves: &[bool], lr_factor: f64);
    /// All that a checkpoint must keep, by name, in a fixed order; the count of steps, where it matters, among it.
    fn state(&self) -> Vec<(String, &[f32])>;
    /// The same for writing, same names and order: a checkpoint is copied into it.
    fn state_mut(&mut self) -> Vec<(String, &mut [f32])>;
}

/// A row of the table of schedules (`optim/schedule.rs`: `pub static SCHEDULES: &[ScheduleKind]`).
pub struct ScheduleKind {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it is, on one line.
    pub about: &'static str,
    /// Its options, without `kind`.
    pub options: &'static [Spec],
    /// The factor of the learning rate at a step (from 0) of a run of so many steps and so many steps per epoch.
    pub factor: fn(&Options, step: usize, steps: usize, steps_per_epoch: usize) -> f64,
}

/// Whether parameter `i` is stepped, by its rule and by what it is learned from; see [`Optimizer::step`].
fn is_stepped(rules: &[Rule], moves: &[bool], i: usize) -> bool {
    rules[i].is_stepped && moves.get(i) != Some(&false)
}

/// Steps done, kept in two floats (of 2^16 each) so that a checkpoint of floats holds it exactly.
#[derive(Clone, Debug, Default)]
struct Count([f32; 2]);

impl Count {
    const HALF: usize = 1 << 16;

    fn get(&self) -> usize {
        self.0[0] as usize + Self::HALF * self.0[1] as usize
    }

    fn increase(&mut self) {
        let next = self.get() + 1;
        self.0 = [(next % Self::HALF) as f32, (next / Self::HALF) as f32];
    }

    fn state(&self, name: &str) -> (String, &[f32]) {
        (format!("steps/{name}"), &self.0)
    }

    fn state_mut(&mut self, name: &str) -> (String, &mut [f32]) {
        (format!("steps/{name}"), &mut self.0)
    }
}
