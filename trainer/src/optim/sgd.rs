//! Stochastic gradient descent with momentum.

use kd_runtime::Result;

use super::{Count, Optimizer, Rule, is_stepped, specs};
use crate::exec::{Parameter, Real};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::pointwise::PIECE;
use crate::ops::kernels::rows::wide;
use crate::ops::kernels::threads;
use crate::options::{Kind, Options, Range, Spec};

/// Options of `sgd`.
pub static OPTIONS: &[Spec] = &[
    specs::lr(0.1),
    specs::momentum(0.9),
    Spec { name: "nesterov", about: "whether to look ahead", kind: Kind::Flag { default: false } },
    Spec {
        name: "dampening",
        about: "share of the gradient that does not enter the momentum",
        kind: Kind::Number { default: 0.0, range: Range::Share },
    },
    specs::COUPLED_DECAY,
];

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step<T> {
    /// Learning rate.
    pub lr: T,
    /// Momentum; 0 for none.
    pub momentum: T,
    /// Dampening.
    pub dampening: T,
    /// Whether to look ahead.
    pub nesterov: bool,
    /// Weight decay.
    pub decay: T,
    /// Whether it is the first step, which is not dampened.
    pub first: bool,
}

/// `g += decay · p; v = momentum · v + (1 - dampening) · g; p -= lr · v` (with Nesterov `p -= lr · (g + momentum · v)`), as
/// torch: the first step sets `v = g`. `velocity` is empty without momentum; it does not end in denormal numbers.
pub fn update<T: Real>(p: &mut [T], g: &[T], velocity: &mut [T], step: &Step<T>) {
    let Step { lr, momentum, dampening, nesterov, decay, first } = *step;
    if momentum == T::ZERO {
        return threads::chunks(p, PIECE, |i, p| {
            wide(move || p.iter_mut().zip(&g[i * PIECE..]).for_each(|(p, &g)| *p -= lr * (g + decay * *p)));
        });
    }
    let (keep, take) = if first { (T::ZERO, T::ONE) } else { (momentum, T::ONE - dampening) };
    threads::pairs((p, PIECE), (velocity, PIECE), |i, p, velocity| {
        wide(move || {
            for ((p, &g), v) in p.iter_mut().zip(&g[i * PIECE..]).zip(velocity) {
                let g = g + decay * *p;
                *v = (keep * *v + take * g).flushed(T::SMALLEST);
                *p -= lr * if nesterov { g + momentum * *v } else { *v };
            }
        });
    });
}

struct Sgd {
    lr: f64,
    decay: f64,
    step: Step<f32>,
    rules: Vec<Rule>,
    /// Name, steps and velocity of each parameter; empty where it is not stepped, and without momentum.
    velocities: Vec<(String, Count, Buffer<f32>)>,
}

/// The optimizer `sgd`.
pub fn build(options: &Options, parameters: &[Parameter<f32>], rules: &[Rule]) -> Result<Box<dyn Optimizer>> {
    let momentum = options.number("momentum") as f32;
    let velocities = parameters.iter().zip(rules).map(|(p, rule)| {
        let len = if momentum != 0.0 && rule.is_stepped { p.value.len() } else { 0 };
        Ok((p.name.clone(), Count::default(), p.value.beside(len)?))
    });
    Ok(Box::new(Sgd {
        lr: options.number("lr"),
        decay: options.number("weight_decay"),
        step: Step {
            lr: 0.0,
            momentum,
            dampening: options.number("dampening") as f32,
            nesterov: options.flag("nesterov"),
            decay: 0.0,
            first: true,
        },
        rules: rules.to_vec(),
        velocities: velocities.collect::<Result<_>>()?,
    }))
}

impl Optimizer for Sgd {
    fn step(&mut self, parameters: &mut [Parameter<f32>], _task: &[Buffer<f32>], moves: &[bool], lr_factor: f64) {
        for (i, (p, (_, count, velocity))) in parameters.iter_mut().zip(&mut self.velocities).enumerate() {
            if is_stepped(&self.rules, moves, i) {
                let (rule, first) = (&self.rules[i], count.get() == 0);
                count.increase();
                let (lr, decay) = ((self.lr * lr_factor * rule.lr_factor) as f32, rule.decay(self.decay) as f32);
                let step = Step { lr, decay, first, ..self.step };
                match p.value.gpu().cloned() {
                    Some(gpu) => crate::gpu::optim::sgd(&gpu, &mut p.value, &p.gradient, velocity, &step),
                    None => update(&mut p.value, &p.gradient, velocity, &step),
                }
            }
        }
    }

    fn state(&self) -> Vec<(String, &[f32])> {
        let kept = self.velocities.iter().filter(|(_, _, v)| !v.is_empty());
        kept.flat_map(|(name, count, v)| [count.state(name), (format!("velocity/{name}"), &v[..])]).collect()
    }

    fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let kept = self.velocities.iter_mut().filter(|(_, _, v)| !v.is_empty());
        kept.flat_map(|(name, count, v)| [count.state_mut(name), (format!("velocity/{name}"), &mut v[..])]).collect()
    }
}
