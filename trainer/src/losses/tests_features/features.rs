//! What distinguishes methods of features from their usual mistakes.

use super::super::ab::{METHOD as AB, activation_boundary};
use super::super::at::attention_distance;
use super::super::cosine::angle;
use super::super::nst::selectivity;
use super::super::soft_dtw::{Tables, alignment};
use super::super::vid::{LEAST_VARIANCE, information};
use super::super::{ft, ofd};
use super::{BATCH, SIZE, built, network_for, noise, tapped};
use crate::options::{Options, Setting};

fn length(d: &[f32]) -> f64 {
    d.iter().map(|d| f64::from(d * d)).sum::<f64>().sqrt()
}

#[test]
fn a_neuron_at_zero_is_off_and_one_at_the_margin_has_no_gradient() {
    let mut d = [f64::NAN; 3];
    // Off for a teacher of exactly 0: a student at -1 is right, one at 0 misses by 1.
    assert_eq!(activation_boundary(&[-1.0, 0.0, 1.0], &[0.0; 3], 1.0, 1.0, &mut d), 5.0);
    assert_eq!(d, [0.0, 2.0, 4.0]);
    assert_eq!(activation_boundary(&[1.0, 2.0, 0.0], &[0.1; 3], 1.0, 1.0, &mut d), 1.0);
    assert_eq!(d, [0.0, 0.0, -2.0]);
    assert!(activation_boundary(&[f64::NAN], &[1.0], 1.0, 1.0, &mut d[..1]).is_nan());
}

#[test]
fn activation_boundaries_weigh_the_deepest_pair_most() {
    let student = network_for(&[1, 6, 6], "resnet8", ("widths", &[2, 2, 2]), 1);
    let teacher = network_for(&[1, 6, 6], "resnet20", ("widths", &[2, 2, 2]), 2);
    let (mut loss, graph) = built(&AB, &Options::defaults(AB.options), (&student, &teacher)).unwrap();
    assert_eq!(loss.student_taps(), ["stage1.pre", "stage2.pre", "stage3.pre"], "taps before the activation");
    // A student that misses every neuron by 1: what is left is the weight of the pair and its neurons.
    let taps = tapped(&graph, loss.student_taps(), SIZE, 1);
    let zeros: Vec<Vec<f32>> = taps.iter().map(|tap| vec![0.0; tap.len()]).collect();
    let ones: Vec<Vec<f32>> = taps.iter().map(|tap| vec![1.0; tap.len()]).collect();
    let slices = |taps: &[Vec<f32>]| taps.iter().map(|tap| tap.clone().leak() as &[f32]).collect::<Vec<_>>();
    let mut d = zeros.clone();
    let mut d_slices: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
    loss.value(&BATCH, &slices(&zeros), &slices(&ones), &mut d_slices, &mut []).unwrap();
    let each: Vec<f32> = d.iter().map(|d| d[0]).collect();
    assert!(each[0] < 0.0 && each[1] == 2.0 * each[0] && each[2] == 4.0 * each[0], "{each:?}");
}

/// The sum's factor of 3/1000 is none of the mean's.
#[test]
fn a_mean_over_neurons_has_no_factor_unless_one_is_set() {
    let student = network_for(&[1, 6, 6], "resnet8", ("widths", &[2, 2, 2]), 1);
    let teacher = network_for(&[1, 6, 6], "resnet20", ("widths", &[2, 2, 2]), 2);
    // Every neuron is missed by 1: 1 of the deepest pair, a half and a quarter of those before.
    let value = |reduction: &str, scale: Option<f64>| {
        let options = Options::defaults(AB.options).with("reduction", Setting::Text(reduction.into()));
        let options = scale.into_iter().fold(options, |options, x| options.with("scale", Setting::Number(x)));
        let (mut loss, graph) = built(&AB, &options, (&student, &teacher)).unwrap();
        let zeros: Vec<Vec<f32>> =
            tapped(&graph, loss.student_taps(), SIZE, 1).iter().map(|tap| vec![0.0; tap.len()]).collect();
        let zeros: Vec<&[f32]> = zeros.iter().map(Vec::as_slice).collect();
        let mut d: Vec<Vec<f32>> = zeros.iter().map(|tap| tap.to_vec()).collect();
        let mut d: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
        let value = loss.value(&BATCH, &zeros, &zeros, &mut d, &mut []).unwrap();
        let neurons: Vec<usize> = zeros.iter().map(|tap| tap.len() / SIZE).collect();
        let sum = neurons.iter().zip([0.25, 0.5, 1.0]).map(|(&n, weight)| n as f32 * weight).sum::<f32>();
        (value, sum)
    };
    assert!((value("mean", None).0 - 1.75).abs() < 1e-5, "{:?}", value("mean", None));
    assert!((value("mean", Some(0.003)).0 - 1.75 * 0.003).abs() < 1e-7);
    for reduction in ["batch", "sum"] {
        let (found, sum) = value(reduction, None);
        let expected = 0.003 * sum * if reduction == "sum" { SIZE as f32 } else { 1.0 };
        assert!((found / expected - 1.0).abs() < 1e-5, "{reduction}: {found}, expected {expected}");
        assert_eq!(found, value(reduction, Some(0.003)).0);
    }
}

#[test]
fn rows_of_zeros_give_no_nan_and_no_explosion() {
    let (zeros, some) = (vec![0.0_f32; 12], noise(1, 12, 1.0).into_iter().map(|x| x as f32).collect::<Vec<_>>());
    for (s, t) in [(&zeros, &some), (&some, &zeros), (&zeros, &zeros)] {
        for (name, f) in [
            ("cosine", &(|d: &mut [f32]| angle(s, t, 3, 2, d)) as &dyn Fn(&mut [f32]) -> f32),
            ("at", &|d| attention_distance(s, t, [3, 3], 2, 2, false, d)),
            ("at, paper", &|d| attention_distance(s, t, [3, 3], 2, 2, true, d)),
            ("nst", &|d| selectivity(s, t, [3, 3], 2, d)),
            ("ft", &|d| ft::factor_distance(s, t, [3, 3], 2, 1, d)),
        ] {
            let mut d = vec![f32::NAN; 12];
            let value = f(&mut d);
            // Channels of zeros meet a channel of length 1: their gradient is that of a division by 1e-12.
            let bounded = name == "nst" || length(&d) < 10.0;
            assert!(value.is_finite() && d.iter().all(|d| d.is_finite()) && bounded, "{name}: {value} {d:?}");
        }
    }
}

#[test]
fn a_variance_of_a_hundred_does_not_overflow_and_is_trained() {
    let (m, t) = (noise(1, 12, 1.0), noise(2, 12, 1.0));
    let [m, t] = [m, t].map(|x| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>());
    let run = |log_scale: f32| {
        let (mut d, mut d_scale) = (vec![f32::NAN; 12], vec![f32::NAN; 2]);
        let value = information(&m, &t, &[log_scale; 2], 2, LEAST_VARIANCE, &mut d, &mut d_scale);
        assert!(d.iter().chain(&d_scale).all(|d| d.is_finite()), "{log_scale}: {d:?} {d_scale:?}");
        (f64::from(value), d_scale)
    };
    let (value, d_scale) = run(100.0);
    assert!((value - 0.5 * 100.0_f64.ln()).abs() < 1e-2 && d_scale[0] > 0.0, "{value} {d_scale:?}");
    let (low, d_scale) = run(-100.0);
    // The variance is 1e-5 there, and softplus flat.
    assert!(low > 1e3 && d_scale[0].abs() < 1e-6, "{low} {d_scale:?}");
}

#[test]
fn equal_networks_are_no_distance_apart() {
    let x = noise(1, 24, 1.0);
    let mut d = vec![f64::NAN; 24];
    let zero = |name: &str, value: f64, d: &[f64]| {
        assert!(value.abs() < 1e-12 && d.iter().all(|d| d.abs() < 1e-12), "{name}: {value} {d:?}");
    };
    let value = selectivity(&x, &x, [3, 3], 4, &mut d);
    zero("nst", value, &d);
    let value = alignment(&x, &x, [2, 3], 0.5, true, &mut Tables::default(), &mut d);
    zero("soft_dtw", value, &d);
    // Without its second half soft DTW of equal series is below 0, and pulls.
    let value = alignment(&x, &x, [2, 3], 0.5, false, &mut Tables::default(), &mut d);
    assert!(value < -1e-3 && d.iter().any(|d| d.abs() > 1e-3), "{value}");
}

#[test]
fn the_divergence_of_series_of_other_lengths_is_not_negative() {
    for place in 0..20 {
        let (s, t) = (noise(2 * place, 2 * 3 * 5, 1.0), noise(2 * place + 1, 2 * 3 * 8, 1.0));
        let mut d = vec![f64::NAN; s.len()];
        let value = alignment(&s, &t, [2, 3], 1.0, true, &mut Tables::default(), &mut d);
        assert!(value > 0.0, "{value}");
    }
}

#[test]
fn a_margin_is_the_mean_of_what_a_batch_norm_makes_negative() {
    // E[x | x < 0] of a standard normal is -√(2/π).
    assert!((ofd::margin(1.0, 0.0) + (2.0 / std::f64::consts::PI).sqrt()).abs() < 1e-12);
    assert!((ofd::margin(-1.0, 0.0) - ofd::margin(1.0, 0.0)).abs() < 1e-12, "the sign of a scale changes nothing");
    assert_eq!(ofd::margin(2.0, 100.0), -6.0, "almost never negative: -3 deviations");
    assert_eq!(ofd::margin(0.0, 0.0), 0.0, "always 0");
    assert!(ofd::margin(f64::NAN, 0.0).is_nan());
    assert!(ofd::margin(1e-3, -5.0) > -5.1 && ofd::margin(1e-3, -5.0) < -4.9, "almost always negative: the mean");
}

#[test]
fn a_paraphraser_gives_the_teacher_back_and_learns_from_that_alone() {
    let (channels, places) = (3, 4);
    let t = noise(1, 2 * channels * places, 1.0);
    let (encode, decode) = (noise(2, 2 * channels, 0.7), noise(3, channels * 2, 0.7));
    let value = |encode: &[f64], decode: &[f64]| {
        let (mut d_encode, mut d_decode) = (vec![f64::NAN; 6], vec![f64::NAN; 6]);
        let value = ft::reconstruction(&t, [encode, decode], channels, places, [&mut d_encode, &mut d_decode]);
        (value, d_encode, d_decode)
    };
    let (_, d_encode, d_decode) = value(&encode, &decode);
    for i in 0..6 {
        let moved = |by: f64| {
            let (mut encode, mut decode) = (encode.clone(), decode.clone());
            encode[i] += by;
            let first = value(&encode, &decode).0;
            encode[i] -= by;
            decode[i] += by;
            [first, value(&encode, &decode).0]
        };
        let (above, below) = (moved(1e-5), moved(-1e-5));
        for (k, d) in [d_encode[i], d_decode[i]].into_iter().enumerate() {
            let expected = (above[k] - below[k]) / 2e-5;
            assert!((d - expected).abs() < 1e-8, "{i} {k}: {d}, {expected} by differences");
        }
    }
}
