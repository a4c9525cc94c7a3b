//! Images: left and right change places.

use kd_runtime::Result;

use super::{Augment, image};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "probability",
    about: "share of the samples that are flipped",
    kind: Kind::Number { default: 0.5, range: Range::Share },
}];

struct Flip {
    width: usize,
    probability: f64,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let (_, width) = image("flip", shape)?;
    Ok(Box::new(Flip { width, probability: options.number("probability") }))
}

impl Augment for Flip {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        if rng.uniform() < self.probability {
            raw.chunks_exact_mut(self.width).for_each(<[f32]>::reverse);
        }
    }
}
