//! Steps of optimizers on a GPU, each the update of its namesake in [`crate::optim`]. All arrays lie in its memory.

use super::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::optim::{adamw, sgd};

type Array = Buffer<f32>;

/// As [`sgd::update`]; `velocity` is empty without momentum.
pub fn sgd(gpu: &Gpu, p: &mut Array, g: &Array, velocity: &mut Array, step: &sgd::Step<f32>) {
    let (keep, take) = if step.first { (0.0, 1.0) } else { (step.momentum, 1.0 - step.dampening) };
    let (p, g, velocity) = (p.raw_mut(), g.raw(), velocity.raw_mut());
    let n = p.len();
    assert!(g.len() == n && (velocity.len() == n || velocity.is_empty()), "arrays of one parameter");
    let args = Args::none().read(g).write(p).write(velocity).number(n).flag(step.nesterov);
    let args = args.float(step.lr).float(keep).float(take).float(step.decay).float(step.momentum);
    // SAFETY: sgd: arrays of n elements.
    unsafe { gpu.each("sgd", n, &args) };
}

/// As [`adamw::update`].
pub fn adam(gpu: &Gpu, p: &mut Array, g: &Array, m: &mut Array, v: &mut Array, step: &adamw::Step<f32>) {
    let (p, g, m, v) = (p.raw_mut(), g.raw(), m.raw_mut(), v.raw_mut());
    let n = p.len();
    assert!([g.len(), m.len(), v.len()] == [n; 3], "arrays of one parameter");
    let args = Args::none().read(g).write(p).write(m).write(v).number(n).float(step.keep).float(step.coupled);
    let args = args.float(step.size * step.root).float(step.epsilon * step.root).float(step.beta1).float(step.beta2);
    // SAFETY: adam: arrays of n elements.
    unsafe { gpu.each("adam", n, &args) };
}
