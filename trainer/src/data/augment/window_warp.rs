//! Series: a window runs slower or faster.

use kd_runtime::{Refusal, Result};

use super::{Augment, refuse, resample};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

/// Far beyond what leaves a series its class.
const MOST_FACTOR: f64 = 16.0;

pub(super) static OPTIONS: &[Spec] = &[
    Spec {
        name: "window",
        about: "share of the series that is warped",
        kind: Kind::Number { default: 0.1, range: Range::Share },
    },
    Spec {
        name: "factor",
        about: "the window gets this many times as long, or as many times as short, as likely",
        kind: Kind::Number { default: 2.0, range: Range::Positive },
    },
];

/// The window, anywhere in the series, is resampled linearly, then the whole series to its length again.
///
/// Source: Le Guennec, Malinowski, Tavenard 2016 (HAL hal-01357973) §3.2.
struct WindowWarp {
    length: usize,
    window: usize,
    factor: f64,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let &[_, length] = shape else { return Err(refuse("window_warp", "series [C, T]", shape)) };
    let factor = options.number("factor");
    if !(1.0 / MOST_FACTOR..=MOST_FACTOR).contains(&factor) {
        let expected = format!("a factor of 1/{MOST_FACTOR} to {MOST_FACTOR}");
        return Err(Refusal::new("data.augment `window_warp`", expected, factor, "correct it"));
    }
    let window = (options.number("window") * length as f64).round() as usize;
    Ok(Box::new(WindowWarp { length, window: window.min(length), factor }))
}

impl Augment for WindowWarp {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let start = rng.below((self.length - self.window) as u64 + 1) as usize;
        let factor = if rng.below(2) == 0 { self.factor } else { 1.0 / self.factor };
        let (window, end) = (self.window, start + self.window);
        let warped = ((window as f64 * factor).round() as usize).max(1);
        if window < 2 || warped == window {
            return;
        }
        let mut stretched = Vec::with_capacity(self.length - window + warped);
        for channel in raw.chunks_exact_mut(self.length) {
            stretched.clear();
            stretched.extend_from_slice(&channel[..start]);
            let from = stretched.len();
            stretched.resize(from + warped, 0.0);
            resample(&channel[start..end], &mut stretched[from..]);
            stretched.extend_from_slice(&channel[end..]);
            resample(&stretched, channel);
        }
    }
}
