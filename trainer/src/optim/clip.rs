//! Clipping of gradients.

use crate::exec::{Parameter, Real};

/// Scales the gradients of all trained parameters so that their common 2-norm is at most `most`; gives the norm before.
/// The factor is `min(1, most / (norm + 1e-6))`, as torch's `clip_grad_norm_`. A norm that is not finite changes nothing.
pub fn global_norm<T: Real>(parameters: &mut [Parameter<T>], most: T) -> T {
    let mut total = 0.0;
    for p in parameters.iter().filter(|p| p.role.is_trained()) {
        total += p.gradient.iter().map(|g| g.to_f64() * g.to_f64()).sum::<f64>();
    }
    let norm = T::from_f64(total.sqrt());
    let factor = most / (norm + T::from_f64(1e-6));
    if norm.is_finite() && factor < T::ONE {
        for p in parameters.iter_mut().filter(|p| p.role.is_trained()) {
            p.gradient.iter_mut().for_each(|g| *g *= factor);
        }
    }
    norm
}
