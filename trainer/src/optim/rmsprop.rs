//! Gradients divided by the root of their running square.

use kd_runtime::Result;

use super::{Optimizer, Rule, is_stepped, specs};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// Options of `rmsprop`.
pub static OPTIONS: &[Spec] = &[
    specs::lr(1e-2),
    Spec {
        name: "alpha",
        about: "share of the squared gradients' running mean that is kept each step",
        kind: Kind::Number { default: 0.99, range: Range::BelowOne },
    },
    specs::EPSILON,
    specs::momentum(0.0),
    Spec {
        name: "centered",
        about: "whether to divide by the deviation of the gradients instead",
        kind: Kind::Flag { default: false },
    },
    specs::COUPLED_DECAY,
];

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step<T> {
    /// Learning rate.
    pub lr: T,
    /// Of the running square (and mean).
    pub alpha: T,
    /// Added to the root.
    pub epsilon: T,
    /// Momentum; 0 for none.
    pub momentum: T,
    /// Weight decay.
    pub decay: T,
}

/// What one parameter keeps from step to step, each of its length, or empty.
#[derive(Debug, Default)]
pub struct State<T> {
    /// Running square.
    pub square: Buffer<T>,
    /// Running mean; empty unless centered.
    pub mean: Buffer<T>,
    /// Direction of the last step; empty without momentum.
    pub velocity: Buffer<T>,
}

impl<T: Real> State<T> {
    /// Zeros for `len` elements of a parameter, in its memory. Refused where a GPU has not enough.
    pub fn new(p: &Buffer<T>, len: usize, is_centered: bool, has_momentum: bool) -> Result<Self> {
        let zeros = |there: bool| p.beside(if there { len } else { 0 });
        Ok(Self { square: zeros(true)?, mean: zeros(is_centered)?, velocity: zeros(has_momentum)? })
    }
}

/// `g += decay · p; s = alpha s + (1 - alpha) g²; d = g / (√s + epsilon); p -= lr · d`. Centered the root is of `s - mean²`;
/// with momentum `v = momentum · v + d; p -= lr · v`.
///
/// Source: Tieleman, Hinton 2012 (Coursera, lecture 6.5); centered: Graves 2013 (arXiv 1308.0850) eq. 38-45; epsilon outside
/// the root, as torch's.
pub fn update<T: Real>(p: &mut [T], g: &[T], state: &mut State<T>, step: &Step<T>) {
    let State { square, mean, velocity } = state;
    let (square, mean, velocity) = (&mut square[..], &mut mean[..], &mut velocity[..]);
    let take = T::ONE - step.alpha;
    for (i, (p, &g)) in p.iter_mut().zip(g).enumerate() {
        let g = g + step.decay * *p;
        let square = &mut square[i];
        *square = (step.alpha * *square + take * g * g).flushed(T::SMALLEST);
        let mut variance = *square;
        if let Some(mean) = mean.get_mut(i) {
            *mean = (*mean + take * (g - *mean)).flushed(T::SMALLEST);
            variance -= *mean * *mean;
            // Rounding may leave less than nothing.
            if variance < T::ZERO {
                variance = T::ZERO;
            }
        }
        let mut direction = g / (variance.sqrt() + step.epsilon);
        if let Some(velocity) = velocity.get_mut(i) {
            *velocity = (step.momentum * *velocity + direction).flushed(T::SMALLEST);
            direction = *velocity;
        }
        *p -= step.lr * direction;
    }
}

struct RmsProp {
    lr: f64,
    decay: f64,
    step: Step<f32>,
    rules: Vec<Rule>,
    /// Name and state of each parameter; empty where it is not stepped.
    states: Vec<(String, State<f32>)>,
}

/// The optimizer `rmsprop`.
pub fn build(options: &Options, parameters: &[Parameter<f32>], rules: &[Rule]) -> Result<Box<dyn Optimizer>> {
    let (is_centered, momentum) = (options.flag("centered"), options.number("momentum"));
    let states = parameters.iter().zip(rules).map(|(p, rule)| {
        let len = if rule.is_stepped { p.value.len() } else { 0 };
        Ok((p.name.clone(), State::new(&p.value, len, is_centered, momentum != 0.0)?))
    });
    Ok(Box::new(RmsProp {
        lr: options.number("lr"),
        decay: options.number("weight_decay"),
        step: Step {
            lr: 0.0,
            alpha: options.number("alpha") as f32,
            epsilon: options.number("epsilon") as f32,
            momentum: momentum as f32,
            decay: 0.0,
        },
        rules: rules.to_vec(),
        states: states.collect::<Result<_>>()?,
    }))
}

impl Optimizer for RmsProp {
    fn step(&mut self, parameters: &mut [Parameter<f32>], _task: &[Buffer<f32>], moves: &[bool], lr_factor: f64) {
        for (i, (p, (_, state))) in parameters.iter_mut().zip(&mut self.states).enumerate() {
            if is_stepped(&self.rules, moves, i) {
                let rule = &self.rules[i];
                let lr = (self.lr * lr_factor * rule.lr_factor) as f32;
                let step = Step { lr, decay: rule.decay(self.decay) as f32, ..self.step };
                match p.value.gpu().cloned() {
                    Some(gpu) => gpu::optim::rmsprop(&gpu, &mut p.value, &p.gradient, state, &step),
                    None => update(&mut p.value, &p.gradient, state, &step),
                }
            }
        }
    }

    fn state(&self) -> Vec<(String, &[f32])> {
        let mut all: Vec<(String, &[f32])> = Vec::new();
        for (name, state) in &self.states {
            let arrays = [("square", &state.square), ("mean", &state.mean), ("velocity", &state.velocity)];
            let there = arrays.into_iter().filter(|(_, array)| !array.is_empty());
            all.extend(there.map(|(kind, array)| (format!("{kind}/{name}"), &array[..])));
        }
        all
    }

    fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let mut all: Vec<(String, &mut [f32])> = Vec::new();
        for (name, state) in &mut self.states {
            let State { square, mean, velocity } = state;
            let there = [("square", square), ("mean", mean), ("velocity", velocity)];
            let there = there.into_iter().filter(|(_, array)| !array.is_empty());
            all.extend(there.map(|(kind, array)| (format!("{kind}/{name}"), &mut array[..])));
        }
        all
    }
}
