//! What holds for every method: gradients against central differences, small batches, another teacher; and `kd`'s usual
//! mistakes.

use std::collections::BTreeMap;

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::graph::{Dim, Graph};

use super::kd::soft_targets;
use super::rows::{Average, Reduction};
use super::table::METHODS;
use super::{Batch, Loss, Method, Pair, ce, tests_features};
use crate::data::UNLABELLED;
use crate::exec::Parameter;
use crate::exec::random::Stream;
use crate::options::{Kind, Options, Setting};
use crate::recipe::Choice;
use crate::zoo::table::ARCHS;
use crate::zoo::{self, Site};

pub(super) fn noise(place: u64, n: usize, scale: f64) -> Vec<f64> {
    let stream = Stream::new(3, place);
    (0..n).map(|i| (f64::from(stream.uniform(i)) * 2.0 - 1.0) * scale).collect()
}

/// An entry's defaults with large counts made small, and those with one option changed: every choice, flag and a second
/// number.
fn variants(method: &Method) -> Vec<Options> {
    changed(method).into_iter().map(|(_, options)| options).collect()
}

/// The same, each with the option that is changed.
fn changed(method: &Method) -> Vec<(&'static str, Options)> {
    let mut defaults = Options::defaults(method.options);
    for spec in method.options {
        if let Kind::Count { default, least, .. } = spec.kind {
            defaults = defaults.with(spec.name, Setting::Count(default.min(16).max(least)));
        }
    }
    let mut variants = vec![("", defaults.clone())];
    for spec in method.options {
        let kind = if let Kind::Optional { kind, .. } = spec.kind { *kind } else { spec.kind };
        let others: Vec<Setting> = match kind {
            Kind::Choice { known, .. } => known.iter().map(|word| Setting::Text(word.to_string())).collect(),
            Kind::Flag { default } => vec![Setting::Flag(!default)],
            Kind::Number { default, range } if range.holds(default * 0.5 + 0.3) => {
                vec![Setting::Number(default * 0.5 + 0.3)]
            }
            _ => vec![],
        };
        variants.extend(others.into_iter().map(|setting| (spec.name, defaults.clone().with(spec.name, setting))));
    }
    variants
}

/// A small network of this architecture.
pub(super) fn network(arch: &str, widths: &[usize], seed: u64) -> Graph {
    let row = ARCHS.iter().find(|row| row.name == arch).unwrap();
    let options = Options::defaults(row.options).with("widths", Setting::Counts(widths.to_vec()));
    let site = Site { input: vec![1, 6, 6], classes: 4 };
    zoo::build(&Choice { name: row.name, options }, &site, seed).unwrap()
}

pub(super) fn contract() -> Contract {
    let description = Description {
        shape: vec![1, 6, 6],
        layout: "CHW".into(),
        classes: (0..4).map(|class| class.to_string()).collect(),
        raw_max: None,
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    Contract::for_data(&description, "x", "logits", Meaning::Logits)
}

/// Values of some taps of a network for a batch, between -2 and 2.
pub(super) fn tapped(graph: &Graph, taps: &[String], size: usize, place: u64) -> Vec<Vec<f32>> {
    let elements = |tap: &String| {
        let id = graph.find(tap).unwrap_or_else(|| panic!("no tap `{tap}`"));
        graph.value(id).shape.0[1..].iter().map(|dim| if let Dim::Known(n) = dim { *n } else { 0 }).product::<usize>()
    };
    let values = |(i, tap): (usize, &String)| noise(place + i as u64, size * elements(tap), 2.0);
    taps.iter().enumerate().map(|(i, tap)| values((i, tap)).into_iter().map(|x| x as f32).collect()).collect()
}

/// Taps from which a method learns but lets nothing flow back: their values move the loss, their gradients do not say so.
/// Tests beside their methods hold the constants still.
const STOPPED: &[(&str, &str)] = &[("byot", "logits"), ("byot", "features"), ("cs_kd", "logits"), ("wsld", "logits")];

/// Whether a method with these options can work on networks without tokens, as those here are; all can by default but one.
fn fits(method: &Method, options: &Options) -> bool {
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let fits = tests_features::built(method, options, (&student, &teacher)).is_ok();
    let by_default = *options == Options::defaults(method.options) && method.name != "tinybert_attention";
    assert!(fits || !by_default, "{}", method.name);
    fits
}

/// A method built on a pair of residual networks; with the values that it reads of both.
struct Built {
    loss: Box<dyn Loss>,
    taps: Vec<Vec<f32>>,
    taught: Vec<Vec<f32>>,
    own: Vec<Parameter<f32>>,
}

fn built(method: &Method, options: &Options, size: usize) -> Built {
    let contract = contract();
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
    pair.begin_term(0);
    let loss = (method.build)(options, &mut pair).unwrap();
    let graph = pair.into_parts().0;
    let (taps, taught) =
        (tapped(&graph, loss.student_taps(), size, 10), tapped(&teacher, loss.teacher_taps(), size, 20));
    let own =
        loss.own().into_iter().map(|p| Parameter { gradient: vec![f32::NAN; p.value.len()].into(), ..p }).collect();
    Built { loss, taps, taught, own }
}

impl Built {
    /// Value and gradients by the taps; own arrays are those of the last call.
    fn value(&mut self, batch: &Batch<'_>) -> (f32, Vec<Vec<f32>>) {
        let mut d: Vec<Vec<f32>> = self.taps.iter().map(|tap| vec![f32::NAN; tap.len()]).collect();
        let taps: Vec<&[f32]> = self.taps.iter().map(Vec::as_slice).collect();
        let taught: Vec<&[f32]> = self.taught.iter().map(Vec::as_slice).collect();
        let mut d_taps: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
        let value = self.loss.value(batch, &taps, &taught, &mut d_taps, &mut self.own).unwrap();
        (value, d)
    }
}

#[test]
fn batches_of_one_and_two_give_finite_values_and_gradients() {
    for method in METHODS {
        let fitting = variants(method).into_iter().filter(|options| fits(method, options));
        for (size, options) in fitting.flat_map(|options| [(1, options.clone()), (2, options)]) {
            let mut built = built(method, &options, size);
            let batch = Batch { size, labels: &[1, 1][..size], mixed: &[], places: &[4, 0][..size], progress: 0.4 };
            let (value, d) = built.value(&batch);
            let own = built.own.iter().filter(|own| own.role.is_trained()).flat_map(|own| &own.gradient);
            let is_finite = value.is_finite() && d.iter().flatten().chain(own).all(|d| d.is_finite());
            assert!(is_finite, "{} {options:?} at batch {size}: {value}", method.name);
        }
    }
}

#[test]
fn methods_that_need_no_labels_bear_samples_without_one() {
    for method in METHODS.iter().filter(|method| !method.needs_labels) {
        for options in variants(method).into_iter().filter(|options| fits(method, options)) {
            for labels in [[UNLABELLED, 1, 2], [UNLABELLED; 3]] {
                let mut built = built(method, &options, 3);
                let batch = Batch { size: 3, labels: &labels, mixed: &[], places: &[4, 0, 7], progress: 0.4 };
                let (value, d) = built.value(&batch);
                let is_finite = value.is_finite() && d.iter().flatten().all(|d| d.is_finite());
                assert!(is_finite, "{} {options:?}: {value}", method.name);
                if method.name == "bce" || method.name == "ce" {
                    assert!(d[0][..4].iter().all(|d| *d == 0.0), "{}", method.name);
                    assert_eq!(d[0].iter().all(|d| *d == 0.0), labels[1] == UNLABELLED);
                }
            }
        }
    }
}

/// A loss that compares a network with itself trains, looks healthy and hands nothing over.
#[test]
fn another_teacher_changes_the_loss() {
    let batch = Batch { size: 6, labels: &[0, 3, 1, 1, 2, 0], mixed: &[], places: &[4, 0, 7, 2, 1, 5], progress: 0.4 };
    for method in METHODS.iter().filter(|method| method.needs_teacher()) {
        for options in variants(method).into_iter().filter(|options| fits(method, options)) {
            let mut built = built(method, &options, 6);
            let (value, d) = built.value(&batch);
            built.taught.iter_mut().flatten().for_each(|value| *value = 0.3 - value.sin() * 1.5);
            let (other, d_other) = built.value(&batch);
            let what = format!("{} {options:?}: {value} and {other}", method.name);
            assert!(value != other && d != d_other && d.iter().flatten().any(|d| *d != 0.0), "{what}");
        }
    }
}

/// Options that say nothing here: of what stands before the taps (whose values are the same here), of the next steps (a
/// memory), of several teachers, of mixed samples, of a temperature of 1 or no smoothing, of equal samples, of the recipe.
const SILENT: &[(&str, &[&str])] = &[
    ("ce", &["spread"]),
    ("bce", &["share"]),
    ("kd", &["average"]),
    ("mse_logits", &["average"]),
    ("dkd", &["average"]),
    ("nkd", &["average"]),
    ("dist", &["average", "tau2"]),
    ("mlkd", &["average"]),
    ("wsld", &["average"]),
    ("codistill", &["average"]),
    ("ab", &["connector", "stage2"]),
    ("fitnets", &["regressor"]),
    ("fsp", &["connector"]),
    ("ft", &["paraphrase"]),
    ("cosine", &["connector"]),
    ("rkd_d", &["zero"]),
    ("rkd_a", &["zero"]),
    ("crd", &["momentum"]),
    ("soft_dtw", &["connector"]),
    ("tinybert_hidden", &["connector"]),
    ("ps_kd", &["alpha"]),
];

/// An option that is taken and forgotten would be believed.
#[test]
fn each_option_changes_the_loss() {
    let batch = Batch { size: 6, labels: &[0, 3, 1, 1, 2, 0], mixed: &[], places: &[4, 0, 7, 2, 1, 5], progress: 0.4 };
    let mut found = Vec::new();
    for method in METHODS {
        let all = changed(method);
        let Some((_, defaults)) = all.first().filter(|(_, options)| fits(method, options)) else { continue };
        let first = built(method, defaults, 6).value(&batch);
        let mut silent = BTreeMap::new();
        for (option, options) in all[1..].iter().filter(|(_, options)| options != defaults && fits(method, options)) {
            *silent.entry(*option).or_insert(true) &= built(method, options, 6).value(&batch) == first;
        }
        let silent = silent.into_iter().filter(|(_, silent)| *silent).map(|(option, _)| option);
        found.extend(silent.map(|option| (method.name, option)));
    }
    let known: Vec<_> =
        SILENT.iter().flat_map(|(method, options)| options.iter().map(|option| (*method, *option))).collect();
    assert_eq!(found, known);
}

/// What is averaged is the teachers' to do: they ask the loss.
#[test]
fn each_method_with_an_average_says_which() {
    let mut found = Vec::new();
    for method in METHODS.iter().filter(|method| method.options.iter().any(|spec| spec.name == "average")) {
        let options = Options::defaults(method.options);
        let of =
            |word: &str| built(method, &options.clone().with("average", Setting::Text(word.into())), 6).loss.average();
        assert_eq!([of("probabilities"), of("logits")], [Average::Probabilities, Average::Logits], "{}", method.name);
        found.push(method.name);
    }
    assert!(found.contains(&"kd") && found.contains(&"codistill"), "{found:?}");
}

/// Each method, with its defaults and with each option changed, on residual networks of different widths.
#[test]
fn every_gradient_equals_central_differences() {
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let mut failed = Vec::new();
    for method in METHODS {
        let stopped: Vec<&str> = STOPPED.iter().filter(|row| row.0 == method.name).map(|row| row.1).collect();
        for options in variants(method) {
            let Ok((mut loss, graph)) = tests_features::built(method, &options, (&student, &teacher)) else {
                assert!(!fits(method, &options), "{} {options:?}", method.name);
                continue;
            };
            let wrong = tests_features::wrong_gradients(&mut *loss, &graph, &teacher, &stopped);
            failed.extend(wrong.into_iter().map(|wrong| format!("{} {options:?}, {wrong}", method.name)));
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
    let mut loss = ce::task("logits", ce::Targets::default());
    let mut run = |size: usize, labels: &[usize], logits: &[f32]| {
        let mut d = vec![0.0; logits.len()];
        let batch = Batch { size, labels, mixed: &[], places: labels, progress: 0.0 };
        loss.value(&batch, &[logits], &[], &mut [&mut d], &mut []).map_err(|refusal| refusal.to_string())
    };
    assert!(run(2, &[0, 1], &[0.0; 4]).is_ok());
    assert_eq!(run(2, &[UNLABELLED, 1], &[0.0; 4]), run(1, &[1], &[0.0; 2]), "one without a label does not count");
    assert_eq!(
        run(2, &[0, 2], &[0.0; 4]).unwrap_err().split(';').next(),
        Some("label: expected a class below 2, found 2")
    );
    assert!(run(2, &[0, 1], &[0.0; 5]).is_err());
    assert!(run(2, &[0], &[0.0; 4]).is_err());
    assert!(run(0, &[], &[]).is_err());
}

/// A tap of another length than the classes trains on numbers that are no logits, or fails after a teacher was trained.
#[test]
fn taps_of_answers_without_a_logit_for_each_class_are_refused_before_training() {
    let (student, teacher) = (network("resnet8", &[2, 3, 6], 1), network("resnet20", &[3, 4, 6], 2));
    let mut seen = Vec::new();
    for method in METHODS {
        let of_logits = method.options.iter().filter(|spec| matches!(spec.kind, Kind::Text { default: "logits" }));
        for spec in of_logits {
            let options = Options::defaults(method.options).with(spec.name, Setting::Text("features".into()));
            let line = tests_features::built(method, &options, (&student, &teacher)).err().map(|e| e.to_string());
            let whose = if spec.name == "teacher" { "teacher" } else { "student" };
            let expected = format!(
                "tap `features` of the {whose}: expected 4 logits, one a class, found 6 values a sample; name its logits"
            );
            assert_eq!(line, Some(expected), "{}", method.name);
            seen.push((method.name, spec.name));
        }
    }
    for known in [("ce", "student"), ("bce", "student"), ("kd", "teacher"), ("ofa", "teacher"), ("byot", "student")] {
        assert!(seen.contains(&known), "{known:?} in {seen:?}");
    }
}

#[test]
fn options_that_mean_nothing_beside_others_are_refused_where_they_are_set() {
    let text = |word: &str| Setting::Text(word.into());
    let (number, count) = (Setting::Number(0.5), Setting::Count(3));
    let cases = [
        ("fitnets", "delta", number.clone(), ("distance", text("absolute")), ("distance", text("huber"))),
        ("cc", "gamma", number, ("form", text("rep")), ("form", text("paper"))),
        ("cc", "order", count.clone(), ("form", text("rep")), ("form", text("paper"))),
        ("cc", "embed", count, ("form", text("paper")), ("form", text("rep"))),
        ("codistill", "average", text("logits"), ("psi", text("mse_logits")), ("psi", text("kl"))),
    ];
    let (student, teacher) = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    for (name, option, setting, (beside, with), (also, goes)) in cases {
        let method = METHODS.iter().find(|method| method.name == name).unwrap();
        let options = Options::defaults(method.options);
        assert!(!options.has(option), "{name}: {option}");
        let built = |options: Options| tests_features::built(method, &options, (&student, &teacher)).err();
        assert_eq!(built(options.clone().with(beside, with.clone())), None, "{name}: without {option}");
        let options = options.with(option, setting);
        let line = built(options.clone().with(beside, with)).map(|e| e.to_string()).unwrap_or_default();
        assert!(line.starts_with(&format!("option `{option}`: expected ")), "{name}: {line}");
        assert_eq!(built(options.with(also, goes)), None, "{name}: {option}");
    }
}

#[test]
fn two_classes_are_said_to_have_no_others() {
    let mut two = contract();
    two.output.classes.truncate(2);
    let site = Site { input: vec![1, 6, 6], classes: 2 };
    let row = ARCHS.iter().find(|row| row.name == "mlp").unwrap();
    let graph = zoo::build(&Choice { name: row.name, options: Options::defaults(row.options) }, &site, 1).unwrap();
    let z_scores = ("standardize", Setting::Flag(true));
    let half = ("beta", Setting::Number(0.0));
    let cases = METHODS
        .iter()
        .map(|&method| (method, vec![]))
        .chain([(&super::kd::METHOD, vec![z_scores]), (&super::dist::METHOD, vec![half])]);
    for (method, set) in cases {
        let mut pair = Pair::new(&graph, &two, Some((&graph, &two)), 8, 1);
        let is_set = !set.is_empty();
        let options = set.into_iter().fold(Options::defaults(method.options), |all, (name, to)| all.with(name, to));
        if (method.build)(&options, &mut pair).is_ok() {
            let words = match method.name {
                "dkd" | "nkd" => Some("second part is 0"),
                "kd" if is_set => Some("teaches nothing with `standardize`"),
                "dist" if !is_set => Some("`beta`'s part has no gradient"),
                _ => None,
            };
            let found: Vec<&str> =
                pair.notes.iter().filter(|note| note.contains("class")).map(|note| &**note).collect();
            assert_eq!(found.len(), usize::from(words.is_some()), "{}: {found:?}", method.name);
            assert!(words.is_none_or(|words| found[0].contains(words)), "{}: {found:?}", method.name);
        }
    }
}

/// Squares and inverses of absurd ones are no floats, and a value at 1e6 is the rounding of it.
#[test]
fn absurd_temperatures_are_refused_before_training() {
    let networks = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let with = |method: &Method, t: f64| {
        let options = Options::defaults(method.options).with("temperature", Setting::Number(t));
        tests_features::built(method, &options, (&networks.0, &networks.1)).err().map(|e| e.to_string())
    };
    let mut count = 0;
    for method in METHODS.iter().filter(|method| method.options.iter().any(|spec| spec.name == "temperature")) {
        count += 1;
        for t in [0.02, 1.0, 1000.0, 1e4] {
            assert_eq!(with(method, t), None, "{}", method.name);
        }
        for t in [1e-5, 1e5, 1e20] {
            let line = with(method, t).unwrap_or_default();
            assert!(
                line.starts_with("option `temperature`: expected a number from 0.0"),
                "{} {t}: {line}",
                method.name
            );
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn what_compares_samples_says_how_many_it_needs() {
    let networks = (network("resnet8", &[2, 3, 4], 1), network("resnet20", &[3, 4, 6], 2));
    let least = |method: &Method, set: Option<(&'static str, Setting)>| {
        let options = set.into_iter().fold(Options::defaults(method.options), |all, (name, to)| all.with(name, to));
        tests_features::built(method, &options, (&networks.0, &networks.1)).unwrap().0.least_batch()
    };
    let rep = || Some(("form", Setting::Text("rep".into())));
    assert_eq!([None, rep()].map(|form| least(&super::cc::METHOD, form)), [2, 2]);
    assert_eq!(least(&super::cs_kd::METHOD, None), 2);
    let without = Some(("gamma", Setting::Number(0.0)));
    assert_eq!([None, without].map(|gamma| least(&super::dist::METHOD, gamma)), [2, 1]);
    assert_eq!(least(&super::kd::METHOD, None), 1);
}
