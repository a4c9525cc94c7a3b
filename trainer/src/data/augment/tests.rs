//! What each augmentation does to a sample, and that a sample's fate depends on its name alone.

use super::table::AUGMENTATIONS;
use super::{Augment, build};
use crate::data::{RawBatch, Samples, load};
use crate::options::{Options, Setting};
use crate::recipe::Choice;
use crate::rng::{Purpose, Rng};

fn made(name: &str, shape: &[usize], option: (&'static str, Setting)) -> Box<dyn Augment> {
    let kind = AUGMENTATIONS.iter().find(|kind| kind.name == name).unwrap();
    let options = Options::defaults(kind.options).with(option.0, option.1);
    build(&[Choice { name: kind.name, options }], shape).unwrap().remove(0)
}

fn stream(place: u64) -> Rng {
    Rng::new(5, Purpose::Augment, 1, place)
}

fn ramp(n: usize) -> Vec<f32> {
    (1..=n).map(|i| i as f32).collect()
}

#[test]
fn translation_moves_every_channel_by_one_shift_and_fills_with_zero() {
    let (channels, height, width, pixels) = (2, 4, 5, 2);
    let translate = made("translate", &[channels, height, width], ("pixels", Setting::Count(pixels)));
    let image = ramp(channels * height * width);
    let mut seen = std::collections::BTreeSet::new();
    for place in 0..400 {
        let mut raw = image.clone();
        translate.apply(&mut raw, &mut stream(place));
        let moved = |down: isize, right: isize| -> Vec<f32> {
            let at = |c: usize, y: isize, x: isize| {
                let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
                if inside { image[(c * height + y as usize) * width + x as usize] } else { 0.0 }
            };
            let places = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
            places.map(|(c, y, x)| at(c, y as isize - down, x as isize - right)).collect()
        };
        let shifts = (-2..=2).flat_map(|down| (-2..=2).map(move |right| (down, right)));
        let found = shifts.into_iter().find(|&(down, right)| moved(down, right) == raw);
        seen.insert(found.expect("a shift of at most 2 pixels"));
    }
    assert_eq!(seen.len(), 25, "every shift is drawn: {seen:?}");
    // A shift beyond the image leaves nothing.
    let far = made("translate", &[1, 1, 1], ("pixels", Setting::Count(4096)));
    let mut raw = [7.0];
    far.apply(&mut raw, &mut stream(0));
    assert_eq!(raw, [0.0]);
}

#[test]
fn a_flip_mirrors_rows_as_often_as_asked() {
    let flip = |share| made("flip", &[1, 2, 3], ("probability", Setting::Number(share)));
    let flipped = |share, place| {
        let mut raw = ramp(6);
        flip(share).apply(&mut raw, &mut stream(place));
        assert!(raw == ramp(6) || raw == [3.0, 2.0, 1.0, 6.0, 5.0, 4.0], "{raw:?}");
        raw != ramp(6)
    };
    let count = |share| (0..1000).filter(|&place| flipped(share, place)).count();
    assert_eq!((count(0.0), count(1.0)), (0, 1000));
    // Five deviations of a binomial: 5 * sqrt(1000 * 0.3 * 0.7).
    assert!((228..=372).contains(&count(0.3)), "{}", count(0.3));
}

#[test]
fn jitter_adds_noise_of_its_deviation() {
    let n = 20_000;
    let mut raw = vec![10.0; n];
    made("jitter", &[n], ("std", Setting::Number(0.5))).apply(&mut raw, &mut stream(0));
    let mean = raw.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
    let variance = raw.iter().map(|&v| (f64::from(v) - 10.0).powi(2)).sum::<f64>() / n as f64;
    // Five standard errors: 0.5 / sqrt(n) of the mean, 0.25 * sqrt(2 / n) of the variance.
    assert!((mean - 10.0).abs() < 0.018 && (variance - 0.25).abs() < 0.0125, "{mean} {variance}");
}

#[test]
fn scaling_has_one_factor_a_channel() {
    let scaling = made("scaling", &[2, 3], ("std", Setting::Number(0.2)));
    let mut raw = [1.0, -2.0, 4.0, 1.0, -2.0, 4.0];
    scaling.apply(&mut raw, &mut stream(0));
    let (a, b) = (raw[0], raw[3]);
    assert_ne!(a, b);
    assert_eq!(raw, [a, -2.0 * a, 4.0 * a, b, -2.0 * b, 4.0 * b]);
    assert!((a - 1.0).abs() < 1.2 && (b - 1.0).abs() < 1.2, "six deviations: {a} {b}");
}

#[test]
fn a_sample_is_augmented_the_same_in_whatever_company() {
    let mut samples = Samples::new(12);
    (0..6).for_each(|i| samples.push(&ramp(12).iter().map(|v| v + 20.0 * i as f32).collect::<Vec<_>>(), 0));
    let augment = [
        made("translate", &[1, 3, 4], ("pixels", Setting::Count(1))),
        made("jitter", &[1, 3, 4], ("std", Setting::Number(0.1))),
    ];
    let load = |places: &[usize], epoch| {
        let mut batch = RawBatch::default();
        load(&samples, places, &augment, 9, epoch, &mut batch);
        batch.values
    };
    let all = load(&[0, 1, 2, 3, 4, 5], 4);
    assert_eq!(load(&[5, 2], 4), [&all[60..72], &all[24..36]].concat());
    assert_ne!(load(&[2], 5), all[24..36]);
}

#[test]
fn samples_of_another_shape_are_refused() {
    for kind in AUGMENTATIONS {
        let refused: Vec<usize> = (1..=3)
            .filter(|&rank| (kind.build)(&Options::defaults(kind.options), &[4, 4, 4][..rank]).is_err())
            .collect();
        let expected: &[usize] = match kind.name {
            "jitter" => &[],
            "scaling" => &[1, 3],
            _ => &[1, 2],
        };
        assert_eq!(refused, expected, "{}", kind.name);
    }
}
