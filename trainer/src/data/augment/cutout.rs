//! Images: squares are blanked.

use kd_runtime::Result;

use super::{Augment, image};
use crate::options::{Kind, Options, Range, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[
    Spec {
        name: "size",
        about: "side of a square, in pixels; what lies outside the image is cut off",
        kind: Kind::Count { default: 8, least: 0, most: 4096 },
    },
    Spec {
        name: "holes",
        about: "squares, whose centers are anywhere in the image",
        kind: Kind::Count { default: 1, least: 1, most: 1024 },
    },
    Spec {
        name: "fill",
        about: "raw value that they get; the paper's is the mean of the data",
        kind: Kind::Number { default: 0.0, range: Range::Finite },
    },
];

/// Source: DeVries, Taylor 2017 (arXiv 1708.04552) §3.
struct Cutout {
    height: usize,
    width: usize,
    size: usize,
    holes: usize,
    fill: f32,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let (height, width) = image("cutout", shape)?;
    let (size, holes) = (options.count("size"), options.count("holes"));
    Ok(Box::new(Cutout { height, width, size, holes, fill: options.number("fill") as f32 }))
}

impl Augment for Cutout {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let span =
            |center: usize, n: usize| center.saturating_sub(self.size / 2)..(center + self.size.div_ceil(2)).min(n);
        for _ in 0..self.holes {
            let rows = span(rng.below(self.height as u64) as usize, self.height);
            let columns = span(rng.below(self.width as u64) as usize, self.width);
            for plane in raw.chunks_exact_mut(self.height * self.width) {
                for row in plane.chunks_exact_mut(self.width).skip(rows.start).take(rows.len()) {
                    row[columns.clone()].fill(self.fill);
                }
            }
        }
    }
}
