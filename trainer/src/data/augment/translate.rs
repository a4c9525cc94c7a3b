//! Images: moved by whole pixels; 0 where nothing was.

use kd_runtime::Result;

use super::{Augment, image};
use crate::options::{Kind, Options, Spec};
use crate::rng::Rng;

pub(super) static OPTIONS: &[Spec] = &[Spec {
    name: "pixels",
    about: "largest shift in each direction, every one as likely, in pixels",
    kind: Kind::Count { default: 2, least: 1, most: 4096 },
}];

struct Translate {
    height: usize,
    width: usize,
    pixels: usize,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let (height, width) = image("translate", shape)?;
    Ok(Box::new(Translate { height, width, pixels: options.count("pixels") }))
}

impl Augment for Translate {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let mut draw = || rng.below(2 * self.pixels as u64 + 1) as isize - self.pixels as isize;
        let (down, right) = (draw(), draw());
        for plane in raw.chunks_exact_mut(self.height * self.width) {
            shift(plane, down * self.width as isize);
            plane.chunks_exact_mut(self.width).for_each(|row| shift(row, right));
        }
    }
}

/// Moves values by `by` places towards the end (or the start), and fills with 0.
fn shift(values: &mut [f32], by: isize) {
    let n = values.len();
    let gap = by.unsigned_abs().min(n);
    if by >= 0 {
        values.copy_within(..n - gap, gap);
        values[..gap].fill(0.0);
    } else {
        values.copy_within(gap.., 0);
        values[n - gap..].fill(0.0);
    }
}
