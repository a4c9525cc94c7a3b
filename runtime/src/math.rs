//! Float functions that `core` lacks, all from `libm`, so that results do not depend on the platform's C library.

/// Rounds half to even.
#[inline]
pub fn round_ties_even(x: f32) -> f32 {
    libm::rintf(x)
}

/// `e^x`.
#[inline]
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// Natural logarithm.
#[inline]
pub fn ln(x: f32) -> f32 {
    libm::logf(x)
}

/// Square root.
#[inline]
pub fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

/// Hyperbolic tangent.
#[inline]
pub fn tanh(x: f32) -> f32 {
    libm::tanhf(x)
}

/// The error function.
#[inline]
pub fn erf(x: f32) -> f32 {
    libm::erff(x)
}

/// `x^p`.
#[inline]
pub fn pow(x: f32, p: f32) -> f32 {
    libm::powf(x, p)
}

/// `ln(1 + x)`, exact for small x too.
#[inline]
pub fn ln_1p(x: f32) -> f32 {
    libm::log1pf(x)
}
