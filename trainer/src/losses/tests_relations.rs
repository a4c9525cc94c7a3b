//! What methods of relations (and of few classes) are known to get wrong.

use super::pkt::probabilistic;
use super::relation::{huber, squared_distances, to_f64};
use super::rkd_a::{self, angles};
use super::rkd_d::{self, distances};
use super::sp::similarities;
use super::tests::noise;
use super::{cc, dkd, nkd};

fn distance_form(zero: &str) -> rkd_d::Form {
    rkd_d::Form { mu: "distinct".into(), clamp: zero == "clamp", reduction: "mean".into(), l2norm: false }
}

fn angle_form(l2norm: bool) -> rkd_a::Form {
    rkd_a::Form { official_zero: false, reduction: "mean".into(), l2norm }
}

/// `mean huber(cos - cos)` as the paper writes it, triple by triple.
fn angles_by_definition(student: &[f64], teacher: &[f64], columns: [usize; 2], n: usize) -> f64 {
    let cosine = |x: &[f64], d: usize, [i, j, k]: [usize; 3]| {
        let unit = |a: usize| {
            let e: Vec<f64> = (0..d).map(|c| x[a * d + c] - x[j * d + c]).collect();
            let length = e.iter().map(|e| e * e).sum::<f64>().sqrt();
            e.into_iter().map(move |e| if length > 0.0 { e / length } else { 0.0 }).collect::<Vec<_>>()
        };
        unit(i).iter().zip(unit(k)).map(|(a, b)| a * b).sum::<f64>()
    };
    let triples = (0..n * n * n).map(|at| [at / n / n, at / n % n, at % n]);
    let values = triples.map(|at| huber(cosine(student, columns[0], at) - cosine(teacher, columns[1], at)).0);
    values.sum::<f64>() / (n * n * n) as f64
}

#[test]
fn angles_are_those_of_the_definition_at_any_batch() {
    // 9 and 17 reach into a second and third block of the padded rows; one sample is there twice.
    for n in [1, 2, 3, 8, 9, 17] {
        let (mut student, teacher) = (noise(1, n * 5, 2.0), noise(2, n * 3, 2.0));
        if n > 4 {
            let first = student[..5].to_vec();
            student[3 * 5..4 * 5].copy_from_slice(&first);
        }
        let mut d = vec![f64::NAN; student.len()];
        let found = angles([&student, &teacher], [5, 3], &angle_form(false), &mut d);
        let expected = angles_by_definition(&student, &teacher, [5, 3], n);
        assert!((found - expected).abs() < 1e-12, "batch {n}: {found}, expected {expected}");
        assert!(d.iter().all(|d| d.is_finite()), "batch {n}");
    }
}

#[test]
fn the_gradient_of_normalized_embeddings_equals_central_differences() {
    let (student, teacher) = (noise(1, 7 * 5, 2.0), noise(2, 7 * 3, 2.0));
    let value = |x: &[f64], d: &mut [f64]| {
        let form = rkd_d::Form { l2norm: true, ..distance_form("clamp") };
        let mut d_other = vec![0.0; d.len()];
        let value =
            angles([x, &teacher], [5, 3], &angle_form(true), d) + distances([x, &teacher], [5, 3], &form, &mut d_other);
        d.iter_mut().zip(d_other).for_each(|(d, other)| *d += other);
        value
    };
    let mut d = vec![0.0; student.len()];
    value(&student, &mut d);
    for i in 0..student.len() {
        let at = |by: f64| {
            let mut moved = student.clone();
            moved[i] += by;
            value(&moved, &mut vec![0.0; student.len()])
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((d[i] - expected).abs() < 1e-8, "{i}: {}, expected {expected}", d[i]);
    }
}

#[test]
fn a_duplicate_far_from_zero_stays_one_in_f32() {
    // Numbers on a grid of 2⁻¹⁰, so that adding 100 rounds nothing.
    let grid = |place: u64, n: usize| -> Vec<f32> {
        noise(place, n, 2.0).into_iter().map(|x| ((x * 1024.0).round() / 1024.0) as f32).collect()
    };
    let (mut near, teacher) = (grid(1, 6 * 16), grid(2, 6 * 8));
    let first = near[..16].to_vec();
    near[4 * 16..5 * 16].copy_from_slice(&first);
    let far: Vec<f32> = near.iter().map(|x| x + 100.0).collect();
    assert_eq!(squared_distances(&to_f64(&far), 16)[4], 0.0);
    let run = |x: &[f32]| {
        let (mut d, mut d_angles) = (vec![0.0_f32; x.len()], vec![0.0_f32; x.len()]);
        let values = [
            distances([x, &teacher], [16, 8], &distance_form("clamp"), &mut d),
            angles([x, &teacher], [16, 8], &angle_form(false), &mut d_angles),
        ];
        (values, d, d_angles)
    };
    assert_eq!(run(&near), run(&far));
    let (_, d, d_angles) = run(&near);
    assert!(d.iter().chain(&d_angles).all(|d| d.abs() < 1.0), "{d:?} {d_angles:?}");
}

#[test]
fn the_mean_distance_is_part_of_the_gradient() {
    let (student, teacher) = (noise(1, 6 * 5, 2.0), noise(2, 6 * 3, 2.0));
    for mu in ["distinct", "nonzero", "all"] {
        let form = rkd_d::Form { mu: mu.into(), ..distance_form("exact") };
        let mut d = vec![0.0; student.len()];
        let value = distances([&student, &teacher], [5, 3], &form, &mut d);
        // A loss that no scale changes has no slope along the student itself.
        let along: f64 = d.iter().zip(&student).map(|(d, x)| d * x).sum();
        let size: f64 = d.iter().map(|d| d.abs()).sum();
        let scaled: Vec<f64> = student.iter().map(|x| 7.0 * x).collect();
        let again = distances([&scaled, &teacher], [5, 3], &form, &mut d);
        assert!(along.abs() < 1e-12 && size > 1e-3 && (value - again).abs() < 1e-12, "{mu}: {along} {value} {again}");
    }
}

#[test]
fn huber_turns_at_one() {
    assert_eq!([0.5, 1.0, 3.0, -3.0].map(huber), [(0.125, 0.5), (0.5, 1.0), (2.5, 1.0), (2.5, -1.0)]);
    assert!(huber(f64::NAN).0.is_nan());
}

#[test]
fn features_without_any_distance_have_no_loss() {
    let (constant, teacher) = (vec![1.0; 12], noise(2, 4 * 3, 2.0));
    for sides in [[&constant[..], &teacher], [&teacher[..], &constant]] {
        let mut d = vec![f64::NAN; 12];
        let value = distances(sides, [3, 3], &distance_form("exact"), &mut d);
        assert_eq!((value, d), (0.0, vec![0.0; 12]));
    }
}

#[test]
fn relations_do_not_see_how_long_features_are() {
    let (student, teacher) = (noise(1, 5 * 4, 2.0), noise(2, 5 * 3, 2.0));
    let scaled: Vec<f64> = student.iter().map(|x| 3.0 * x).collect();
    type Relation = fn([&[f64]; 2], [usize; 2], &mut [f64]) -> f64;
    let kernels: Relation = |sides, columns, d| cc::kernels(sides, columns, 0.4, 2, d);
    for (name, loss, bound) in
        [("sp", similarities as Relation, 1e-12), ("pkt", probabilistic, 1e-6), ("cc", kernels, 1e-12)]
    {
        let mut d = vec![0.0; 20];
        let values = [&student, &scaled].map(|x| loss([x, &teacher], [4, 3], &mut d));
        assert!(values[0] > 1e-4 && (values[0] - values[1]).abs() < bound, "{name}: {values:?}");
    }
}

#[test]
fn the_other_class_of_two_hands_nothing_over() {
    let (student, teacher) = (noise(1, 8, 2.0), noise(2, 8, 2.0));
    let mut d = [0.0; 8];
    let [binary, others] = dkd::decoupled([&student, &teacher], &[0, 1, 1, 0], 4.0, [1.0, 8.0], &mut d);
    assert!(binary > 0.0 && others == 0.0 && d.iter().all(|d| d.is_finite()), "{binary} {others} {d:?}");
    let [target, others] = nkd::normalized([&student, &teacher], &[0, 1, 1, 0], 1.0, 1.5, &mut d);
    assert!(target > 0.0 && others == 0.0 && d.iter().all(|d| d.is_finite()), "{target} {others} {d:?}");
}
