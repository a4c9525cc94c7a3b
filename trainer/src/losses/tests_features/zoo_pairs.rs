//! Every method, as it is left, on pairs of the zoo: it works, or is known not to and says why before training.

use std::collections::BTreeMap;

use kd_runtime::graph::{Dim, Graph};

use super::super::table::METHODS;
use super::super::{Loss, Method, Pair, byot, fitnets, simkd, srrl};
use super::{BATCH, SIZE, contract, noise};
use crate::exec::{Executor, Mode, Parameter, Plan};
use crate::options::{Options, Setting};
use crate::zoo::table::ARCHS;
use crate::zoo::tests::{SERIES as SERIES_ALONE, narrow};
use crate::zoo::{self, Site};

const IMAGE: [usize; 3] = [1, 16, 16];
const SERIES: [usize; 2] = [1, 24];

fn network(arch: &str, input: &[usize], seed: u64) -> Graph {
    let mut choice = narrow(arch);
    if arch == "mlp" {
        choice.options = choice.options.with("hidden", Setting::Counts(vec![6, 5]));
    }
    zoo::build(&choice, &Site { input: input.to_vec(), classes: 4 }, seed).unwrap()
}

/// Values that a network gives for some samples: a list a tap.
fn given(graph: &Graph, taps: &[String], mode: Mode) -> Vec<Vec<f32>> {
    let dims = &graph.value(graph.inputs[0]).shape.0[1..];
    let elements: usize = dims.iter().map(|dim| if let Dim::Known(n) = dim { *n } else { 0 }).product();
    let backward = matches!(mode, Mode::Train { .. });
    let plan = Plan { batch: SIZE, taps: taps.to_vec(), backward, threads: 1, gpu: None };
    let mut executor = Executor::<f32>::new(graph, &plan).unwrap();
    let x: Vec<f32> = noise(7, SIZE * elements, 1.0).into_iter().map(|x| x as f32).collect();
    executor.forward(&x, SIZE, mode).unwrap();
    taps.iter().map(|tap| executor.value(executor.tap(tap).unwrap()).to_vec()).collect()
}

/// The loss of one batch, as a trained network sees it.
fn value(loss: &mut dyn Loss, graph: &Graph, teacher: &Graph) -> f32 {
    let taps = given(graph, loss.student_taps(), Mode::Train { seed: 0 });
    let taught = given(teacher, loss.teacher_taps(), Mode::Eval);
    let mut d = taps.clone();
    let [taps, taught] = [&taps, &taught].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut d: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
    let own = loss.own().into_iter();
    let mut own: Vec<_> = own.map(|p| Parameter { gradient: vec![0.0; p.value.len()].into(), ..p }).collect();
    loss.value(&BATCH, &taps, &taught, &mut d, &mut own).unwrap()
}

/// What came of a method on a pair: its remarks, or why it cannot work.
fn tried(method: &Method, options: &Options, student: &Graph, teacher: &Graph) -> Result<Vec<String>, String> {
    let contract = contract(&[1, 1]);
    let mut pair = Pair::new(student, &contract, Some((teacher, &contract)), 8, 1);
    pair.begin_term(0);
    let built = (method.build)(options, &mut pair);
    let notes = std::mem::take(&mut pair.notes);
    let mut loss = built.map_err(|refusal| refusal.to_string())?;
    let value = value(&mut *loss, &pair.into_parts().0, teacher);
    assert!(value.is_finite(), "{}: {value}", method.name);
    Ok(notes)
}

/// The pairs of a kind of sample: students, teachers.
const PAIRS: [(&[usize], &[&str], &[&str]); 2] = [
    (
        &IMAGE,
        &["resnet8", "mobilenet_v1", "mlp"],
        &[
            "resnet20",
            "wrn_16_1",
            "mobilenet_v1",
            "mobilenet_v2",
            "shufflenet_v1",
            "shufflenet_v2",
            "vgg8",
            "ds_cnn",
            "cnn",
            "mlp",
        ],
    ),
    (
        &SERIES,
        &["fcn", "ts_transformer", "mlp"],
        &["fcn", "cnn", "resnet1d", "inception_time", "lite", "lstm", "gru", "ts_transformer", "mlp"],
    ),
];

type Cannot = (Names, [Names; 2], &'static str);
type Names = &'static [&'static str];

/// Pairs that cannot work: methods, which student or teacher (empty: any), and what they say.
#[rustfmt::skip]
const CANNOT: &[Cannot] = &[
    (&["tinybert_attention"], [WITHOUT_ATTENTION, &[]], "scores of attention (`stage1.scores`, …) on both sides, found none"),
    (&["tinybert_attention"], [&[], WITHOUT_ATTENTION], "scores of attention (`stage1.scores`, …) on both sides, found none"),
    (OF_PLACES, [&["mlp"], &[]], "choose another method: no stage of these networks has it"),
    (OF_PLACES, [&[], &["mlp"]], "choose another method: no stage of these networks has it"),
    (&["ofd"], [&[], &["mlp", "lstm", "gru", "ts_transformer"]], "a value that comes from a batch norm, found one that comes from"),
];
const OF_PLACES: &[&str] = &["at", "nst", "ft", "tat", "soft_dtw", "attention_relation"];
const WITHOUT_ATTENTION: &[&str] = &[
    "resnet8",
    "mobilenet_v1",
    "mlp",
    "resnet20",
    "wrn_16_1",
    "mobilenet_v2",
    "shufflenet_v1",
    "shufflenet_v2",
    "vgg8",
    "ds_cnn",
    "cnn",
    "fcn",
    "resnet1d",
    "inception_time",
    "lite",
    "lstm",
    "gru",
];

#[test]
fn every_method_works_as_it_is_left_on_pairs_of_the_zoo_or_says_why_not() {
    let mut failed = Vec::new();
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    for (input, students, teachers) in PAIRS {
        for (student, teacher) in students.iter().flat_map(|student| teachers.iter().map(move |t| (*student, *t))) {
            let [ours, theirs] = [(student, 1), (teacher, 2)].map(|(arch, seed)| network(arch, input, seed));
            for method in METHODS {
                let holds = |names: &[&str], name: &str| names.is_empty() || names.contains(&name);
                let known = CANNOT.iter().find(|(methods, [of, by], _)| {
                    methods.contains(&method.name) && holds(of, student) && holds(by, teacher)
                });
                let found = tried(method, &Options::defaults(method.options), &ours, &theirs);
                *notes.entry(method.name).or_default() += found.as_ref().map_or(0, Vec::len);
                let is_known = match (&found, known) {
                    (Ok(notes), None) => notes.iter().all(|note| !note.contains('\n')),
                    (Err(line), Some((.., expected))) => line.contains(expected),
                    _ => false,
                };
                if !is_known {
                    failed.push(format!("{} of {student} by {teacher}: {found:?}", method.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(["at", "tat", "simkd"].iter().all(|name| notes[name] > 0), "{notes:?}");
}

/// A student with the teacher's layers answers as the teacher does where its projected value is the teacher's own.
#[test]
fn a_copied_classifier_is_that_of_every_teacher() {
    for arch in ARCHS {
        let name = arch.name;
        let input: &[usize] = if SERIES_ALONE.contains(&name) { &SERIES } else { &IMAGE };
        // Of one architecture: the projected value has the shape of the teacher's.
        let [student, teacher] = [1, 2].map(|seed| network(name, input, seed));
        let contract = contract(&[1, 1]);
        let options = Options::defaults(simkd::METHOD.options);
        let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
        pair.begin_term(0);
        let loss = (simkd::METHOD.build)(&options, &mut pair).unwrap_or_else(|e| panic!("{name}: {e}"));
        let graph = pair.into_parts().0;
        let tap = loss.teacher_taps()[0].clone();
        // The student's projector is cut away, and the teacher's own value is fed in its place.
        let mut values = given(&teacher, &[tap, "logits".into()], Mode::Eval);
        let (answer, taught) = (values.remove(1), values.remove(0));
        let mut tail = graph.clone();
        let from = tail.find(&loss.student_taps()[0]).unwrap();
        tail.nodes.retain(|node| !node.outputs.contains(&from));
        tail.inputs = vec![from];
        tail.prune();
        let plan = Plan { batch: SIZE, taps: vec!["logits".into()], backward: false, threads: 1, gpu: None };
        let mut executor = Executor::<f32>::new(&tail, &plan).unwrap_or_else(|e| panic!("{name}: {e}"));
        executor.forward(&taught, SIZE, Mode::Eval).unwrap();
        let found = executor.value(executor.tap("logits").unwrap());
        let off = found.iter().zip(&answer).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = answer.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(off <= 1e-4 * largest.max(1e-3), "{name}: off by {off} of {largest}");
    }
}

/// Whose stages may be negative, and whose features too.
const SIGNED_STAGES: &[&str] =
    &["mobilenet_v2", "mobilenet_v2_cifar", "wrn", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"];
const SIGNED: &[&str] = &["lstm", "gru", "ts_transformer"];

/// Adapters that end in a ReLU reach no value below 0: they have one where no value is, and else say that it is left out.
#[test]
fn adapters_end_in_a_relu_where_what_they_regress_does() {
    for arch in ARCHS {
        let name = arch.name;
        let input: &[usize] = if SERIES_ALONE.contains(&name) { &SERIES } else { &IMAGE };
        let [student, teacher] = [1, 2].map(|seed| network(name, input, seed));
        let contract = contract(&[1, 1]);
        for (method, is_signed) in [
            (&simkd::METHOD, SIGNED.contains(&name) || SIGNED_STAGES.contains(&name)),
            (&fitnets::METHOD, SIGNED.contains(&name) || SIGNED_STAGES.contains(&name)),
            (&srrl::METHOD, SIGNED.contains(&name)),
            (&byot::METHOD, SIGNED.contains(&name)),
        ] {
            let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
            pair.begin_term(0);
            let Ok(loss) = (method.build)(&Options::defaults(method.options), &mut pair) else {
                assert_eq!(method.name, "byot", "{name}: of two stages at least");
                continue;
            };
            let says = pair.notes.iter().any(|note| note.starts_with("leaves out the ReLU that "));
            assert_eq!(says, is_signed, "{} of {name}: {:?}", method.name, pair.notes);
            let mut adapted = loss.student_taps().to_vec();
            if method.name == "byot" {
                adapted = adapted[adapted.len() / 2 - 1..adapted.len() - 2].to_vec();
            }
            let values = given(&pair.into_parts().0, &adapted, Mode::Train { seed: 0 });
            for (tap, values) in adapted.iter().zip(values) {
                assert_eq!(values.iter().any(|x| *x < 0.0), is_signed, "{} of {name}: {tap}", method.name);
            }
            let taught = given(&teacher, loss.teacher_taps(), Mode::Eval);
            assert!(is_signed || taught.iter().flatten().all(|x| *x >= 0.0), "{} of {name}", method.name);
        }
    }
}

#[test]
fn a_regressor_that_is_chosen_stays_whatever_the_teacher_gives() {
    let (student, teacher) = (network("fcn", &SERIES, 1), network("ts_transformer", &SERIES, 2));
    let contract = contract(&[1, 1]);
    for (word, is_negative) in [("conv_norm_relu", false), ("conv_norm", true), ("conv", true)] {
        let options = Options::defaults(fitnets::METHOD.options).with("regressor", Setting::Text(word.into()));
        let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 8, 1);
        pair.begin_term(0);
        let loss = (fitnets::METHOD.build)(&options, &mut pair).unwrap();
        assert!(pair.notes.is_empty(), "{word}: {:?}", pair.notes);
        let values = given(&pair.into_parts().0, loss.student_taps(), Mode::Train { seed: 0 });
        assert_eq!(values.iter().flatten().any(|x| *x < 0.0), is_negative, "{word}");
    }
}

#[test]
fn stages_that_say_nothing_are_left_out_with_a_remark_and_refused_where_they_are_named() {
    let (student, teacher) = (network("resnet8", &IMAGE, 1), network("mobilenet_v1", &IMAGE, 2));
    let find = |name: &str| *METHODS.iter().find(|method| method.name == name).unwrap();
    let named = |name: &str, taps: [&str; 2]| {
        let options = Options::defaults(find(name).options);
        let text = |tap: &str| Setting::Text(tap.into());
        tried(find(name), &options.with("student", text(taps[0])).with("teacher", text(taps[1])), &student, &teacher)
    };
    // The teacher's stages have 8, 4, 2, 1 and 1 places along an axis.
    let found = named("at", ["stages", "stages"]).unwrap();
    assert_eq!(
        found,
        ["leaves out the teacher's `stage4`, the teacher's `stage5`, for want of at least 2 places in common"]
    );
    let found = named("ft", ["last", "last"]).unwrap();
    assert_eq!(found, ["takes `stage3` and the teacher's `stage3`, for want of at least 2 places in common later"]);
    let found = named("at", ["stage3", "stage5"]).unwrap_err();
    let expected = "taps `stage3` and `stage5`: expected at least 2 places in common, found [64, 4, 4] and [102, 1, 1]; name larger \
                    maps of both, or choose another method";
    assert_eq!(found, expected);
    assert_eq!(named("at", ["stage3", "stage3"]), Ok(vec![]));
    let found = named("ofd", ["stages.pre", "stages.pre"]).unwrap();
    assert!(found.is_empty(), "{found:?}");
    // The shortcuts of its later stages have batch norms too.
    let ofd = |teacher: &str| {
        tried(find("ofd"), &Options::defaults(find("ofd").options), &student, &network(teacher, &IMAGE, 2)).unwrap()
    };
    let note = "takes the margins of the first summand where both or none are batch norms: of the teacher's";
    assert_eq!(ofd("resnet8"), [format!("{note} `stage2.pre`, `stage3.pre`")]);
    assert_eq!(ofd("resnet20"), [""; 0]);
    // A pooling window of the teacher's size.
    let found = tried(
        find("simkd"),
        &Options::defaults(simkd::METHOD.options),
        &network("cnn", &IMAGE, 1),
        &network("ds_cnn", &IMAGE, 2),
    );
    assert_eq!(found, Ok(vec![]), "the student's map is averaged to the teacher's");
    let small = network("mobilenet_v1", &IMAGE, 1);
    let found = tried(find("simkd"), &Options::defaults(simkd::METHOD.options), &small, &network("ds_cnn", &IMAGE, 2));
    assert!(
        found.as_ref().is_ok_and(|notes| notes[0].starts_with("takes `features` instead of the last maps: ")),
        "{found:?}"
    );
}

/// Scores have as many heads and tokens, whatever the width.
#[test]
fn attention_is_compared_between_transformers_of_other_widths() {
    let transformer = |width: usize, heads: usize| {
        let mut choice = narrow("ts_transformer");
        choice.options = choice.options.with("width", Setting::Count(width)).with("heads", Setting::Count(heads));
        zoo::build(&choice, &Site { input: SERIES.to_vec(), classes: 4 }, 1).unwrap()
    };
    let method = METHODS.iter().find(|method| method.name == "tinybert_attention").unwrap();
    let options = Options::defaults(method.options);
    let student = transformer(8, 2);
    assert_eq!(tried(method, &options, &student, &transformer(12, 2)), Ok(vec![]));
    let line = tried(method, &options, &student, &transformer(12, 3)).unwrap_err();
    let expected = "taps `stage1.scores` and `stage1.scores`: expected as many heads and tokens on both sides, found [2, 12, 12] and \
                    [3, 12, 12]; give both networks as many heads and tokens, or choose `attention_relation`";
    assert_eq!(line, expected);
    // Hidden states of equal shape are no scores.
    let text = Setting::Text("stages".into());
    let options = options.with("student", text.clone()).with("teacher", text);
    let line = tried(method, &options, &student, &transformer(8, 2)).unwrap_err();
    assert!(
        line.contains("expected scores [heads, L, L] of attention, found [8, 12] and [8, 12]; name them"),
        "{line}"
    );
}
