//! Series: each channel is multiplied by a factor near 1.

use kd_runtime::Result;

use super::{Augment, refuse};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "std",
    about: "deviation of the factor, whose mean is 1",
    kind: Kind::Number { default: 0.1, range: Range::NotNegative },
}];

/// Source: Um et al. 2017 (arXiv 1706.00527), `scaling`.
struct Scaling {
    length: usize,
    std: f64,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let &[_, length] = shape else { return Err(refuse("scaling", "series [C, T]", shape)) };
    Ok(Box::new(Scaling { length, std: options.number("std") }))
}

impl Augment for Scaling {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        for channel in raw.chunks_exact_mut(self.length) {
            let factor = (1.0 + self.std * rng.normal()) as f32;
            channel.iter_mut().for_each(|value| *value *= factor);
        }
    }
}
