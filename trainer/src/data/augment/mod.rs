//! Augmentations of raw samples: ONE FILE EACH; [`table`] lists them. Each sample has its own stream of random numbers
//! (seed, epoch, place in the data set), so that order and threads do not matter.

pub mod table;

mod flip;
mod jitter;
mod scaling;
#[cfg(test)]
mod tests;
mod translate;

use kd_runtime::{Refusal, Result};

use crate::options::{Options, Spec};
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
}

/// Makes the augmentations of a recipe.
pub fn build(choices: &[Choice], shape: &[usize]) -> Result<Vec<Box<dyn Augment>>> {
    choices
        .iter()
        .map(|choice| {
            let kind = table::AUGMENTATIONS.iter().find(|kind| kind.name == choice.name);
            (kind.expect("a checked choice names a row").build)(&choice.options, shape)
        })
        .collect()
}

/// Height and width of images; refuses other samples.
fn image(name: &str, shape: &[usize]) -> Result<(usize, usize)> {
    match *shape {
        [_, height, width] => Ok((height, width)),
        _ => Err(refuse(name, "images [C, H, W]", shape)),
    }
}

fn refuse(name: &str, expected: &str, shape: &[usize]) -> Refusal {
    let found = format!("samples of shape {shape:?}");
    Refusal::new(format!("data.augment `{name}`"), expected, found, "leave it out")
}
