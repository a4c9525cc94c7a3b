//! Normal noise on every value.

use kd_runtime::Result;

use super::Augment;
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "std",
    about: "deviation of the noise, in units of the raw values",
    kind: Kind::Number { default: 0.03, range: Range::NotNegative },
}];

struct Jitter {
    std: f64,
}

pub(super) fn build(options: &Options, _shape: &[usize]) -> Result<Box<dyn Augment>> {
    Ok(Box::new(Jitter { std: options.number("std") }))
}

impl Augment for Jitter {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        raw.iter_mut().for_each(|value| *value += (self.std * rng.normal()) as f32);
    }
}
