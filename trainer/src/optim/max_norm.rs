//! The max-norm constraint: no unit's incoming weights are longer than a limit.

use crate::exec::{Parameter, Role};
use crate::gpu;

/// Shortens the incoming weights of every unit whose 2-norm exceeds `most` to that length. Only [`Role::Weight`] counts;
/// `unit_axes` says along which axis the units of each parameter lie
/// ([`Executor::unit_axes`](crate::exec::Executor::unit_axes)). To be called after each optimizer step.
///
/// Source: Srivastava et al. 2014 (JMLR 15) §5.1, as used by Hinton, Vinyals, Dean 2015 §3 with dropout.
pub fn constrain(parameters: &mut [Parameter<f32>], unit_axes: &[usize], most: f32) {
    for (p, &axis) in parameters.iter_mut().zip(unit_axes) {
        if p.role != Role::Weight || axis >= p.shape.len() {
            continue;
        }
        if let Some(gpu) = p.value.gpu().cloned() {
            gpu::optim::max_norm(&gpu, &mut p.value, &p.shape, axis, most);
            continue;
        }
        let units = p.shape[axis];
        let inner: usize = p.shape[axis + 1..].iter().product();
        let block = units * inner;
        for unit in 0..units {
            let starts = (unit * inner..p.value.len()).step_by(block.max(1));
            let squares: f64 =
                (starts.clone().flat_map(|at| &p.value[at..at + inner])).map(|&w| f64::from(w) * f64::from(w)).sum();
            let norm = squares.sqrt();
            if norm.is_finite() && norm > f64::from(most) {
                let factor = (f64::from(most) / norm) as f32;
                starts.for_each(|at| p.value[at..at + inner].iter_mut().for_each(|w| *w *= factor));
            }
        }
    }
}
