//! Every method's gradient against central differences, and what distinguishes it from its usual mistakes.

use super::kd::soft_targets;
use super::rows::Reduction;
use super::table::METHODS;
use super::{Batch, ce};
use crate::exec::random::Stream;
use crate::options::{Kind, Options, Setting};

fn noise(place: u64, n: usize, scale: f64) -> Vec<f64> {
    let stream = Stream::new(3, place);
    (0..n).map(|i| (f64::from(stream.uniform(i)) * 2.0 - 1.0) * scale).collect()
}

/// All combinations of an entry's choices and flags, other options at their defaults and at a second value.
fn variants(method: &super::Method) -> Vec<Options> {
    let mut variants = vec![Options::defaults(method.options)];
    for spec in method.options {
        let others: Vec<Setting> = match spec.kind {
            Kind::Choice { known, .. } => known.iter().map(|word| Setting::Text(word.to_string())).collect(),
            Kind::Flag { default } => vec![Setting::Flag(!default)],
            Kind::Number { default, .. } => vec![Setting::Number(default * 0.5 + 0.3)],
            _ => vec![],
        };
        let more: Vec<Options> = (variants.iter())
            .flat_map(|options| others.iter().map(|setting| options.clone().with(spec.name, setting.clone())))
            .collect();
        variants.extend(more);
    }
    variants
}

#[test]
fn every_gradient_equals_central_differences() {
    let (size, classes) = (5, 4);
    let labels = [0, 3, 1, 1, 2];
    let to_f32 = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let mut failed = Vec::new();
    for method in METHODS {
        for options in variants(method) {
            let mut loss = (method.build)(&options);
            let batch = Batch { size, labels: &labels };
            let mut student = to_f32(noise(1, size * classes, 2.0));
            let teacher = to_f32(noise(2, size * classes, 2.0));
            let mut d = vec![f32::NAN; student.len()];
            let mut value = |student: &[f32], d: &mut [f32]| {
                loss.value(&batch, &[student], &[&teacher], &mut [d]).unwrap_or(f32::NAN)
            };
            value(&student, &mut d);
            let mut spare = d.clone();
            // f32: rounding 1e-7 of a value up to 50 over a step of 0.02 gives 3e-4 of the gradient's scale.
            let step = 1e-2_f32;
            for i in 0..student.len() {
                let old = student[i];
                student[i] = old + step;
                let above = value(&student, &mut spare);
                student[i] = old - step;
                let below = value(&student, &mut spare);
                student[i] = old;
                let expected = (above - below) / (2.0 * step);
                let scale = d.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
                let off = (d[i] - expected).abs();
                if off.is_nan() || off > 2e-3 * scale {
                    failed.push(format!("{} {options:?}: {i}: {} expected {expected}", method.name, d[i]));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn names_are_unique_and_described() {
    for (i, method) in METHODS.iter().enumerate() {
        assert!(!method.about.is_empty() && METHODS[..i].iter().all(|other| other.name != method.name));
    }
}

/// Value and gradient of the default form at a temperature.
fn kd(student: &[f64], teacher: &[f64], classes: usize, temperature: f64) -> (f64, Vec<f64>) {
    let mut d = vec![0.0; student.len()];
    let value = soft_targets(student, teacher, classes, temperature, Reduction::BatchMean, true, &mut d);
    (value, d)
}

#[test]
fn the_gradient_hardly_depends_on_the_temperature() {
    let (student, teacher) = (noise(1, 40, 0.1), noise(2, 40, 0.1));
    let norm = |t: f64| kd(&student, &teacher, 10, t).1.iter().map(|d| d * d).sum::<f64>().sqrt();
    assert!((norm(4.0) / norm(8.0) - 1.0).abs() < 0.2, "{} {}", norm(4.0), norm(8.0));
}

#[test]
fn the_divergence_is_from_teacher_to_student() {
    // A teacher that is sure, a student that knows nothing: ln K. The other direction would be large.
    let (value, _) = kd(&[0.0; 5], &[50.0, 0.0, 0.0, 0.0, 0.0], 5, 1.0);
    assert!((value - 5.0_f64.ln()).abs() < 1e-9, "{value}");
}

#[test]
fn impossible_classes_change_nothing() {
    let (student, teacher) = (noise(1, 6, 2.0), noise(2, 6, 2.0));
    let wider = |row: &[f64]| row.chunks(3).flat_map(|r| [r, &[-1e4; 3]].concat()).collect::<Vec<f64>>();
    let (narrow, _) = kd(&student, &teacher, 3, 2.0);
    let (wide, _) = kd(&wider(&student), &wider(&teacher), 6, 2.0);
    assert!((narrow - wide).abs() < 1e-12, "{narrow} {wide}");
}

#[test]
fn refuses_labels_and_rows_that_do_not_fit() {
    let mut loss = ce::build(&Options::defaults(ce::OPTIONS));
    let mut run = |size: usize, labels: &[usize], logits: &[f32]| {
        let mut d = vec![0.0; logits.len()];
        loss.value(&Batch { size, labels }, &[logits], &[], &mut [&mut d]).map_err(|refusal| refusal.to_string())
    };
    assert!(run(2, &[0, 1], &[0.0; 4]).is_ok());
    assert_eq!(
        run(2, &[0, 2], &[0.0; 4]).unwrap_err().split(';').next(),
        Some("label: expected a class below 2, found 2")
    );
    assert!(run(2, &[0, 1], &[0.0; 5]).is_err());
    assert!(run(2, &[0], &[0.0; 4]).is_err());
    assert!(run(0, &[], &[]).is_err());
}
