//! Piecewise linear functions. At the corners the gradient is torch's: relu'(0) = 0, leaky_relu'(0) = alpha, clip' = 1
//! at the bounds.

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

/// `y = x` above 0, `slope * x` else (`slope >= 0`, so the output tells which).
struct Bent<T> {
    slope: T,
}

/// The kernel of a Relu node.
pub fn relu<T: Real>(_op: &ops::relu::Relu, _site: &Site<'_>) -> Built<T> {
    Ok(Box::new(Bent { slope: T::ZERO }))
}

/// The kernel of a LeakyRelu node.
pub fn leaky_relu<T: Real>(op: &ops::relu::LeakyRelu, _site: &Site<'_>) -> Built<T> {
    if !(op.alpha >= 0.0 && op.alpha.is_finite()) {
        return Err(OpError::new("alpha of 0 or more to be trained through", op.alpha));
    }
    Ok(Box::new(Bent { slope: T::from_f32(op.alpha) }))
}

impl<T: Real> Bent<T> {
    #[inline]
    fn value(slope: T, x: T) -> T {
        // A NaN passes, so that a loss which is not finite is noticed.
        if slope == T::ZERO {
            if x <= T::ZERO { T::ZERO } else { x }
        } else if x <= T::ZERO {
            x * slope
        } else {
            x
        }
    }
}

impl<T: Real> Kernel<T> for Bent<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let slope = self.slope;
        pointwise::map(y, x.get(0), move |x| Self::value(slope, x));
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
            pointwise::combine(d, add, y, d_y, move |y, d| d * if y > T::ZERO { T::ONE } else { slope });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }

    fn in_place(&self) -> bool {
        true
    }

    fn forward_in_place(&mut self, _x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let slope = self.slope;
        pointwise::update(y, move |x| Self::value(slope, x));
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, T>,
        y: &[T],
        d: &mut [T],
        _d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let slope = self.slope;
        pointwise::update_with(d, y, move |d, y| d * if y > T::ZERO { T::ONE } else { slope });
    }
}

struct Clip<T> {
    low: Option<T>,
    high: Option<T>,
}

/// The kernel of a Clip node; its bounds are constants.
pub fn clip<T: Real>(_op: &ops::relu::Clip, site: &Site<'_>) -> Built<T> {
    let low = site.scalar(1, "a lower bound")?.map(T::from_f32);
    let high = site.scalar(2, "an upper bound")?.map(T::from_f32);
    Ok(Box::new(Clip { low, high }))
}

impl<T: Real> Kernel<T> for Clip<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (low, high) = (self.low, self.high);
        pointwise::map(y, x.get(0), move |x| {
            let x = low.map_or(x, |low| if x < low { low } else { x });
            high.map_or(x, |high| if x > high { high } else { x })
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let (low, high) = (self.low, self.high);
        if let Some((d, add)) = d_x[0].target() {
            pointwise::combine(d, add, x.get(0), d_y, move |x, d| {
                let outside = low.is_some_and(|low| x < low) || high.is_some_and(|high| x > high);
                if outside { T::ZERO } else { d }
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, true)])
    }
}
