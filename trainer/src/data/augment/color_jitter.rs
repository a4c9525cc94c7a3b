//! Images: brightness, contrast and saturation change.

use kd_runtime::Result;

use super::{Augment, color, image, pictures};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

const fn strength(name: &'static str, about: &'static str, default: f64) -> Spec {
    Spec { name, about, kind: Kind::Number { default, range: Range::NotNegative } }
}

pub(super) static OPTIONS: &[Spec] = &[
    strength("brightness", "b: all values times a factor of 1 - b (not below 0) to 1 + b", 0.2),
    strength("contrast", "the same factor for the distance from the image's mean gray", 0.2),
    strength("saturation", "the same factor for the distance of each pixel from its gray", 0.2),
    super::MOST,
];

/// In a random order each, as torchvision's `ColorJitter` without its hue.
struct ColorJitter {
    channels: usize,
    /// Of brightness, contrast, saturation.
    strengths: [f64; 3],
    most: f32,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    image("color_jitter", shape)?;
    let channels = pictures("color_jitter", shape)?;
    let strengths = ["brightness", "contrast", "saturation"].map(|name| options.number(name));
    Ok(Box::new(ColorJitter { channels, strengths, most: options.number("most") as f32 }))
}

impl Augment for ColorJitter {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let mut order = [0, 1, 2];
        rng.shuffle(&mut order);
        let mut scratch = Vec::new();
        for what in order {
            let strength = self.strengths[what];
            let low = (1.0 - strength).max(0.0);
            let factor = (low + rng.uniform() * (1.0 + strength - low)) as f32;
            match what {
                _ if strength == 0.0 => {}
                0 => color::brightness(raw, factor, self.most),
                1 => color::contrast(raw, self.channels, factor, self.most, &mut scratch),
                _ => color::saturation(raw, self.channels, factor, self.most, &mut scratch),
            }
        }
    }
}
