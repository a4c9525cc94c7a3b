//! Methods with memories, exits, adapters and constants of their own.

use kd_runtime::graph::Graph;

use super::byot::{self, Exit, Form};
use super::pair::cut;
use super::tests::{contract, network, noise, tapped};
use super::{Batch, Loss, Method, Pair, cc, crd, cs_kd, ft, ofa, ps_kd, srrl, wsld};
use crate::exec::Parameter;
use crate::options::{Options, Setting};

/// Negatives are drawn with replacement: more of them than there are others say nothing new and cost time.
#[test]
fn negatives_are_no_more_than_the_other_samples_unless_they_are_set() {
    let of = |samples| crd::negatives(&Options::defaults(crd::METHOD.options), samples);
    assert_eq!([1, 2, 257, 16_385, 50_000].map(of), [1, 1, 256, 16_384, 16_384]);
    let set = Options::defaults(crd::METHOD.options).with("negatives", Setting::Count(300));
    assert_eq!(crd::negatives(&set, 257), 300);
}

/// A method on a pair of residual networks: its loss, the student with adapters, and how many exits it made.
fn built(method: &Method, options: &Options, samples: usize) -> (Box<dyn Loss>, Graph, usize) {
    let contract = contract();
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), samples, 1);
    pair.begin_term(0);
    let loss = (method.build)(options, &mut pair).unwrap();
    let (graph, exits) = pair.into_parts();
    (loss, graph, exits.len())
}

/// Two terms of a method are two embeddings, not one twice.
#[test]
fn terms_draw_numbers_of_their_own() {
    let contract = contract();
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    for method in [&crd::METHOD, &ft::METHOD, &cc::METHOD] {
        let embedded = Options::defaults(method.options);
        let options = if method.name == "cc" { embedded.with("form", Setting::Text("rep".into())) } else { embedded };
        let own = |term: usize| {
            let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
            pair.begin_term(term);
            let own = (method.build)(&options, &mut pair).unwrap().own();
            own.into_iter().filter(|p| p.value.iter().any(|x| *x != p.value[0])).map(|p| p.value.to_vec()).collect()
        };
        let all: Vec<Vec<f32>> = (0..3).flat_map(|term| -> Vec<Vec<f32>> { own(term) }).collect();
        assert!(all.len() >= 3, "{}", method.name);
        for (i, one) in all.iter().enumerate() {
            let repeats = all[..i].iter().any(|other| one.iter().zip(other).filter(|(a, b)| a == b).count() > 2);
            assert!(!repeats, "{}: the numbers of another", method.name);
        }
    }
}

/// Largest deviation of a gradient from central differences of `value`.
fn deviation(x: &[f64], gradient: &[f64], value: impl Fn(&[f64]) -> f64) -> f64 {
    let at = |i: usize, by: f64| {
        let mut moved = x.to_vec();
        moved[i] += by;
        value(&moved)
    };
    let off = |i: usize| ((at(i, 1e-5) - at(i, -1e-5)) / 2e-5 - gradient[i]).abs();
    (0..x.len()).map(off).fold(0.0, f64::max)
}

#[test]
fn weights_of_soft_labels_are_constants() {
    let (student, teacher) = (noise(1, 12, 2.0), noise(2, 12, 2.0));
    let weights = wsld::weights([&student, &teacher], &[0, 2, 1]);
    assert!(weights.iter().all(|w| *w > 0.0 && *w < 1.0), "{weights:?}");
    let mut d = vec![0.0; 12];
    wsld::weighted_soft_labels(&student, &teacher, &weights, 2.0, &mut d);
    let value = |x: &[f64]| wsld::weighted_soft_labels(x, &teacher, &weights, 2.0, &mut [0.0; 12]);
    let off = deviation(&student, &d, value);
    assert!(off < 1e-9, "{off}");
}

#[test]
fn partners_are_constants_of_the_same_class() {
    let labels = [0, 3, 1, 1, 2, 0, 1];
    let partners = cs_kd::partners(&labels);
    assert_eq!(partners, [Some(5), None, Some(3), Some(6), None, Some(0), Some(2)]);
    let logits = noise(1, 28, 2.0);
    let mut d = vec![0.0; 28];
    let value = cs_kd::class_wise(&logits, &logits, &partners, 4.0, &mut d);
    assert!(value > 0.0 && d[4..8] == [0.0; 4] && d[16..20] == [0.0; 4], "{value} {d:?}");
    let off = deviation(&logits, &d, |x| cs_kd::class_wise(x, &logits, &partners, 4.0, &mut [0.0; 28]));
    assert!(off < 1e-9, "{off}");
    assert_eq!(cs_kd::class_wise(&logits[..8], &logits[..8], &cs_kd::partners(&[1, 2]), 4.0, &mut [0.0; 8]), 0.0);
}

#[test]
fn nothing_flows_into_the_deepest_part_and_repetition_changes_nothing() {
    let options = Options::defaults(byot::METHOD.options);
    let (mut loss, graph, exits) = built(&byot::METHOD, &options, 8);
    assert_eq!(exits, 2);
    let taps = tapped(&graph, loss.student_taps(), 3, 10);
    let mut run = |repeated: usize| {
        let taps: Vec<Vec<f32>> = taps.iter().map(|tap| tap.repeat(repeated)).collect();
        let mut d: Vec<Vec<f32>> = taps.iter().map(|tap| vec![f32::NAN; tap.len()]).collect();
        let labels = [0, 3, 1].repeat(repeated);
        let batch = Batch { size: labels.len(), labels: &labels, mixed: &[], places: &labels, progress: 0.0 };
        let taps: Vec<&[f32]> = taps.iter().map(Vec::as_slice).collect();
        let mut slices: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
        (loss.value(&batch, &taps, &[], &mut slices, &mut []).unwrap(), d)
    };
    let ((once, d), (twice, _)) = (run(1), run(2));
    assert!((once - twice).abs() < 1e-6 * once, "{once} {twice}");
    let (exits, deepest) = d.split_at(4);
    assert!(deepest.iter().flatten().all(|d| *d == 0.0) && exits.iter().all(|d| d.iter().any(|d| *d != 0.0)));
}

#[test]
fn the_default_hint_is_the_papers_divided_by_the_width() {
    let (own, deepest) = (noise(1, 3 * 5, 2.0), noise(2, 3 * 5, 2.0));
    let (logits, target) = (noise(3, 3 * 4, 2.0), noise(4, 3 * 4, 2.0));
    let exit = Exit { logits: [&logits, &target], features: [&own, &deepest], is_last: false };
    let run = |word: &str, lambda: f64| {
        let form = Form { alpha: 0.3, temperature: 3.0, tau2: true, lambda, word: word.into() };
        let (mut d, mut d_features) = (vec![0.0; 12], vec![0.0; 15]);
        (exit.loss(&[0_usize, 3, 1], &form, &mut d, &mut d_features), d_features)
    };
    let ((value, d), (paper, d_paper)) = (run("mean", 0.5), run("paper", 0.1));
    assert!((value - paper).abs() < 1e-12, "{value} {paper}");
    assert!(d.iter().zip(&d_paper).all(|(a, b)| (a - b).abs() < 1e-12));
}

/// A label of the larger share would be wrong by the other share.
#[test]
fn exits_have_both_classes_of_a_mixed_sample() {
    for word in byot::FORMS {
        let options = Options::defaults(byot::METHOD.options).with("form", Setting::Text(word.to_string()));
        let (mut loss, graph, _) = built(&byot::METHOD, &options, 8);
        let taps = tapped(&graph, loss.student_taps(), 3, 10);
        let taps: Vec<&[f32]> = taps.iter().map(Vec::as_slice).collect();
        let mut run = |labels: [usize; 3], mixed: &[(usize, f32)]| {
            let mut d: Vec<Vec<f32>> = taps.iter().map(|tap| vec![f32::NAN; tap.len()]).collect();
            let mut slices: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
            let batch = Batch { size: 3, labels: &labels, mixed, places: &[0, 1, 2], progress: 0.0 };
            (loss.value(&batch, &taps, &[], &mut slices, &mut []).unwrap(), d.concat())
        };
        let (first, second) = (run([0, 3, 1], &[]), run([2, 0, 0], &[]));
        let mixed = run([0, 3, 1], &[(2, 0.75), (0, 0.75), (0, 0.75)]);
        let mix = |a: f32, b: f32| 0.75 * a + 0.25 * b;
        let expected = mix(first.0, second.0);
        assert!((mixed.0 - expected).abs() < 1e-5 * expected && mixed.0 != first.0, "{word}: {} {expected}", mixed.0);
        let expected = first.1.iter().zip(&second.1).map(|(a, b)| mix(*a, *b));
        assert!(mixed.1.iter().zip(expected).all(|(d, expected)| (d - expected).abs() < 1e-5), "{word}");
    }
}

/// Values of a form on the same student, with options set.
fn of_form(word: &str, set: &[(&'static str, Setting)]) -> (f32, Vec<Vec<f32>>) {
    let options = Options::defaults(byot::METHOD.options).with("form", Setting::Text(word.into()));
    let options = set.iter().fold(options, |options, (name, setting)| options.with(name, setting.clone()));
    let (mut loss, graph, _) = built(&byot::METHOD, &options, 8);
    let taps = tapped(&graph, loss.student_taps(), 3, 10);
    let mut d: Vec<Vec<f32>> = taps.iter().map(|tap| vec![f32::NAN; tap.len()]).collect();
    let taps: Vec<&[f32]> = taps.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
    let batch = Batch { size: 3, labels: &[0, 3, 1], mixed: &[], places: &[0, 1, 2], progress: 0.0 };
    (loss.value(&batch, &taps, &[], &mut slices, &mut []).unwrap(), d)
}

#[test]
fn forms_have_defaults_of_their_own_and_leave_set_options_alone() {
    let number = |name, x| (name, Setting::Number(x));
    let flag = |yes| ("tau2", Setting::Flag(yes));
    #[rustfmt::skip]
    let cases = [
        ("mean", vec![number("alpha", 0.3), number("temperature", 3.0), flag(true), number("lambda", 0.03)]),
        ("paper", vec![number("alpha", 0.3), number("temperature", 1.0), flag(true), number("lambda", 0.03)]),
        ("seed_literal", vec![number("alpha", 0.3), number("temperature", 1.0), flag(false), number("lambda", 0.03)]),
        ("journal", vec![number("alpha", 0.3), number("temperature", 3.0), flag(false), number("lambda", 0.03)]),
        ("masked", vec![number("alpha", 0.1), number("temperature", 3.0), flag(true), number("lambda", 1e-6)]),
    ];
    let mut values = Vec::new();
    for (word, set) in cases {
        let left = of_form(word, &[]);
        assert_eq!(left, of_form(word, &set), "{word}");
        let other = of_form(word, &[number("temperature", 2.0), number("alpha", 0.5)]);
        assert_ne!(left.0, other.0, "{word}");
        values.push(left.0);
    }
    for (i, value) in values.iter().enumerate() {
        assert!(values[..i].iter().all(|other| other != value), "{values:?}");
    }
}

#[test]
fn the_seeds_letter_holds_the_deepest_cross_entropy_too() {
    let (paper, d_paper) = of_form("paper", &[]);
    let (seed, d_seed) = of_form("seed_literal", &[]);
    let deepest = d_seed.len() - 2;
    assert_eq!(d_seed[..deepest], d_paper[..deepest], "the exits");
    assert!(d_paper[deepest].iter().all(|d| *d == 0.0) && d_seed[deepest + 1].iter().all(|d| *d == 0.0));
    let (_, graph, _) = built(&byot::METHOD, &Options::defaults(byot::METHOD.options), 8);
    let logits = &tapped(&graph, &["logits".into()], 3, 10 + deepest as u64)[0];
    let mut d = vec![0.0; logits.len()];
    let ce = super::ce::cross_entropy(
        logits,
        [0, 3, 1][..].into(),
        4,
        &super::ce::Targets::default(),
        super::rows::Reduction::BatchMean,
        &mut d,
    );
    assert!((seed - paper - 0.7 * ce).abs() < 1e-5, "{seed} {paper} {ce}");
    assert!(d_seed[deepest].iter().zip(&d).all(|(found, d)| (found - 0.7 * d).abs() < 1e-6));
}

#[test]
fn a_student_of_one_stage_has_no_place_for_an_exit() {
    let (contract, student) = (contract(), network("cnn", &[3], 1));
    let mut pair = Pair::new(&student, &contract, None, 8, 1);
    let refusal = (byot::METHOD.build)(&Options::defaults(byot::METHOD.options), &mut pair).err().unwrap();
    assert!(refusal.to_string().starts_with("byot: expected a student of at least 2 stages"), "{refusal}");
}

/// What is kept of a student is the student; what was added has weights that differ and gets gradients (the learner's
/// tests).
#[test]
fn adapters_are_cut_off_what_is_kept() {
    let student = network("resnet8", &[2, 3, 4], 1);
    let rep = Options::defaults(super::cc::METHOD.options).with("form", Setting::Text("rep".into()));
    for (method, options) in [
        (&byot::METHOD, Options::defaults(byot::METHOD.options)),
        (&ofa::METHOD, Options::defaults(ofa::METHOD.options)),
        (&srrl::METHOD, Options::defaults(srrl::METHOD.options)),
        (&crd::METHOD, Options::defaults(crd::METHOD.options)),
        (&super::cc::METHOD, rep),
    ] {
        let (_, extended, _) = built(method, &options, 8);
        let parameters = |graph: &Graph| graph.stats().unwrap().parameters;
        let kept = cut(&extended, "logits", "logits").unwrap();
        assert!(parameters(&extended) > parameters(&student), "{}", method.name);
        assert_eq!(
            (parameters(&kept), kept.nodes.len()),
            (parameters(&student), student.nodes.len()),
            "{}",
            method.name
        );
    }
}

#[test]
fn the_frozen_classifier_is_the_teachers() {
    let (columns, weight) = (6, noise(5, 4 * 6, 1.0));
    let (student, teacher) = (noise(1, 3 * 6, 2.0), noise(2, 3 * 6, 2.0));
    let mut d = vec![0.0; 18];
    srrl::regression(&student, &teacher, &weight, columns, [0.5, 2.0], &mut d);
    let value = |x: &[f64]| {
        let [feature, answer] = srrl::regression(x, &teacher, &weight, columns, [0.5, 2.0], &mut [0.0; 18]);
        0.5 * feature + 2.0 * answer
    };
    assert!(deviation(&student, &d, value) < 1e-8);

    // A student that has the teacher's features answers as it does, whatever they are read from.
    let (contract, student, teacher) =
        (contract(), network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let options = Options::defaults(srrl::METHOD.options);
    for (tap, fits) in [("features", true), ("stage3", false)] {
        let options = options.clone().with("teacher", Setting::Text(tap.into()));
        let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
        match (srrl::METHOD.build)(&options, &mut pair) {
            Ok(mut loss) => {
                let features: Vec<f32> = noise(7, 2 * 6, 2.0).into_iter().map(|x| x as f32).collect();
                let mut d = vec![f32::NAN; 12];
                let batch = Batch { size: 2, labels: &[0, 1], mixed: &[], places: &[0, 1], progress: 0.0 };
                let value = loss.value(&batch, &[&features], &[&features], &mut [&mut d], &mut []).unwrap();
                assert!(fits && value == 0.0 && d == [0.0; 12], "{value}");
            }
            Err(refusal) => assert!(!fits && refusal.to_string().contains("a linear layer from `stage3`"), "{refusal}"),
        }
    }
}

fn run(loss: &mut dyn Loss, batch: &Batch<'_>, tap: &[f32], taught: &[&[f32]], own: &mut [Parameter<f32>]) -> f32 {
    let mut d = vec![f32::NAN; tap.len()];
    own.iter_mut().for_each(|own| own.gradient = vec![f32::NAN; own.value.len()].into());
    loss.value(batch, &[tap], taught, &mut [&mut d], own).unwrap()
}

#[test]
fn a_past_prediction_counts_when_its_sample_comes_again() {
    let (mut loss, ..) = built(&ps_kd::METHOD, &Options::defaults(ps_kd::METHOD.options), 3);
    let mut own = loss.own();
    assert_eq!((&own[0].shape[..], own[0].value.len()), (&[3, 4][..], 12));
    let logits = [1.0, 0.0, -1.0, 2.0];
    let batch = Batch { size: 1, labels: &[0], mixed: &[], places: &[2], progress: 0.5 };
    let log_sum = logits.iter().map(|z: &f32| z.exp()).sum::<f32>().ln();
    let first = run(&mut *loss, &batch, &logits, &[], &mut own);
    assert!((first - (log_sum - 1.0)).abs() < 1e-6, "{first}");
    assert!(own[0].value[..8].iter().all(|p| *p == 0.0), "{:?}", own[0].value);
    let entropy: f32 = logits.iter().map(|z| (z - log_sum).exp() * (log_sum - z)).sum();
    // Half way the share is 0.4.
    let second = run(&mut *loss, &batch, &logits, &[], &mut own);
    assert!((second - (0.6 * first + 0.4 * entropy)).abs() < 1e-6, "{second}");
    let refused = Batch { places: &[3], ..batch };
    let refusal = loss.value(&refused, &[&logits], &[], &mut [&mut [0.0; 4]], &mut own).unwrap_err().to_string();
    assert!(refusal.starts_with("ps_kd: expected places below 3, found 3"), "{refusal}");
}

#[test]
fn a_contrast_remembers_units_and_draws_the_same_again() {
    let options = Options::defaults(crd::METHOD.options).with("negatives", Setting::Count(5));
    let options = options.with("embed", Setting::Count(3));
    let (mut loss, graph, _) = built(&crd::METHOD, &options, 4);
    let (tap, teacher) = (&tapped(&graph, loss.student_taps(), 2, 10)[0], noise(3, 2 * 6, 2.0));
    let teacher: Vec<f32> = teacher.into_iter().map(|x| x as f32).collect();
    let batch = Batch { size: 2, labels: &[0, 1], mixed: &[], places: &[3, 1], progress: 0.25 };
    let mut own = loss.own();
    let untouched = own[2].value[..3].to_vec();
    run(&mut *loss, &batch, tap, &[&teacher], &mut own);
    let [_, _, memory, _, z, classes] = &own[..] else { panic!("{} arrays", own.len()) };
    for place in [3, 1] {
        let length: f32 = memory.value[place * 3..][..3].iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_eq!((&memory.value[..3], &classes.value[..]), (&untouched[..], &[-1.0, 1.0, -1.0, 0.0][..]));
    assert!(z.value.iter().all(|z| *z > 0.0), "{z:?}");
    // Resumed from the same arrays it is the same step; later it draws others.
    let later = Batch { progress: 0.5, ..batch };
    let [a, b, c] = [&batch, &batch, &later].map(|batch| run(&mut *loss, batch, tap, &[&teacher], &mut own.clone()));
    assert!(a == b && a != c, "{a} {b} {c}");
}
