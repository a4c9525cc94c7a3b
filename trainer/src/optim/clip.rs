//! Clipping of gradients.

use kd_runtime::Result;

use crate::exec::{Parameter, Real};
use crate::gpu::{self, Gpu};
use crate::ops::kernels::buffer::Buffer;

/// Brings every element of the gradients of all trained parameters into `-most..=most`, as torch's `clip_grad_value_`.
///
/// `task` as [`global_norm`] has it: both parts of an element are scaled so that their sum is in there.
pub fn values<T: Real>(parameters: &mut [Parameter<T>], task: &mut [Buffer<T>], most: T) {
    let cut = |g: &mut T| {
        if *g > most {
            *g = most;
        } else if *g < -most {
            *g = -most;
        }
    };
    let share = |g: &mut T, t: &mut T| {
        let sum = *g + *t;
        let size = if sum < T::ZERO { -sum } else { sum };
        if size > most {
            (*g, *t) = (*g * (most / size), *t * (most / size));
        }
    };
    for (i, p) in parameters.iter_mut().enumerate().filter(|(_, p)| p.role.is_trained()) {
        match task.get_mut(i).filter(|task| !task.is_empty()) {
            Some(task) => p.gradient.iter_mut().zip(&mut **task).for_each(|(g, t)| share(g, t)),
            None => p.gradient.iter_mut().for_each(cut),
        }
    }
}

/// Scales the gradients of all trained parameters so that their common 2-norm is at most `most`; gives the norm before.
/// The factor is `min(1, most / (norm + 1e-6))`, as torch's `clip_grad_norm_`. A norm that is not finite changes nothing.
///
/// `task` is empty, or holds a part of the gradient that the parameters' own does not: the norm is that of the sums, and
/// both parts are scaled.
pub fn global_norm<T: Real>(parameters: &mut [Parameter<T>], task: &mut [Buffer<T>], most: T) -> T {
    let mut total = 0.0;
    for (i, p) in parameters.iter().enumerate().filter(|(_, p)| p.role.is_trained()) {
        let own = p.gradient.iter().map(|g| g.to_f64());
        total += match task.get(i).filter(|task| !task.is_empty()) {
            Some(task) => own.zip(&**task).map(|(g, t)| (g + t.to_f64()) * (g + t.to_f64())).sum::<f64>(),
            None => own.map(|g| g * g).sum::<f64>(),
        };
    }
    let norm = T::from_f64(total.sqrt());
    let factor = most / (norm + T::from_f64(1e-6));
    if norm.is_finite() && factor < T::ONE {
        let own = parameters.iter_mut().filter(|p| p.role.is_trained()).map(|p| &mut p.gradient[..]);
        own.chain(task.iter_mut().map(|task| &mut task[..]))
            .for_each(|part| part.iter_mut().for_each(|g| *g *= factor));
    }
    norm
}

/// Both, on a GPU.
pub struct OnGpu {
    gpu: Gpu,
    length: gpu::optim::Length,
}

impl OnGpu {
    /// For these parameters, all of which lie there. Refused where it has not enough memory.
    pub fn new(gpu: &Gpu, parameters: &[Parameter<f32>]) -> Result<Self> {
        let trained = parameters.iter().filter(|p| p.role.is_trained());
        Ok(Self { gpu: gpu.clone(), length: gpu::optim::Length::new(gpu, trained.map(|p| p.gradient.len()))? })
    }

    /// As [`values`].
    pub fn values(&self, parameters: &mut [Parameter<f32>], task: &mut [Buffer<f32>], most: f32) {
        parts(parameters, task).for_each(|parts| gpu::optim::clip_values(&self.gpu, parts, most));
    }

    /// As [`global_norm`]; the norm stays there.
    pub fn global_norm(&mut self, parameters: &mut [Parameter<f32>], task: &mut [Buffer<f32>], most: f32) {
        let mut parts: Vec<_> = parts(parameters, task).collect();
        self.length.clip(&self.gpu, &mut parts, most);
    }
}

/// The gradients of trained parameters, each with its part that lies in `task`.
fn parts<'a>(
    parameters: &'a mut [Parameter<f32>],
    task: &'a mut [Buffer<f32>],
) -> impl Iterator<Item = gpu::optim::Parts<'a>> {
    let task = task.iter_mut().map(Some).chain(std::iter::repeat_with(|| None));
    let both = parameters.iter_mut().zip(task).filter(|(p, _)| p.role.is_trained());
    both.map(|(p, task)| (&mut p.gradient, task.filter(|task| !task.is_empty())))
}
