//! What each augmentation does to a sample, and that a sample's fate depends on its name alone.

use std::collections::BTreeSet;

use super::table::AUGMENTATIONS;
use super::{Augment, build};
use crate::data::{RawBatch, Samples, load};
use crate::options::{Options, Setting};
use crate::recipe::Choice;
use crate::rng::{Purpose, Rng};

fn made(name: &str, shape: &[usize], option: (&'static str, Setting)) -> Box<dyn Augment> {
    made_with(name, shape, &[option])
}

fn made_with(name: &str, shape: &[usize], settings: &[(&'static str, Setting)]) -> Box<dyn Augment> {
    let kind = AUGMENTATIONS.iter().find(|kind| kind.name == name).unwrap();
    let defaults = Options::defaults(kind.options);
    let options = settings.iter().fold(defaults, |options, (key, value)| options.with(key, value.clone()));
    build(&[Choice { name: kind.name, options }], shape, Some(255.0)).unwrap().remove(0)
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
        load(&samples, None, places, &augment, 9, epoch, &mut batch);
        batch.values
    };
    let all = load(&[0, 1, 2, 3, 4, 5], 4);
    assert_eq!(load(&[5, 2], 4), [&all[60..72], &all[24..36]].concat());
    assert_ne!(load(&[2], 5), all[24..36]);
}

/// An augmentation, a shape that it takes, and the settings with which it changes nothing.
type AtZero = (&'static str, &'static [usize], Vec<(&'static str, Setting)>);

#[test]
fn every_augmentation_is_the_same_for_one_stream_and_changes_nothing_at_strength_0() {
    let zero = Setting::Number(0.0);
    #[rustfmt::skip]
    let cases: [AtZero; 11] = [
        ("color_jitter", &[3, 6, 5], ["brightness", "contrast", "saturation"].map(|name| (name, zero.clone())).to_vec()),
        ("crop",         &[3, 6, 5], vec![("padding", Setting::Count(0))]),
        ("cutout",       &[3, 6, 5], vec![("size", Setting::Count(0))]),
        ("flip",         &[3, 6, 5], vec![("probability", zero.clone())]),
        ("jitter",       &[3, 30],   vec![("std", zero.clone())]),
        ("mixup",        &[3, 30],   vec![("alpha", zero.clone())]),
        ("rand_augment", &[3, 6, 5], vec![("ops", Setting::Count(0))]),
        ("scaling",      &[3, 30],   vec![("std", zero.clone())]),
        ("translate",    &[3, 6, 5], vec![]),
        ("window_slice", &[3, 30],   vec![("window", Setting::Number(1.0))]),
        ("window_warp",  &[3, 30],   vec![("factor", Setting::Number(1.0))]),
    ];
    assert_eq!(cases.each_ref().map(|case| case.0).to_vec(), AUGMENTATIONS.iter().map(|k| k.name).collect::<Vec<_>>());
    let (image, other) = (ramp(90), ramp(90).into_iter().rev().collect::<Vec<_>>());
    let run = |augment: &dyn Augment, place| {
        let (mut raw, mut rng) = (image.clone(), stream(place));
        if augment.mixes() {
            let _ = augment.mix(&mut raw, &other, &mut rng);
        } else {
            augment.apply(&mut raw, &mut rng)
        }
        raw
    };
    for (name, shape, at_0) in cases {
        let usual = made_with(name, shape, &[]);
        let first = run(&*usual, 1);
        assert_eq!(run(&*usual, 1), first, "{name}");
        assert!((2..50).any(|place| run(&*usual, place) != first), "{name} draws");
        // Its least shift is one pixel.
        if name != "translate" {
            (0..20).for_each(|place| assert_eq!(run(&*made_with(name, shape, &at_0), place), image, "{name}"));
        }
    }
}

#[test]
fn a_crop_is_one_of_the_cuts_of_the_padded_image() {
    // numpy.pad of a row of four by three on each side.
    let rows: [(&str, [f32; 10]); 3] = [
        ("zero", [0., 0., 0., 1., 2., 3., 4., 0., 0., 0.]),
        ("edge", [1., 1., 1., 1., 2., 3., 4., 4., 4., 4.]),
        ("reflect", [4., 3., 2., 1., 2., 3., 4., 3., 2., 1.]),
    ];
    for (mode, padded) in rows {
        let settings = [("padding", Setting::Count(3)), ("mode", Setting::Text(mode.into()))];
        // In a column and a row alike.
        for shape in [[1, 1, 4], [1, 4, 1]] {
            let crop = made_with("crop", &shape, &settings);
            let mut seen = std::collections::BTreeSet::new();
            for place in 0..400 {
                let mut raw = ramp(4);
                crop.apply(&mut raw, &mut stream(place));
                let blank = mode == "zero" && raw == [0.0; 4];
                let cut = padded.windows(4).position(|cut| cut == raw);
                assert!(blank || cut.is_some(), "{mode}: {raw:?}");
                seen.extend(cut);
            }
            // The two outer cuts of the mirrored row are the same.
            assert_eq!(seen.len(), if mode == "reflect" { 6 } else { 7 }, "{mode}: every cut is drawn");
        }
    }
}

#[test]
fn cutout_blanks_squares_that_the_edges_cut() {
    let (height, width, size) = (7, 9, 4);
    let settings = [("size", Setting::Count(size)), ("fill", Setting::Number(-5.0))];
    let cutout = made_with("cutout", &[2, height, width], &settings);
    let mut areas = std::collections::BTreeSet::new();
    for place in 0..300 {
        let mut raw = ramp(2 * height * width);
        cutout.apply(&mut raw, &mut stream(place));
        let blank: Vec<usize> = (0..height * width).filter(|&i| raw[i] == -5.0).collect();
        let rows: std::collections::BTreeSet<usize> = blank.iter().map(|i| i / width).collect();
        let columns: std::collections::BTreeSet<usize> = blank.iter().map(|i| i % width).collect();
        assert_eq!(blank.len(), rows.len() * columns.len(), "a rectangle");
        assert!((size / 2..=size).contains(&rows.len()) && (size / 2..=size).contains(&columns.len()));
        assert!(blank.iter().all(|i| raw[height * width + i] == -5.0), "in every channel");
        areas.insert(blank.len());
    }
    assert!(areas.contains(&(size * size)) && areas.contains(&(size * size / 4)), "{areas:?}");
}

#[test]
fn color_jitter_stays_within_its_factors_and_range() {
    let only = |what: &'static str| {
        let none = ["brightness", "contrast", "saturation"].map(|name| (name, Setting::Number(0.0)));
        made_with("color_jitter", &[3, 1, 2], &[&none[..], &[(what, Setting::Number(0.5))]].concat())
    };
    // Pixels (10, 20, 30) and (40, 20, 200), channel by channel.
    let image = [10.0, 40.0, 20.0, 20.0, 30.0, 200.0];
    let grays = [0.2989 * 10.0 + 0.587 * 20.0 + 0.114 * 30.0, 0.2989 * 40.0 + 0.587 * 20.0 + 0.114 * 200.0_f32];
    let mean = (grays[0] + grays[1]) / 2.0;
    for place in 0..200 {
        for (what, toward) in [("brightness", [0.0; 2]), ("contrast", [mean; 2]), ("saturation", grays)] {
            let mut raw = image;
            only(what).apply(&mut raw, &mut stream(place));
            let factor = (raw[2] - toward[0]) / (image[2] - toward[0]);
            assert!((0.5..=1.5).contains(&factor), "{what}: {factor}");
            for (i, (&found, before)) in raw.iter().zip(image).enumerate() {
                let expected = (toward[i % 2] + factor * (before - toward[i % 2])).clamp(0.0, 255.0);
                assert!((found - expected).abs() < 2e-2, "{what} by {factor}: {found}, {expected}");
            }
        }
    }
}

#[test]
fn windows_keep_the_order_and_the_range_of_a_series() {
    for (name, length) in [("window_slice", 40), ("window_warp", 40), ("window_slice", 1), ("window_warp", 1)] {
        let augment = made_with(name, &[2, length], &[("window", Setting::Number(0.5))]);
        for place in 0..100 {
            let mut raw = [ramp(length), ramp(length)].concat();
            augment.apply(&mut raw, &mut stream(place));
            let (a, b) = raw.split_at(length);
            assert_eq!(a, b, "{name}: channels stay in step");
            assert!(a.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {a:?}");
            assert!(a[0] >= 1.0 && a[length - 1] <= length as f32, "{name}: {a:?}");
            if name == "window_warp" {
                assert_eq!((a[0], a[length - 1]), (1.0, length as f32), "the ends stay");
            } else if length > 1 {
                assert!((a[length - 1] - a[0] - 19.0).abs() < 1e-4, "half of the series: {a:?}");
            }
        }
    }
    for length in 2..8 {
        let settings = [("window", Setting::Number(1.0)), ("factor", Setting::Number(16.0))];
        let warp = made_with("window_warp", &[1, length], &settings);
        for place in 0..10 {
            let mut raw = ramp(length);
            warp.apply(&mut raw, &mut stream(place));
            assert!(raw.iter().all(|x| (1.0..=length as f32).contains(x)), "{length}: {raw:?}");
        }
    }
    // A window of 10 steps gets 20 or 5, of which the whole of 50 or 35 is brought to 40: slopes in it are
    // 9/19 * 49/39 or 9/4 * 34/39.
    let warp = made_with("window_warp", &[1, 40], &[("window", Setting::Number(0.25))]);
    let slopes = |place| {
        let mut raw = ramp(40);
        warp.apply(&mut raw, &mut stream(place));
        raw.windows(2).map(|pair| pair[1] - pair[0]).fold((f32::MAX, f32::MIN), |(l, h), s| (l.min(s), h.max(s)))
    };
    assert!((0..20).any(|place| (slopes(place).0 - 0.5951).abs() < 1e-3), "stretched");
    assert!((0..20).any(|place| (slopes(place).1 - 1.9615).abs() < 1e-3), "shortened");
}

#[test]
fn shares_of_mixup_have_the_spread_of_their_distribution() {
    let n = 20_000_u32;
    for alpha in [0.1, 0.2, 1.0, 3.0] {
        let mixup = made("mixup", &[2], ("alpha", Setting::Number(alpha)));
        let mut spread = 0.0;
        for place in 0..n {
            let mut raw = [1.0, 8.0];
            let share = mixup.mix(&mut raw, &[3.0, 0.0], &mut stream(u64::from(place)));
            assert!((0.5..=1.0).contains(&share), "{share}");
            assert_eq!(raw, [share + (1.0 - share) * 3.0, share * 8.0]);
            spread += f64::from(share - 0.5).powi(2);
        }
        // The variance of Beta(a, a), 1 / (4 (2 a + 1)); five standard errors are below 0.0036.
        let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
        assert!((spread / f64::from(n) - expected).abs() < 0.0036, "{alpha}: {} {expected}", spread / f64::from(n));
    }
}

#[test]
fn a_mixed_sample_names_both_classes_in_whatever_company() {
    let mut samples = Samples::new(4);
    (0..8).for_each(|i| samples.push(&[i as f32; 4], i));
    let augment = [made("mixup", &[4], ("alpha", Setting::Number(1.0)))];
    let load = |places: &[usize], epoch| {
        let mut batch = RawBatch::default();
        load(&samples, None, places, &augment, 9, epoch, &mut batch);
        batch
    };
    let all = load(&[0, 1, 2, 3, 4, 5, 6, 7], 4);
    assert_eq!(all.labels, [0, 1, 2, 3, 4, 5, 6, 7]);
    for ((values, label), (other, share)) in all.values.chunks(4).zip(&all.labels).zip(&all.mixed) {
        let expected = share * *label as f32 + (1.0 - share) * *other as f32;
        assert!(values.iter().all(|value| (value - expected).abs() < 1e-5), "{values:?} {expected}");
    }
    let two = load(&[5, 2], 4);
    assert_eq!(
        (two.values, two.mixed),
        ([&all.values[20..24], &all.values[8..12]].concat(), vec![all.mixed[5], all.mixed[2]])
    );
    assert_ne!(load(&[2], 5).mixed, [all.mixed[2]]);
    // A replica mixes what is its own with nothing else.
    let (mut own, mut partners) = (RawBatch::default(), BTreeSet::new());
    for epoch in 0..20 {
        crate::data::load(&samples, Some(&[6, 1]), &[1, 6], &augment, 9, epoch, &mut own);
        partners.extend(std::mem::take(&mut own.mixed).into_iter().map(|(label, _)| label));
    }
    assert_eq!(partners.into_iter().collect::<Vec<_>>(), [1, 6]);
    // Two mixing augmentations would need three labels.
    let choice = || Choice { name: "mixup", options: Options::defaults(super::mixup::OPTIONS) };
    let refused = build(&[choice(), choice()], &[4], None).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("expected one augmentation that mixes samples, found 2"), "{refused}");
}

#[test]
fn samples_of_another_shape_are_refused() {
    for kind in AUGMENTATIONS {
        let refused: Vec<usize> = (1..=3)
            .filter(|&rank| (kind.build)(&Options::defaults(kind.options), &[4, 4, 4][..rank]).is_err())
            .collect();
        let expected: &[usize] = match kind.name {
            "jitter" | "mixup" => &[],
            "scaling" | "window_slice" | "window_warp" => &[1, 3],
            "color_jitter" | "rand_augment" => &[1, 2, 3],
            _ => &[1, 2],
        };
        assert_eq!(refused, expected, "{}", kind.name);
    }
}

#[test]
fn colors_reach_to_the_largest_value_of_the_data_or_the_recipe() {
    for kind in AUGMENTATIONS.iter().filter(|kind| ["color_jitter", "rand_augment"].contains(&kind.name)) {
        let largest = |most: f64, raw_max: Option<f32>| {
            let options = Options::defaults(kind.options).with("most", Setting::Number(most));
            let augment = build(&[Choice { name: kind.name, options }], &[1, 4, 4], raw_max)?.remove(0);
            let mut largest = 0.0_f32;
            for place in 0..200 {
                let mut raw: Vec<f32> = (0..16).map(|i| i as f32 / 15.0).collect();
                augment.apply(&mut raw, &mut stream(place));
                largest = raw.into_iter().fold(largest, f32::max);
            }
            kd_runtime::Result::Ok(largest)
        };
        for (most, raw_max) in [(0.0, Some(1.0)), (1.0, None), (1.0, Some(255.0))] {
            let largest = largest(most, raw_max).expect("a range");
            assert!((largest - 1.0).abs() < 1e-5, "{} of {most} and {raw_max:?}: {largest}", kind.name);
        }
        let refused = largest(0.0, None).expect_err("no range").to_string();
        let expected = "expected the largest raw value, found a format that does not know it; set its option `most`";
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn colors_are_changed_of_one_or_three_channels() {
    for name in ["color_jitter", "rand_augment"] {
        let kind = AUGMENTATIONS.iter().find(|kind| kind.name == name).unwrap();
        let taken = |channels| (kind.build)(&Options::defaults(kind.options), &[channels, 4, 4]).is_ok();
        assert_eq!([1, 2, 3, 4].map(taken), [true, false, true, false], "{name}");
    }
}
