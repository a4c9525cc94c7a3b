//! The two floats that training computes in.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::ops::kernels::rows::{self, Row};

/// The floats that training computes in: `f32`; `f64` for tests against central differences.
pub trait Real:
    Copy
    + Send
    + Sync
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The smallest number above 0 that is not denormal. Processors take a hundred times as long for denormal ones.
    const SMALLEST: Self;
    /// The nearest value to an f32.
    fn from_f32(x: f32) -> Self;
    /// The nearest value to an f64.
    fn from_f64(x: f64) -> Self;
    /// The nearest f32.
    fn to_f32(self) -> f32;
    /// The same number in f64.
    fn to_f64(self) -> f64;
    /// `e^x`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `ln(1 + x)`, exact for small x too.
    fn ln_1p(self) -> Self;
    /// `x^p`.
    fn powf(self, p: Self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Not a number.
    fn is_nan(self) -> bool;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// The rows of the tiles in [`kernels::rows`](crate::ops::kernels::rows).
    fn rows() -> &'static [Row<Self>];

    /// A count as a float.
    fn from_usize(n: usize) -> Self {
        Self::from_f64(n as f64)
    }

    /// 0 for what is closer to it than `least`.
    fn flushed(self, least: Self) -> Self {
        if self.abs() < least { Self::ZERO } else { self }
    }

    /// The larger one; the other if one is NaN.
    fn max(self, other: Self) -> Self {
        if self > other || other.is_nan() { self } else { other }
    }
}

macro_rules! real {
    ($ty:ty, $rows:expr, $erf:path) => {
        impl Real for $ty {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const SMALLEST: Self = <$ty>::MIN_POSITIVE;
            fn rows() -> &'static [Row<Self>] {
                $rows
            }
            #[inline]
            fn from_f32(x: f32) -> Self {
                x as Self
            }
            #[inline]
            fn from_f64(x: f64) -> Self {
                x as Self
            }
            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn exp(self) -> Self {
                self.exp()
            }
            #[inline]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline]
            fn tanh(self) -> Self {
                self.tanh()
            }
            #[inline]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline]
            fn powf(self, p: Self) -> Self {
                self.powf(p)
            }
            #[inline]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
        }
    };
}
real!(f32, rows::F32, libm::erff);
real!(f64, rows::F64, libm::erf);
