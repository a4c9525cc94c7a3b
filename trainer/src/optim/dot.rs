//! The distillation-oriented trainer: one momentum for the task's gradient, a larger one for that of the teachers.

use kd_runtime::Result;

use super::{Optimizer, Rule, is_stepped, sgd, specs};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::pointwise::PIECE;
use crate::ops::kernels::rows::wide;
use crate::ops::kernels::threads;
use crate::options::{Kind, Options, Range, Spec};

/// Options of `dot`.
pub static OPTIONS: &[Spec] = &[
    specs::lr(0.05),
    Spec {
        name: "task_momentum",
        about: "share of the last direction of the task's loss that is kept: the paper's `momentum - delta`",
        kind: Kind::Number { default: 0.825, range: Range::BelowOne },
    },
    Spec {
        name: "distill_momentum",
        about: "share of the last direction of the other terms that is kept: the paper's `momentum + delta`",
        kind: Kind::Number { default: 0.975, range: Range::BelowOne },
    },
    Spec {
        name: "weight_decay",
        about: "times the parameter, added to the task's gradient",
        kind: Kind::Number { default: 5e-4, range: Range::NotNegative },
    },
];

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step<T> {
    /// Learning rate.
    pub lr: T,
    /// Momentum of the task's direction, and of the other terms'.
    pub momenta: [T; 2],
    /// Weight decay.
    pub decay: T,
}

/// `v_task = m_task · v_task + g_task + decay · p; v_distill = m_distill · v_distill + g_distill;
/// p -= lr · (v_task + v_distill)`; `g` and `v` hold the task's and then the other terms'.
///
/// Source: Zhao, Cui, Song, Liang 2023 (Distillation-Oriented Trainer, ICCV) §4, whose decay enters the task's gradient
/// alone.
pub fn update<T: Real>(p: &mut [T], g: [&[T]; 2], v: [&mut [T]; 2], step: &Step<T>) {
    let Step { lr, momenta: [m_task, m_distill], decay } = *step;
    let [v_task, v_distill] = v;
    threads::chunks3([p, v_task, v_distill], PIECE, |i, [p, v_task, v_distill]| {
        wide(move || {
            let gradients = g[0][i * PIECE..].iter().zip(&g[1][i * PIECE..]);
            for (((p, (&g_task, &g_distill)), v_task), v_distill) in
                p.iter_mut().zip(gradients).zip(v_task).zip(v_distill)
            {
                *v_task = (m_task * *v_task + g_task + decay * *p).flushed(T::SMALLEST);
                *v_distill = (m_distill * *v_distill + g_distill).flushed(T::SMALLEST);
                *p -= lr * (*v_task + *v_distill);
            }
        });
    });
}

struct Dot {
    lr: f64,
    momenta: [f32; 2],
    decay: f64,
    rules: Vec<Rule>,
    /// Name, velocity of the task's and of the other terms' directions of each parameter; empty where it is not stepped.
    velocities: Vec<(String, Buffer<f32>, Buffer<f32>)>,
}

/// The optimizer `dot`.
pub fn build(options: &Options, parameters: &[Parameter<f32>], rules: &[Rule]) -> Result<Box<dyn Optimizer>> {
    let velocities = parameters.iter().zip(rules).map(|(p, rule)| {
        let len = if rule.is_stepped { p.value.len() } else { 0 };
        Ok((p.name.clone(), p.value.beside(len)?, p.value.beside(len)?))
    });
    Ok(Box::new(Dot {
        lr: options.number("lr"),
        momenta: ["task_momentum", "distill_momentum"].map(|name| options.number(name) as f32),
        decay: options.number("weight_decay"),
        rules: rules.to_vec(),
        velocities: velocities.collect::<Result<_>>()?,
    }))
}

impl Optimizer for Dot {
    /// A parameter that has no gradient of the task (an adapter; every one where the labels, or teachers, are all that is
    /// learned from) is stepped as by `sgd`, with the mean of both momenta, as in the authors' code.
    fn step(&mut self, parameters: &mut [Parameter<f32>], task: &[Buffer<f32>], moves: &[bool], lr_factor: f64) {
        let states = self.velocities.iter_mut().zip(&self.rules);
        for (i, (p, ((_, v_task, v_distill), rule))) in parameters.iter_mut().zip(states).enumerate() {
            if !is_stepped(&self.rules, moves, i) {
                continue;
            }
            let (lr, decay) = ((self.lr * lr_factor * rule.lr_factor) as f32, rule.decay(self.decay) as f32);
            let gpu = p.value.gpu().cloned();
            match task.get(i).filter(|task| !task.is_empty()) {
                Some(task) => {
                    let step = Step { lr, momenta: self.momenta, decay };
                    match gpu {
                        Some(gpu) => {
                            gpu::optim::dot(&gpu, &mut p.value, [task, &p.gradient], [v_task, v_distill], &step);
                        }
                        None => update(&mut p.value, [task, &p.gradient], [v_task, v_distill], &step),
                    }
                }
                None => {
                    let momentum = (self.momenta[0] + self.momenta[1]) / 2.0;
                    let step = sgd::Step { lr, momentum, dampening: 0.0, nesterov: false, decay, first: false };
                    match gpu {
                        Some(gpu) => gpu::optim::sgd(&gpu, &mut p.value, &p.gradient, v_distill, &step),
                        None => sgd::update(&mut p.value, &p.gradient, v_distill, &step),
                    }
                }
            }
        }
    }

    fn state(&self) -> Vec<(String, &[f32])> {
        let kept = self.velocities.iter().filter(|(_, v, _)| !v.is_empty());
        kept.flat_map(|(name, task, distill)| {
            [(format!("task/{name}"), &task[..]), (format!("distill/{name}"), &distill[..])]
        })
        .collect()
    }

    fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let kept = self.velocities.iter_mut().filter(|(_, v, _)| !v.is_empty());
        kept.flat_map(|(name, task, distill)| {
            [(format!("task/{name}"), &mut task[..]), (format!("distill/{name}"), &mut distill[..])]
        })
        .collect()
    }
}
