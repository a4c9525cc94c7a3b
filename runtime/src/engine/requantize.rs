//! The integer semantics of the engine; the only place with a rounding rule.
//!
//! `q = clamp(round_half_even(f32(acc) · multiplier) + zero_point)` with `multiplier = (sx · sw) / sy`, every operation
//! in f32 and in this order: what ONNX Runtime's exact integer kernels compute, bit for bit.

/// How an accumulator becomes an output: zero point, and the least and greatest result (the element type's, or nearer
/// where a Relu or Clip was fused).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Added after rounding.
    pub zero_point: i32,
    /// Least result.
    pub low: i32,
    /// Greatest result.
    pub high: i32,
}

/// `1.5 · 2^23`: adding it to a number below `2^22` rounds that half to even, and taking it away gives the result.
const ROUNDER: f32 = 12_582_912.0;

impl Output {
    /// `v` of real steps to an integer: rounds half to even, adds the zero point, clamps.
    #[inline(always)]
    pub fn quantize(self, v: f32) -> i32 {
        // The bounds are integers, so clamping before rounding gives the same; they are within ±511.
        let low = (self.low - self.zero_point) as f32;
        let high = (self.high - self.zero_point) as f32;
        let clamped = if v > low { if v < high { v } else { high } } else { low };
        ((clamped + ROUNDER) - ROUNDER) as i32 + self.zero_point
    }

    /// An accumulator to an integer.
    #[inline(always)]
    pub fn requantize(self, acc: i32, multiplier: f32) -> i32 {
        self.quantize(acc as f32 * multiplier)
    }
}

/// The integers of an 8-bit element.
pub trait Byte: crate::graph::Element {
    /// Exact.
    fn wide(self) -> i32;
    /// From a number within the type's range (an [`Output`]'s bounds see to it).
    fn narrow(q: i32) -> Self;
}

impl Byte for u8 {
    #[inline(always)]
    fn wide(self) -> i32 {
        i32::from(self)
    }
    #[inline(always)]
    fn narrow(q: i32) -> Self {
        q as Self
    }
}

impl Byte for i8 {
    #[inline(always)]
    fn wide(self) -> i32 {
        i32::from(self)
    }
    #[inline(always)]
    fn narrow(q: i32) -> Self {
        q as Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even_and_clamps() {
        let u8s = Output { zero_point: 3, low: 0, high: 255 };
        let i8s = Output { zero_point: -128, low: -128, high: 127 };
        #[rustfmt::skip]
        let cases = [
            (u8s, 0.5, 3), (u8s, 1.5, 5), (u8s, 2.5, 5), (u8s, -0.5, 3), (u8s, -1.5, 1), (u8s, -3.5, 0),
            (u8s, 251.5, 255), (u8s, 1e9, 255), (u8s, -1e9, 0), (u8s, f32::INFINITY, 255), (u8s, 0.499_999_97, 3),
            (i8s, 0.0, -128), (i8s, 255.0, 127), (i8s, 254.5, 126), (i8s, f32::NEG_INFINITY, -128),
        ];
        for (output, v, expected) in cases {
            assert_eq!(output.quantize(v), expected, "{v} with {output:?}");
        }
    }

    #[test]
    fn equals_the_definition_for_every_small_accumulator() {
        let output = Output { zero_point: 7, low: 0, high: 255 };
        for acc in -70_000..70_000 {
            for multiplier in [0.003_906_25_f32, 0.0073, 1.0] {
                let defined = crate::math::round_ties_even(acc as f32 * multiplier) + 7.0;
                assert_eq!(
                    output.requantize(acc, multiplier),
                    defined.clamp(0.0, 255.0) as i32,
                    "{acc} · {multiplier}"
                );
            }
        }
    }
}
