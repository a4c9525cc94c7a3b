//! Series: a part stands for the whole.

use kd_runtime::Result;

use super::{Augment, refuse, resample};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "window",
    about: "share of the series that is kept, from anywhere in it",
    kind: Kind::Number { default: 0.9, range: Range::PositiveShare },
}];

/// The part is resampled linearly to the length of the series.
///
/// Source: Le Guennec, Malinowski, Tavenard 2016 (HAL hal-01357973) §3.1.
struct WindowSlice {
    length: usize,
    window: usize,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let &[_, length] = shape else { return Err(refuse("window_slice", "series [C, T]", shape)) };
    let window = (options.number("window") * length as f64).round() as usize;
    Ok(Box::new(WindowSlice { length, window: window.clamp(1, length) }))
}

impl Augment for WindowSlice {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let start = rng.below((self.length - self.window) as u64 + 1) as usize;
        for channel in raw.chunks_exact_mut(self.length) {
            let part = channel[start..start + self.window].to_vec();
            resample(&part, channel);
        }
    }
}
