//! Images: padded on all sides, then cut to their size at a random place.

use kd_runtime::Result;

use super::{Augment, image};
use crate::options::{Kind, Options, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[
    Spec {
        name: "padding",
        about: "pixels that are added on each side; every place of the cut is as likely",
        kind: Kind::Count { default: 4, least: 0, most: 4096 },
    },
    Spec {
        name: "mode",
        about: "what is added: zeros, the pixels at the edge, or the image mirrored at its edge pixels",
        kind: Kind::Choice { default: "zero", known: &["zero", "edge", "reflect"] },
    },
];

/// Source: He et al. 2016 (arXiv 1512.03385) §4.2, there with zeros.
struct Crop {
    height: usize,
    width: usize,
    padding: usize,
    mode: Mode,
}

#[derive(Clone, Copy)]
enum Mode {
    Zero,
    Edge,
    Reflect,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let (height, width) = image("crop", shape)?;
    let mode = match options.text("mode") {
        "edge" => Mode::Edge,
        "reflect" => Mode::Reflect,
        _ => Mode::Zero,
    };
    Ok(Box::new(Crop { height, width, padding: options.count("padding"), mode }))
}

impl Augment for Crop {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let mut shift = || rng.below(2 * self.padding as u64 + 1) as isize - self.padding as isize;
        let (down, right) = (shift(), shift());
        let mut before = vec![0.0; self.height * self.width];
        for plane in raw.chunks_exact_mut(before.len()) {
            before.copy_from_slice(plane);
            for (y, row) in plane.chunks_exact_mut(self.width).enumerate() {
                let line = self.mode.place(y as isize + down, self.height);
                let line = line.map(|line| &before[line * self.width..(line + 1) * self.width]);
                for (x, value) in row.iter_mut().enumerate() {
                    let place = self.mode.place(x as isize + right, self.width);
                    *value = line.zip(place).map_or(0.0, |(line, place)| line[place]);
                }
            }
        }
    }
}

impl Mode {
    /// Where the value at `at`, perhaps outside, comes from; nowhere: it is 0.
    fn place(self, at: isize, n: usize) -> Option<usize> {
        let last = n as isize - 1;
        match self {
            Self::Zero => (0..=last).contains(&at).then_some(at as usize),
            Self::Edge => Some(at.clamp(0, last) as usize),
            Self::Reflect => {
                let period = (2 * last).max(1);
                let at = at.rem_euclid(period);
                Some(at.min(period - at).min(last) as usize)
            }
        }
    }
}
