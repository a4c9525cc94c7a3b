//! Smooth and piecewise activations, whose gradient is a function of their input. At corners it is torch's:
//! hardswish'(-3) = 0 and hardswish'(3) = 1, hardsigmoid' = 0 where it saturates, elu'(0) = alpha.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI, SQRT_2};

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

/// `y = value(x)`, `d_x = d_y slope(x)`.
struct Function<V, S> {
    value: V,
    slope: S,
}

/// The kernel of a function of each element.
fn function<T: Real>(
    value: impl Fn(T) -> T + Copy + Send + Sync + 'static,
    slope: impl Fn(T) -> T + Copy + Send + Sync + 'static,
) -> Built<T> {
    Ok(Box::new(Function { value, slope }))
}

impl<T, V, S> Kernel<T> for Function<V, S>
where
    T: Real,
    V: Fn(T) -> T + Copy + Send + Sync,
    S: Fn(T) -> T + Copy + Send + Sync,
{
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        pointwise::map(y, x.get(0), self.value);
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let slope = self.slope;
        if let Some((d, add)) = d_x[0].target() {
            pointwise::combine(d, add, x.get(0), d_y, move |x, d| d * slope(x));
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, true)])
    }
}

/// The kernel of an Elu node.
pub fn elu<T: Real>(op: &ops::activation::Elu, _site: &Site<'_>) -> Built<T> {
    let alpha = T::from_f32(op.alpha);
    function(
        move |x: T| if x > T::ZERO { x } else { alpha * (x.exp() - T::ONE) },
        move |x| if x > T::ZERO { T::ONE } else { alpha * x.exp() },
    )
}

/// The kernel of a Gelu node: `y = x Φ(x)`, `y' = Φ(x) + x φ(x)`; or of its approximation by tanh.
pub fn gelu<T: Real>(op: &ops::activation::Gelu, _site: &Site<'_>) -> Built<T> {
    let half = T::from_f64(0.5);
    if op.tanh {
        let (scale, cubic) = (T::from_f64(SQRT_2 / PI.sqrt()), T::from_f64(0.044715));
        let gate = move |x: T| (scale * (x + cubic * x * x * x)).tanh();
        return function(
            move |x: T| half * x * (T::ONE + gate(x)),
            move |x| {
                let t = gate(x);
                let inner = scale * (T::ONE + T::from_f64(3.0) * cubic * x * x);
                half * (T::ONE + t) + half * x * (T::ONE - t * t) * inner
            },
        );
    }
    let root = T::from_f64(FRAC_1_SQRT_2);
    let density = T::from_f64(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    let phi = move |x: T| half * (T::ONE + (x * root).erf());
    function(move |x: T| x * phi(x), move |x| phi(x) + x * density * (-half * x * x).exp())
}

/// The kernel of a HardSigmoid node.
pub fn hard_sigmoid<T: Real>(op: &ops::activation::HardSigmoid, _site: &Site<'_>) -> Built<T> {
    let (alpha, beta) = (T::from_f32(op.alpha), T::from_f32(op.beta));
    function(
        move |x: T| clamped(alpha * x + beta),
        move |x| {
            let y = alpha * x + beta;
            if y > T::ZERO && y < T::ONE { alpha } else { T::ZERO }
        },
    )
}

/// Between 0 and 1; a NaN passes, so that a loss which is not finite is noticed.
fn clamped<T: Real>(x: T) -> T {
    if x < T::ZERO {
        T::ZERO
    } else if x > T::ONE {
        T::ONE
    } else {
        x
    }
}

/// The kernel of a HardSwish node.
pub fn hard_swish<T: Real>(_op: &ops::activation::HardSwish, _site: &Site<'_>) -> Built<T> {
    let (three, six, half) = (T::from_f64(3.0), T::from_f64(6.0), T::from_f64(0.5));
    function(
        move |x: T| x * clamped(x / six + half),
        move |x| {
            if x <= -three {
                T::ZERO
            } else if x < three {
                x / three + half
            } else {
                T::ONE
            }
        },
    )
}

/// The kernel of a Softplus node: `y' = 1 / (1 + e^-x)`.
pub fn softplus<T: Real>(_op: &ops::activation::Softplus, _site: &Site<'_>) -> Built<T> {
    function(|x: T| (if x > T::ZERO { x } else { T::ZERO }) + (-x.abs()).exp().ln_1p(), super::gate::logistic)
}

/// The kernel of an Erf node: `y' = 2/√π e^(-x²)`.
pub fn erf<T: Real>(_op: &ops::power::Erf, _site: &Site<'_>) -> Built<T> {
    let factor = T::from_f64(FRAC_2_SQRT_PI);
    function(T::erf, move |x| factor * (-x * x).exp())
}

/// The kernel of a Sqrt node: `y' = 1 / (2 √x)`.
pub fn sqrt<T: Real>(_op: &ops::power::Sqrt, _site: &Site<'_>) -> Built<T> {
    let half = T::from_f64(0.5);
    function(T::sqrt, move |x| half / x.sqrt())
}

/// The exponent of a Pow node.
pub fn exponent(site: &Site<'_>) -> Result<f64, OpError> {
    let exponent = site.port(1).and_then(|port| port.value).filter(|value| value.len() == 1).and_then(|value| {
        let float = value.get::<f32>().map(|p| f64::from(p[0]));
        let long = value.get::<i64>().map(|p| p[0] as f64);
        float.or(long).or(value.get::<i32>().map(|p| f64::from(p[0])))
    });
    exponent.ok_or_else(|| OpError::new("an exponent that is one constant number", "another"))
}

/// The kernel of a Pow node, whose exponent is one constant: `y' = p x^(p - 1)`.
pub fn pow<T: Real>(_op: &ops::power::Pow, site: &Site<'_>) -> Built<T> {
    let p = T::from_f64(exponent(site)?);
    let two = T::from_f64(2.0);
    if p == two {
        return function(|x: T| x * x, move |x| two * x);
    }
    if p == T::ZERO {
        return function(|_: T| T::ONE, |_| T::ZERO);
    }
    function(move |x: T| x.powf(p), move |x| p * x.powf(p - T::ONE))
}
