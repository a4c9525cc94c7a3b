//! Adam, with weight decay apart from the gradient (`adamw`) or added to it (`adam`).

use kd_runtime::Result;

use super::{Count, Optimizer, Rule, is_stepped, specs};
use crate::exec::{Parameter, Real};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::pointwise::PIECE;
use crate::ops::kernels::rows::wide;
use crate::ops::kernels::threads;
use crate::options::{Kind, Options, Range, Spec};

const LR: Spec = specs::lr(1e-3);
const BETA_1: Spec = Spec {
    name: "beta1",
    about: "share of the gradients' running mean that is kept each step",
    kind: Kind::Number { default: 0.9, range: Range::BelowOne },
};
const BETA_2: Spec = Spec {
    name: "beta2",
    about: "share of the squared gradients' running mean that is kept each step",
    kind: Kind::Number { default: 0.999, range: Range::BelowOne },
};

/// Options of `adamw`.
pub static OPTIONS: &[Spec] = &[
    LR,
    BETA_1,
    BETA_2,
    specs::EPSILON,
    Spec {
        name: "weight_decay",
        about: "times the learning rate: the share of the parameter that each step takes away",
        kind: Kind::Number { default: 0.01, range: Range::NotNegative },
    },
];

/// Options of `adam`.
pub static COUPLED_OPTIONS: &[Spec] = &[LR, BETA_1, BETA_2, specs::EPSILON, specs::COUPLED_DECAY];

/// Weight decay, and where it acts.
#[derive(Clone, Copy, Debug)]
pub enum Decay {
    /// On the parameter (AdamW).
    Apart(f64),
    /// On the gradient (Adam).
    Coupled(f64),
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step<T> {
    /// `1 - lr · decay`; 1 where the decay is coupled.
    pub keep: T,
    /// Times the parameter, added to its gradient: the decay where it is coupled, else 0.
    pub coupled: T,
    /// `lr / (1 - beta1^t)`.
    pub size: T,
    /// `sqrt(1 - beta2^t)`.
    pub root: T,
    /// Of the running mean.
    pub beta1: T,
    /// Of the running square.
    pub beta2: T,
    /// Added to the root.
    pub epsilon: T,
}

impl<T: Real> Step<T> {
    /// Step `t`, counted from 1. Everything is computed in f64 first.
    pub fn new(lr: f64, betas: [f64; 2], epsilon: f64, decay: Decay, t: usize) -> Self {
        let t = i32::try_from(t).unwrap_or(i32::MAX);
        let (keep, coupled) = match decay {
            Decay::Apart(decay) => (1.0 - lr * decay, 0.0),
            Decay::Coupled(decay) => (1.0, decay),
        };
        Self {
            keep: T::from_f64(keep),
            coupled: T::from_f64(coupled),
            size: T::from_f64(lr / (1.0 - betas[0].powi(t))),
            root: T::from_f64((1.0 - betas[1].powi(t)).sqrt()),
            beta1: T::from_f64(betas[0]),
            beta2: T::from_f64(betas[1]),
            epsilon: T::from_f64(epsilon),
        }
    }
}

/// `g += coupled · p; p *= 1 - lr · decay; m += (1 - beta1)(g - m); v = beta2 v + (1 - beta2) g²; p -= size · m / (√v / root + epsilon)`.
///
/// What decays to less than any float of full precision is 0: where there is no gradient any more, denormal numbers would stay
/// for good, and take their time at each step.
///
/// Source: Kingma, Ba 2015 (arXiv 1412.6980); Loshchilov, Hutter 2019 (arXiv 1711.05101); epsilon outside the root and the corrections as torch's.
pub fn update<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], step: &Step<T>) {
    let (one_1, one_2) = (T::ONE - step.beta1, T::ONE - step.beta2);
    // One division: both sides of the fraction times `root`.
    let (size, epsilon) = (step.size * step.root, step.epsilon * step.root);
    let step = *step;
    // Of a smaller gradient the square's share would be denormal.
    let least = (T::SMALLEST / one_2).sqrt();
    threads::chunks3([p, m, v], PIECE, |i, [p, m, v]| {
        wide(move || {
            for (((p, &g), m), v) in p.iter_mut().zip(&g[i * PIECE..]).zip(m).zip(v) {
                let g = g + step.coupled * *p;
                *m = (*m + one_1 * (g - *m)).flushed(T::SMALLEST);
                let g = g.flushed(least);
                *v = (step.beta2 * *v + one_2 * g * g).flushed(T::SMALLEST);
                *p = *p * step.keep - size * *m / (v.sqrt() + epsilon);
            }
        });
    });
}

struct AdamW {
    lr: f64,
    betas: [f64; 2],
    epsilon: f64,
    decay: f64,
    is_coupled: bool,
    rules: Vec<Rule>,
    /// Of each parameter.
    moments: Vec<Moments>,
}

/// What is kept of a parameter: its steps, and running mean and square, empty where it is never stepped.
struct Moments {
    name: String,
    count: Count,
    mean: Buffer<f32>,
    square: Buffer<f32>,
}

/// The optimizer `adamw`.
pub fn build(options: &Options, parameters: &[Parameter<f32>], rules: &[Rule]) -> Result<Box<dyn Optimizer>> {
    adam(options, parameters, rules, false)
}

/// The optimizer `adam`.
pub fn build_coupled(options: &Options, parameters: &[Parameter<f32>], rules: &[Rule]) -> Result<Box<dyn Optimizer>> {
    adam(options, parameters, rules, true)
}

fn adam(
    options: &Options,
    parameters: &[Parameter<f32>],
    rules: &[Rule],
    is_coupled: bool,
) -> Result<Box<dyn Optimizer>> {
    let moments = parameters.iter().zip(rules).map(|(p, rule)| {
        let len = if rule.is_stepped { p.value.len() } else { 0 };
        let (mean, square) = (p.value.beside(len)?, p.value.beside(len)?);
        Ok(Moments { name: p.name.clone(), count: Count::default(), mean, square })
    });
    Ok(Box::new(AdamW {
        lr: options.number("lr"),
        betas: [options.number("beta1"), options.number("beta2")],
        epsilon: options.number("epsilon"),
        decay: options.number("weight_decay"),
        is_coupled,
        rules: rules.to_vec(),
        moments: moments.collect::<Result<_>>()?,
    }))
}

impl Optimizer for AdamW {
    fn step(&mut self, parameters: &mut [Parameter<f32>], _task: &[Buffer<f32>], moves: &[bool], lr_factor: f64) {
        for (i, (p, kept)) in parameters.iter_mut().zip(&mut self.moments).enumerate() {
            if is_stepped(&self.rules, moves, i) {
                let (Moments { count, mean, square, .. }, rule) = (kept, &self.rules[i]);
                count.increase();
                let lr = self.lr * lr_factor * rule.lr_factor;
                let decay = rule.decay(self.decay);
                let decay = if self.is_coupled { Decay::Coupled(decay) } else { Decay::Apart(decay) };
                let step = Step::new(lr, self.betas, self.epsilon, decay, count.get());
                match p.value.gpu().cloned() {
                    Some(gpu) => crate::gpu::optim::adam(&gpu, &mut p.value, &p.gradient, mean, square, &step),
                    None => update(&mut p.value, &p.gradient, mean, square, &step),
                }
            }
        }
    }

    fn state(&self) -> Vec<(String, &[f32])> {
        let mut state: Vec<(String, &[f32])> = Vec::new();
        for Moments { name, count, mean, square } in self.moments.iter().filter(|kept| !kept.mean.is_empty()) {
            state.extend([count.state(name), (format!("mean/{name}"), mean), (format!("square/{name}"), square)]);
        }
        state
    }

    fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let mut state: Vec<(String, &mut [f32])> = Vec::new();
        for Moments { name, count, mean, square } in self.moments.iter_mut().filter(|kept| !kept.mean.is_empty()) {
            state.extend([count.state_mut(name), (format!("mean/{name}"), mean), (format!("square/{name}"), square)]);
        }
        state
    }
}
