//! Saturating functions, whose gradient is a function of their output.

use kd_runtime::ops;

use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct Gate<T> {
    value: fn(T) -> T,
    slope: fn(T) -> T,
}

/// The kernel of a Sigmoid node: `y' = y (1 - y)`.
pub fn sigmoid<T: Real>(_op: &ops::gate::Sigmoid, _site: &Site<'_>) -> Built<T> {
    Ok(Box::new(Gate { value: logistic, slope: |y| y * (T::ONE - y) }))
}

/// `1 / (1 + e^-x)`.
pub fn logistic<T: Real>(x: T) -> T {
    // e^-|x| cannot overflow.
    let e = (-x.abs()).exp();
    if x >= T::ZERO { T::ONE / (T::ONE + e) } else { e / (T::ONE + e) }
}

/// The kernel of a Tanh node: `y' = 1 - y²`.
pub fn tanh<T: Real>(_op: &ops::gate::Tanh, _site: &Site<'_>) -> Built<T> {
    Ok(Box::new(Gate { value: T::tanh, slope: |y| (T::ONE - y) * (T::ONE + y) }))
}

impl<T: Real> Kernel<T> for Gate<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        pointwise::map(y, x.get(0), self.value);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let slope = self.slope;
        if let Some((d, add)) = d_x[0].target() {
            pointwise::combine(d, add, y, d_y, |y, d| d * slope(y));
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }
}
