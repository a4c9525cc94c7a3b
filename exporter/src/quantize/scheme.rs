//! Scale and zero point: `real = (q - zero_point) * scale`.

use kd_runtime::math::round_ties_even;

use crate::calibrate::Range;

/// How an activation is held: uint8, one scale for the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// Above 0 and finite.
    pub scale: f32,
    /// What stands for 0.
    pub zero_point: u8,
}

impl Activation {
    /// `scale = (max - min) / 255`, `zero_point = round(-min / scale)` to even, both of the exact quotient; a range of no
    /// width has scale 1.
    pub fn of(range: Range) -> Self {
        let (min, max) = (f64::from(range.min).min(0.0), f64::from(range.max).max(0.0));
        let exact = (max - min) / 255.0;
        if exact < f64::from(f32::MIN_POSITIVE) {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-min / exact).clamp(0.0, 255.0);
        let whole = zero_point.floor();
        let up = zero_point - whole > 0.5 || (zero_point - whole == 0.5 && whole % 2.0 == 1.0);
        Self { scale: exact as f32, zero_point: (whole + if up { 1.0 } else { 0.0 }) as u8 }
    }
}

/// uint8 of a number.
pub fn activation(x: f32, held: Activation) -> u8 {
    let low = -f32::from(held.zero_point);
    let q = round_ties_even((x / held.scale).clamp(low, 255.0 + low));
    (q as i32 + i32::from(held.zero_point)).clamp(0, 255) as u8
}

/// int8 in -127..=127 of one channel's weight.
pub fn weight(w: f32, scale: f32) -> i8 {
    round_ties_even((w / scale).clamp(-127.0, 127.0)) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_reached() {
        let cases = [
            // min, max, scale, zero point
            (0.0, 2.55, 2.55 / 255.0, 0),
            (-1.0, 1.0, 2.0 / 255.0, 128),
            (-5.1, 0.0, 5.1 / 255.0, 255),
            (-1.0, 3.0, 4.0 / 255.0, 64),
            (0.0, 0.0, 1.0, 0),
            (0.0, 1e-42, 1.0, 0),
        ];
        for (min, max, scale, zero_point) in cases {
            let found = Activation::of(Range { min, max });
            assert!((f64::from(found.scale) - scale).abs() <= 1e-7 * scale, "{min}..{max}: {found:?}");
            assert_eq!(found.zero_point, zero_point, "{min}..{max}");
            let reach = [0, 255].map(|q| (q - i32::from(zero_point)) as f32 * found.scale);
            assert!(reach[0] <= min + found.scale && reach[1] >= max - found.scale, "{min}..{max}: {reach:?}");
        }
    }

    #[test]
    fn weights_round_to_even_and_stay_symmetric() {
        for (w, q) in [(0.0, 0), (0.5, 0), (1.5, 2), (-2.5, -2), (400.0, 127), (-400.0, -127)] {
            assert_eq!(weight(w, 1.0), q, "{w}");
        }
    }
}
