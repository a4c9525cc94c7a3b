//! Augmentations of raw samples: ONE FILE EACH; [`table`] lists them. Each sample has its own stream of random numbers
//! (seed, epoch, place in the data set), so that order and threads do not matter.

pub mod table;

mod color;
mod color_jitter;
mod crop;
mod cutout;
mod flip;
mod jitter;
mod mixup;
mod rand_augment;
mod scaling;
#[cfg(test)]
mod tests;
mod translate;
mod window_slice;
mod window_warp;

use kd_runtime::{Refusal, Result};

use crate::options::{Kind, Options, Range, Setting, Spec};
use crate::recipe::Choice;
use crate::rng::Rng;

/// A row of the table of augmentations.
pub struct AugmentKind {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it does, on one line.
    pub about: &'static str,
    /// Its options, without `kind`.
    pub options: &'static [Spec],
    /// Makes it for samples of this shape (`[C, H, W]`, `[C, T]` or `[F]`); refuses a shape that it cannot take.
    pub build: Build,
}

/// Makes an augmentation from its options for samples of a shape.
pub type Build = fn(&Options, &[usize]) -> Result<Box<dyn Augment>>;

/// Changes one sample in place.
pub trait Augment: Send + Sync {
    /// `raw` holds one sample; what it needs of randomness comes from `rng`.
    fn apply(&self, raw: &mut [f32], rng: &mut Rng);

    /// Whether it takes a second sample, and [`Augment::mix`] stands for [`Augment::apply`].
    fn mixes(&self) -> bool {
        false
    }

    /// Changes one sample in place by another one; the share of the loss that is the first one's, 1/2 to 1.
    fn mix(&self, _raw: &mut [f32], _other: &[f32], _rng: &mut Rng) -> f32 {
        1.0
    }
}

/// Makes the augmentations of a recipe for samples of a shape whose raw values reach from 0 to `raw_max`, where that is
/// known; at most one of them mixes samples.
pub fn build(choices: &[Choice], shape: &[usize], raw_max: Option<f32>) -> Result<Vec<Box<dyn Augment>>> {
    let augment: Vec<Box<dyn Augment>> = choices
        .iter()
        .map(|choice| {
            let kind = table::AUGMENTATIONS.iter().find(|kind| kind.name == choice.name);
            let kind = kind.expect("a checked choice names a row");
            (kind.build)(&with_range(kind, &choice.options, raw_max)?, shape)
        })
        .collect::<Result<_>>()?;
    let mixing = augment.iter().filter(|augment| augment.mixes()).count();
    if mixing > 1 {
        let action = "leave all but one out: a sample has at most two labels";
        return Err(Refusal::new("data.augment", "one augmentation that mixes samples", mixing, action));
    }
    Ok(augment)
}

/// The options, with the data's largest raw value where [`MOST`] is left out; refused where it is not known.
fn with_range(kind: &AugmentKind, options: &Options, raw_max: Option<f32>) -> Result<Options> {
    if !kind.options.iter().any(|spec| spec.name == MOST.name) || options.number(MOST.name) > 0.0 {
        return Ok(options.clone());
    }
    let most = raw_max.ok_or_else(|| {
        let at = format!("data.augment `{}`", kind.name);
        Refusal::new(at, "the largest raw value", "a format that does not know it", "set its option `most`")
    })?;
    Ok(options.clone().with(MOST.name, Setting::Number(most.into())))
}

/// What changes colors keeps values within their range.
const MOST: Spec = Spec {
    name: "most",
    about: "largest raw value; what would be above it or below 0 becomes it or 0. 0: that of the data's format, which \
            must know it",
    kind: Kind::Number { default: 0.0, range: Range::NotNegative },
};

/// Height and width of images; refuses other samples.
fn image(name: &str, shape: &[usize]) -> Result<(usize, usize)> {
    match *shape {
        [_, height, width] => Ok((height, width)),
        _ => Err(refuse(name, "images [C, H, W]", shape)),
    }
}

/// Channels of images that are gray or of red, green and blue; refuses others.
fn pictures(name: &str, shape: &[usize]) -> Result<usize> {
    match *shape {
        [channels @ (1 | 3), _, _] => Ok(channels),
        _ => Err(refuse(name, "images of 1 or 3 channels", shape)),
    }
}

/// Linear interpolation at places that are evenly apart, both ends kept. `from` is not empty.
fn resample(from: &[f32], to: &mut [f32]) {
    let step = (from.len() - 1) as f64 / to.len().saturating_sub(1).max(1) as f64;
    for (i, value) in to.iter_mut().enumerate() {
        let at = (i as f64 * step).min((from.len() - 1) as f64);
        let (left, part) = (at as usize, (at - at.floor()) as f32);
        let (a, b) = (from[left], from[(left + 1).min(from.len() - 1)]);
        *value = if part == 0.0 { a } else { a + part * (b - a) };
    }
}

fn refuse(name: &str, expected: &str, shape: &[usize]) -> Refusal {
    let found = format!("samples of shape {shape:?}");
    Refusal::new(format!("data.augment `{name}`"), expected, found, "leave it out")
}
