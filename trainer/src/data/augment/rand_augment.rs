//! Images: a few changes out of fourteen, all of one strength.

use kd_runtime::Result;

use super::{Augment, color, image, pictures};
use crate::options::{Kind, Options, Spec};
use crate::rng::Rng;

/// Magnitudes are 0 to this.
const BINS: f64 = 30.0;

pub(super) static OPTIONS: &[Spec] = &[
    Spec {
        name: "ops",
        about: "changes of each sample, drawn with replacement",
        kind: Kind::Count { default: 2, least: 0, most: 16 },
    },
    Spec {
        name: "magnitude",
        about: "their strength, of 30",
        kind: Kind::Count { default: 9, least: 0, most: BINS as usize },
    },
    super::MOST,
];

/// Source: Cubuk et al. 2020 (arXiv 1909.13719) §3; the operations and their ranges are those of torchvision's
/// `RandAugment` (31 bins, nearest neighbor, 0 outside), on values that are not rounded. Autocontrast and equalize have
/// no strength, and solarize at strength 0 inverts nothing.
struct RandAugment {
    channels: usize,
    height: usize,
    width: usize,
    ops: usize,
    strength: f32,
    most: f32,
}

pub(super) fn build(options: &Options, shape: &[usize]) -> Result<Box<dyn Augment>> {
    let (height, width) = image("rand_augment", shape)?;
    let channels = pictures("rand_augment", shape)?;
    let strength = (options.count("magnitude") as f64 / BINS) as f32;
    let (ops, most) = (options.count("ops"), options.number("most") as f32);
    Ok(Box::new(RandAugment { channels, height, width, ops, strength, most }))
}

impl Augment for RandAugment {
    fn apply(&self, raw: &mut [f32], rng: &mut Rng) {
        let mut scratch = Vec::new();
        for _ in 0..self.ops {
            let op = rng.below(14);
            let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
            self.change(op, sign * self.strength, raw, &mut scratch);
        }
    }
}

impl RandAugment {
    /// One of the fourteen. `strength` is -1 to 1; its sign counts where there are two directions.
    fn change(&self, op: u64, strength: f32, raw: &mut [f32], scratch: &mut Vec<f32>) {
        let (most, channels) = (self.most, self.channels);
        let (w, h) = (self.width as f32, self.height as f32);
        match op {
            0 => {}
            1 => self.move_by([1.0, 0.3 * strength, 0.0, 1.0], [0.0; 2], raw, scratch),
            2 => self.move_by([1.0, 0.0, 0.3 * strength, 1.0], [0.0; 2], raw, scratch),
            3 => self.move_by([1.0, 0.0, 0.0, 1.0], [(150.0 / 331.0 * w * strength).trunc(), 0.0], raw, scratch),
            4 => self.move_by([1.0, 0.0, 0.0, 1.0], [0.0, (150.0 / 331.0 * h * strength).trunc()], raw, scratch),
            5 => {
                let (sin, cos) = (strength * 30.0_f32.to_radians()).sin_cos();
                self.move_by([cos, -sin, sin, cos], [0.0; 2], raw, scratch);
            }
            6 => color::brightness(raw, 1.0 + 0.9 * strength, most),
            7 => color::saturation(raw, channels, 1.0 + 0.9 * strength, most, scratch),
            8 => color::contrast(raw, channels, 1.0 + 0.9 * strength, most, scratch),
            9 => self.sharpen(1.0 + 0.9 * strength, raw, scratch),
            10 => posterize(raw, 8 - (4.0 * strength.abs()).round() as i32, most),
            11 => {
                let from = most * (1.0 - strength.abs());
                raw.iter_mut().filter(|value| **value > from).for_each(|value| *value = most - *value);
            }
            12 => raw.chunks_exact_mut(self.height * self.width).for_each(|plane| autocontrast(plane, most)),
            _ => raw.chunks_exact_mut(self.height * self.width).for_each(|plane| equalize(plane, most)),
        }
    }

    /// Each pixel comes from `matrix · (place - center) + center - by`, the nearest one, 0 where nothing is.
    fn move_by(&self, matrix: [f32; 4], by: [f32; 2], raw: &mut [f32], before: &mut Vec<f32>) {
        let (cx, cy) = ((self.width as f32 - 1.0) / 2.0, (self.height as f32 - 1.0) / 2.0);
        for plane in raw.chunks_exact_mut(self.height * self.width) {
            before.clear();
            before.extend_from_slice(plane);
            for (y, row) in plane.chunks_exact_mut(self.width).enumerate() {
                for (x, value) in row.iter_mut().enumerate() {
                    let (dx, dy) = (x as f32 - cx, y as f32 - cy);
                    let from_x = (matrix[0] * dx + matrix[1] * dy + cx - by[0]).round();
                    let from_y = (matrix[2] * dx + matrix[3] * dy + cy - by[1]).round();
                    let inside =
                        from_x >= 0.0 && from_y >= 0.0 && from_x < self.width as f32 && from_y < self.height as f32;
                    *value = if inside { before[from_y as usize * self.width + from_x as usize] } else { 0.0 };
                }
            }
        }
    }

    /// Away from (factor above 1) or towards the mean of 3 x 3 pixels with the middle 5 times; edges stay.
    fn sharpen(&self, factor: f32, raw: &mut [f32], before: &mut Vec<f32>) {
        let w = self.width;
        for plane in raw.chunks_exact_mut(self.height * w) {
            before.clear();
            before.extend_from_slice(plane);
            for y in 1..self.height.saturating_sub(1) {
                for x in 1..w.saturating_sub(1) {
                    let row = |y: usize| before[y * w + x - 1..y * w + x + 2].iter().sum::<f32>();
                    let value = before[y * w + x];
                    let smooth = (row(y - 1) + row(y) + row(y + 1) + 4.0 * value) / 13.0;
                    plane[y * w + x] = color::blend(value, smooth, factor, self.most);
                }
            }
        }
    }
}

/// Keeps the upper `bits` of 8.
fn posterize(raw: &mut [f32], bits: i32, most: f32) {
    if bits >= 8 {
        return;
    }
    let step = (1 << (8 - bits)) as f32 * most / 255.0;
    raw.iter_mut().for_each(|value| *value = (*value / step).floor() * step);
}

/// Stretches a plane to 0 and `most`; one of a single value stays.
fn autocontrast(plane: &mut [f32], most: f32) {
    let (low, high) = plane.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    if high > low {
        let scale = most / (high - low);
        plane.iter_mut().for_each(|value| *value = (*value - low) * scale);
    }
}

/// Makes all of 256 levels equally frequent, as PIL does; a plane of a single level stays.
fn equalize(plane: &mut [f32], most: f32) {
    let level = |value: f32| ((value / most * 255.0) as usize).min(255);
    let mut counts = [0_usize; 256];
    plane.iter().for_each(|&value| counts[level(value)] += 1);
    let last = counts.iter().rev().find(|&&n| n > 0).copied().unwrap_or(0);
    let step = (plane.len() - last) / 255;
    if step == 0 {
        return;
    }
    let mut below = step / 2;
    let table = counts.map(|n| {
        let to = (below / step).min(255);
        below += n;
        to as f32 * most / 255.0
    });
    plane.iter_mut().for_each(|value| *value = table[level(*value)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(height: usize, width: usize) -> RandAugment {
        RandAugment { channels: 1, height, width, ops: 1, strength: 1.0, most: 255.0 }
    }

    /// Values by Pillow 13.0 (`ImageOps.equalize`, `autocontrast`, `posterize`) of the same 4 x 4 image.
    #[test]
    fn levels_are_those_of_pillow() {
        let image: [f32; 16] = [10., 10., 12., 200., 40., 41., 42., 43., 10., 90., 90., 90., 200., 201., 7., 8.];
        let mut equal: Vec<f32> = (0..64).flat_map(|_| image).collect();
        equalize(&mut equal, 255.0);
        let expected = [43, 43, 107, 255, 128, 149, 171, 192, 43, 213, 213, 213, 255, 255, 0, 21];
        assert_eq!(&equal[..16], expected.map(|level| level as f32));
        let mut stretched = image;
        autocontrast(&mut stretched, 255.0);
        // Pillow drops what is behind the point.
        let expected = [3, 3, 6, 253, 43, 44, 46, 47, 3, 109, 109, 109, 253, 255, 0, 1];
        assert_eq!(stretched.map(|value| (value + 1e-3) as i32), expected);
        let mut posterized = image;
        posterize(&mut posterized, 4, 255.0);
        assert_eq!(posterized, [0, 0, 0, 192, 32, 32, 32, 32, 0, 80, 80, 80, 192, 192, 0, 0].map(|level| level as f32));
    }

    #[test]
    fn geometry_keeps_the_middle_and_every_op_stays_within_the_range() {
        let image: Vec<f32> = (0..49).map(|i| (i * 37 % 256) as f32).collect();
        let mut scratch = Vec::new();
        for op in 0..14 {
            for strength in [-1.0, -0.4, 0.0, 0.4, 1.0] {
                let mut raw = image.clone();
                of(7, 7).change(op, strength, &mut raw, &mut scratch);
                assert!(raw.iter().all(|v| (0.0..=255.0).contains(v)), "op {op} at {strength}: {raw:?}");
                if strength == 0.0 && op < 12 {
                    assert_eq!(raw, image, "op {op} at strength 0");
                }
                if [1, 2, 5].contains(&op) {
                    assert_eq!(raw[24], image[24], "op {op} at {strength}");
                }
            }
        }
        // A quarter of a turn would be 90 degrees: 30 moves the corners out.
        let mut raw = vec![1.0; 49];
        of(7, 7).change(5, 1.0, &mut raw, &mut scratch);
        assert_eq!((raw[0], raw[6], raw[42], raw[48]), (0.0, 0.0, 0.0, 0.0));
        let mut raw = image.clone();
        of(7, 7).change(3, 1.0, &mut raw, &mut scratch);
        assert_eq!((&raw[..3], &raw[3..7]), (&[0.0; 3][..], &image[..4]), "3.17 pixels to the right are 3");
    }
}
