//! Steps of optimizers on a GPU, each the update of its namesake in [`crate::optim`]. All arrays lie in its memory.

use super::{Args, Gpu};
use crate::optim::{adamw, sgd};

/// As [`sgd::update`]; `velocity` is empty without momentum.
pub fn sgd(gpu: &Gpu, p: &mut [f32], g: &[f32], velocity: &mut [f32], step: &sgd::Step<f32>) {
    let (keep, take) = if step.first { (0.0, 1.0) } else { (step.momentum, 1.0 - step.dampening) };
    let n = p.len();
    assert!(g.len() == n && (velocity.len() == n || velocity.is_empty()), "arrays of one parameter");
    let args = Args::new().read(g).write(p).write(velocity).number(n).flag(step.nesterov);
    let args = args.float(step.lr).float(keep).float(take).float(step.decay).float(step.momentum);
    // SAFETY: sgd: arrays of n elements.
    unsafe { gpu.each("sgd", n, &args) };
}

/// As [`adamw::update`].
pub fn adam(gpu: &Gpu, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &adamw::Step<f32>) {
    let n = p.len();
    assert!([g.len(), m.len(), v.len()] == [n; 3], "arrays of one parameter");
    let args = Args::new().read(g).write(p).write(m).write(v).number(n).float(step.keep).float(step.coupled);
    let args = args.float(step.size * step.root).float(step.epsilon * step.root).float(step.beta1).float(step.beta2);
    // SAFETY: adam: arrays of n elements.
    unsafe { gpu.each("adam", n, &args) };
}
