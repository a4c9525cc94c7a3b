//! What the learner makes of its terms and teachers, against the same made by hand in f64.

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::graph::Graph;
use kd_runtime::ops::softmax::Softmax;

mod parts;
mod stages;

use std::path::Path;

use super::learner::{Learner, StepValues};
use super::teachers::Teachers;
use super::{At, Feed};
use crate::data::augment::Augment;
use crate::data::{self, Counts, RawBatch, Samples, Values};
use crate::exec::random::Stream;
use crate::exec::{Compute, Executor, Mode, Plan};
use crate::losses::ce::{Targets, cross_entropy};
use crate::losses::kd::soft_targets;
use crate::losses::rows::{Average, Reduction, log_sum_exp};
use crate::losses::table::METHODS;
use crate::optim::schedule::SCHEDULES;
use crate::options::{Options, Setting};
use crate::recipe::{Choice, ClassWeights, Distill, Keep, Scheme, Stage, Term, Train};
use crate::teacher::cache::Precision;
use crate::teacher::{CacheWish, Network};
use crate::zoo::{self, Site};

const CLASSES: usize = 4;
const SHAPE: [usize; 3] = [2, 4, 5];
const ELEMENTS: usize = 40;
const AT: At = At { init: false, step: 3, steps: 8, steps_per_epoch: 4 };

fn choice(mut names: impl Iterator<Item = (&'static str, &'static [crate::options::Spec])>, name: &str) -> Choice {
    let (name, specs) = names.find(|(known, _)| *known == name).unwrap();
    Choice { name, options: Options::defaults(specs) }
}

fn network(arch: &str, seed: u64) -> Graph {
    let arch = choice(zoo::table::ARCHS.iter().map(|arch| (arch.name, arch.options)), arch);
    zoo::build(&arch, &Site { input: SHAPE.to_vec(), classes: CLASSES }, seed).unwrap()
}

fn contract() -> Contract {
    let description = Description {
        shape: SHAPE.to_vec(),
        layout: "CHW".into(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        raw_max: Some(16.0),
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    Contract::for_data(&description, "x", "logits", Meaning::Logits)
}

/// A teacher that is fed otherwise than the student.
pub(super) fn teacher(arch: &str, seed: u64, weight: f64) -> Network {
    let mut contract = contract();
    (contract.input.mean, contract.input.std) = (vec![0.3, 0.5], vec![0.2, 0.4]);
    Network {
        name: format!("arch {arch}"),
        graph: network(arch, seed),
        contract,
        sha256: String::new(),
        weight,
        cache: CacheWish::OFF,
        notes: vec![],
    }
}

/// The same teacher, ending in a softmax.
fn with_softmax(mut network: Network) -> Network {
    let logits = network.graph.find("logits").unwrap();
    let probabilities = network.graph.apply(Softmax { axis: -1 }, &[logits], "probabilities");
    network.graph.values[logits.index()].name = "scores".into();
    network.graph.outputs = vec![probabilities];
    network.graph.validate().unwrap();
    network.contract.output.name = "probabilities".into();
    network.contract.output.meaning = Meaning::Probabilities;
    network
}

/// Nine samples of three classes.
fn nine() -> Counts {
    Counts { n: 9, per_class: vec![6, 2, 1] }
}

fn train(label_smoothing: f64) -> Train {
    Train {
        epochs: 2,
        batch: 6,
        optimizer: choice(crate::optim::table::OPTIMIZERS.iter().map(|kind| (kind.name, kind.options)), "sgd"),
        schedule: schedule("constant"),
        decay_norm_and_bias: true,
        label_smoothing,
        class_weights: ClassWeights::Equal,
        clip_value: None,
        clip_norm: None,
        max_norm: None,
        accumulate: 1,
        ema: None,
        ema_warmup: true,
        groups: Vec::new(),
        patience: None,
        keep: Keep::Last,
    }
}

fn schedule(name: &str) -> Choice {
    choice(SCHEDULES.iter().map(|schedule| (schedule.name, schedule.options)), name)
}

fn term(method: &str, weight: f64, options: &[(&'static str, Setting)]) -> Term {
    let mut method = choice(METHODS.iter().map(|method| (method.name, method.options)), method);
    for (name, setting) in options {
        method.options = method.options.with(name, setting.clone());
    }
    Term { method, weight, stage: Stage::Main, schedule: None }
}

fn temperature(t: f64) -> (&'static str, Setting) {
    ("temperature", Setting::Number(t))
}

fn distill(task_weight: f64, terms: Vec<Term>) -> Distill {
    Distill {
        scheme: Scheme::Offline,
        peers: Vec::new(),
        assistants: Vec::new(),
        task_weight,
        init_epochs: 0,
        diagnose: false,
        terms,
    }
}

/// Raw values of 0 to 16, as the contract expects.
fn batch() -> RawBatch {
    let noise = Stream::new(11, 0);
    let labels = vec![0, 3, 1, 2, 2];
    let values = (0..labels.len() * ELEMENTS).map(|i| 16.0 * noise.uniform(i)).collect();
    RawBatch { values, labels, mixed: Vec::new(), places: (0..5).collect() }
}

fn learner(student: &Graph, distill: &Distill, teachers: &[Network]) -> kd_runtime::Result<Learner> {
    Learner::new(student, &contract(), &train(0.0), Some((distill, teachers)), Compute::host(2), &nine(), 1)
}

/// A step's values and all gradients.
fn step(distill: &Distill, teachers: &[Network]) -> (StepValues, Vec<f32>) {
    let mut learner = learner(&network("mlp", 1), distill, teachers).unwrap();
    let values = learner.step(&batch(), 0, AT).unwrap();
    learner.check_teachers_unchanged().unwrap();
    let gradients = learner.executor.parameters().iter().flat_map(|p| p.gradient.to_vec()).collect();
    (values, gradients)
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let off = found.iter().zip(expected).fold(0.0_f32, |off, (a, b)| off.max((a - b).abs()));
    // Sums of 128 products in f32: 128 roundings of 2⁻²⁴ are 8e-6 of the largest.
    assert!(found.len() == expected.len() && off < 2e-5 * largest, "{what}: off by {off} of {largest}");
}

/// Answers of a network in f64.
fn answers(graph: &Graph, contract: &Contract, batch: &RawBatch) -> Vec<f64> {
    let n = batch.labels.len();
    let plan = Plan { batch: n, taps: vec![], backward: false, threads: 1, gpu: None };
    let mut executor = Executor::<f64>::new(graph, &plan).unwrap();
    executor.forward(&fed(contract, batch), n, Mode::Eval).unwrap();
    executor.value(executor.tap(&contract.output.name).unwrap()).to_vec()
}

/// What a contract makes of raw values, by its definition.
fn fed(contract: &Contract, batch: &RawBatch) -> Vec<f64> {
    let input = &contract.input;
    let plane = SHAPE[1] * SHAPE[2];
    let pick = |values: &[f32], i: usize| f64::from(values[(i / plane % SHAPE[0]).min(values.len() - 1)]);
    let raw = batch.values.iter().map(|&raw| f64::from(raw) * f64::from(input.scale)).enumerate();
    raw.map(|(i, x)| (x - pick(&input.mean, i)) / pick(&input.std, i)).collect()
}

#[test]
fn the_gradient_is_that_of_the_weighted_sum_of_all_terms() {
    let (student, taught_by) = (network("mlp", 1), teacher("cnn", 2, 1.0));
    let mut third = term("kd", 0.5, &[temperature(1.5), ("reduction", Setting::Text("sum".into()))]);
    third.schedule = Some(schedule("cosine"));
    let factor = (SCHEDULES.iter().find(|kind| kind.name == "cosine").unwrap().factor)(
        &third.schedule.as_ref().unwrap().options,
        AT.step,
        AT.steps,
        AT.steps_per_epoch,
    );
    assert!(factor > 0.1 && factor < 0.9, "{factor}");
    let distill = distill(0.7, vec![term("kd", 2.0, &[temperature(4.0)]), third]);
    let teachers = [taught_by];
    let mut learner =
        Learner::new(&student, &contract(), &train(0.1), Some((&distill, &teachers)), Compute::host(2), &nine(), 1)
            .unwrap();
    assert_eq!(learner.term_names, ["ce", "kd", "kd.2"]);
    let batch = batch();
    let n = batch.labels.len();
    let found = learner.step(&batch, 0, AT).unwrap();

    let plan = Plan { batch: n, taps: vec![], backward: true, threads: 1, gpu: None };
    let mut executor = Executor::<f64>::new(&student, &plan).unwrap();
    executor.forward(&fed(&contract(), &batch), n, Mode::Train { seed: 0 }).unwrap();
    let logits = executor.tap("logits").unwrap();
    let z = executor.value(logits).to_vec();
    let t = answers(&teachers[0].graph, &teachers[0].contract, &batch);
    let mut d = vec![vec![0.0; z.len()]; 3];
    let terms = [
        cross_entropy(&z, batch.labels[..].into(), CLASSES, &Targets::smoothed(0.1), Reduction::BatchMean, &mut d[0]),
        soft_targets(&z, &t, CLASSES, 4.0, Reduction::BatchMean, true, &mut d[1]),
        soft_targets(&z, &t, CLASSES, 1.5, Reduction::Sum, true, &mut d[2]),
    ];
    let weights = [0.7, 2.0, 0.5 * factor];
    let sum: Vec<f64> = (0..z.len()).map(|i| (0..3).map(|k| weights[k] * d[k][i]).sum()).collect();
    executor.backward(&[(logits, &sum)]).unwrap();

    for (k, (found, expected)) in found.terms.iter().zip(terms).enumerate() {
        // The logarithms are off by some 2⁻²⁴, and the second term is 16 times their difference.
        assert!((found - expected).abs() < 5e-6, "term {k}: {found}, expected {expected}");
    }
    let loss: f64 = terms.iter().zip(weights).map(|(term, weight)| term * weight).sum();
    assert!((found.loss - loss).abs() < 1e-5, "{} {loss}", found.loss);
    let right = z.chunks(CLASSES).zip(&batch.labels).filter(|(row, label)| row.iter().all(|v| *v <= row[**label]));
    assert_eq!(found.right, right.count());
    for (found, expected) in learner.executor.parameters().iter().zip(executor.parameters()) {
        let expected_f32: Vec<f32> = expected.gradient.iter().map(|&g| g as f32).collect();
        assert_close(&found.gradient, &expected_f32, &expected.name);
    }
}

/// The gradients of a learner.
fn gradients(learner: &Learner) -> Vec<Vec<f32>> {
    learner.executor.parameters().iter().map(|p| p.gradient.to_vec()).collect()
}

#[test]
fn the_gradients_of_task_and_terms_are_apart_where_the_optimizer_wants_them() {
    let (student, teachers) = (network("cnn", 1), [teacher("mlp", 2, 1.0)]);
    let terms = || vec![term("kd", 2.0, &[temperature(4.0)]), term("kd", 0.5, &[temperature(1.5)])];
    let gradients_of = |optimizer: &str, distill: &Distill| {
        let kinds = crate::optim::table::OPTIMIZERS.iter().map(|kind| (kind.name, kind.options));
        let train = Train { optimizer: choice(kinds, optimizer), ..train(0.1) };
        let mut learner =
            Learner::new(&student, &contract(), &train, Some((distill, &teachers)), Compute::host(2), &nine(), 1)
                .unwrap();
        let values = learner.step(&batch(), 0, AT).unwrap();
        learner.executor.check_gradients(&[]).unwrap();
        (values, learner.task_gradients.clone(), gradients(&learner))
    };
    let (values, task, others) = gradients_of("dot", &distill(0.7, terms()));
    let (whole, none, sum) = gradients_of("sgd", &distill(0.7, terms()));
    assert!(values == whole && none.is_empty(), "the step's values are the same");
    let (_, none, only_task) = gradients_of("dot", &distill(0.7, vec![]));
    assert!(none.is_empty(), "one side alone is not split");
    let (_, none, only_terms) = gradients_of("dot", &distill(0.0, terms()));
    assert!(none.is_empty() && task.len() == others.len());
    for (i, task) in task.iter().enumerate().filter(|(i, _)| !sum[*i].is_empty()) {
        assert!(task[..] == only_task[i] && others[i] == only_terms[i], "{i}");
        let both: Vec<f32> = task.iter().zip(&others[i]).map(|(a, b)| a + b).collect();
        assert_close(&both, &sum[i], "their sum");
    }
}

#[test]
fn measuring_the_terms_gradients_changes_nothing() {
    let (student, teachers) = (network("cnn", 1), [teacher("mlp", 2, 1.0)]);
    let terms = || vec![term("kd", 2.0, &[temperature(4.0)])];
    let learner = |distill: &Distill| {
        let mut learner =
            Learner::new(&student, &contract(), &train(0.1), Some((distill, &teachers)), Compute::host(2), &nine(), 1)
                .unwrap();
        learner.step(&batch(), 0, AT).unwrap();
        learner
    };
    let mut measured = learner(&Distill { diagnose: true, ..distill(0.7, terms()) });
    let norms = measured.gradient_norms().unwrap();
    let mut plain = learner(&distill(0.7, terms()));
    assert_eq!(measured.executor.parameters(), plain.executor.parameters(), "gradients and running statistics");
    assert!(plain.gradient_norms().is_err(), "it was not planned for");
    let norm = |distill: &Distill| {
        let squares = gradients(&learner(distill)).into_iter().flatten().map(|g| f64::from(g) * f64::from(g));
        squares.sum::<f64>().sqrt()
    };
    let [(ce, ce_norm), (kd, kd_norm)] = &norms[..] else { panic!("{norms:?}") };
    assert_eq!((&**ce, &**kd), ("ce", "kd"));
    let (expected_ce, expected_kd) = (norm(&distill(0.7, vec![])), norm(&distill(0.0, terms())));
    assert!((ce_norm / expected_ce - 1.0).abs() < 1e-6, "{ce_norm} {expected_ce}");
    assert!((kd_norm / expected_kd - 1.0).abs() < 1e-6, "{kd_norm} {expected_kd}");
}

#[test]
fn a_second_step_of_another_size_does_not_see_the_first() {
    let distill = distill(1.0, vec![term("kd", 1.0, &[])]);
    let teachers = [teacher("mlp", 2, 0.5), teacher("cnn", 3, 0.5)];
    let small = RawBatch {
        values: batch().values[..2 * ELEMENTS].to_vec(),
        labels: vec![0, 3],
        mixed: vec![],
        places: vec![0, 1],
    };
    let gradients = |batches: &[&RawBatch]| {
        let mut learner = learner(&network("mlp", 1), &distill, &teachers).unwrap();
        batches.iter().for_each(|batch| drop(learner.step(batch, 0, AT).unwrap()));
        learner.executor.parameters().iter().flat_map(|p| p.gradient.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(gradients(&[&batch(), &small, &batch()]), gradients(&[&batch()]));
    assert_eq!(gradients(&[&batch(), &small]), gradients(&[&small]));
}

#[test]
fn probabilities_teach_what_their_logits_teach() {
    let distill = distill(0.0, vec![term("kd", 1.0, &[temperature(3.0)])]);
    let (_, expected) = step(&distill, &[teacher("cnn", 2, 1.0)]);
    let (_, found) = step(&distill, &[with_softmax(teacher("cnn", 2, 1.0))]);
    assert_close(&found, &expected, "one teacher");
    // Among several, too.
    let other = || teacher("mlp", 5, 0.6);
    let (_, expected) = step(&distill, &[teacher("cnn", 2, 0.4), other()]);
    let (_, found) = step(&distill, &[with_softmax(teacher("cnn", 2, 0.4)), other()]);
    assert_close(&found, &expected, "two teachers");
}

#[test]
fn a_teacher_twice_teaches_what_it_teaches_once() {
    let distill = distill(0.0, vec![term("kd", 1.0, &[temperature(3.0)])]);
    let (_, expected) = step(&distill, &[teacher("cnn", 2, 1.0)]);
    let (_, found) = step(&distill, &[teacher("cnn", 2, 0.25), teacher("cnn", 2, 0.75)]);
    assert_close(&found, &expected, "gradients");
}

#[test]
fn several_teachers_are_the_weighted_mean_of_their_softened_answers() {
    let networks = [teacher("mlp", 2, 0.25), teacher("cnn", 3, 0.75)];
    let batch = batch();
    let mut teachers = Teachers::new(&networks, &["logits"], 5, Compute::host(1)).unwrap();
    let softened = |z: &[f64], t: f64| -> Vec<f64> {
        let rows = z.chunks(CLASSES).map(|row| (row, log_sum_exp(row, 1.0 / t)));
        rows.flat_map(|(row, shift)| row.iter().map(move |z| (z / t - shift).exp())).collect()
    };
    for t in [1.0, 4.0] {
        let taught = teachers.taught(&networks, "logits", t, Average::Probabilities).unwrap();
        let mean = teachers.taught(&networks, "logits", t, Average::Logits).unwrap();
        teachers.answer(&batch, &[taught, mean]).unwrap();
        let logits: Vec<f64> = teachers.value(taught).iter().map(|&z| f64::from(z)).collect();
        let found = softened(&logits, t);
        let raw: Vec<Vec<f64>> = networks.iter().map(|n| answers(&n.graph, &n.contract, &batch)).collect();
        let each: Vec<Vec<f64>> = raw.iter().map(|logits| softened(logits, t)).collect();
        for (i, found) in teachers.value(mean).iter().enumerate() {
            let expected = 0.25 * raw[0][i] + 0.75 * raw[1][i];
            assert!((f64::from(*found) - expected).abs() < 1e-5, "logits at {i}: {found}, expected {expected}");
        }
        assert_eq!(found.len(), 5 * CLASSES);
        for (i, found) in found.iter().enumerate() {
            let expected = 0.25 * each[0][i] + 0.75 * each[1][i];
            // f32 logits of size 10 in an exponent.
            assert!((found - expected).abs() < 1e-5, "temperature {t} at {i}: {found}, expected {expected}");
        }
    }
}

/// A replica listens to copies: what the others do after they left one changes nothing of it.
#[test]
fn a_snapshot_that_is_heard_does_not_follow_the_network_that_left_it() {
    let mut live = learner(&network("cnn", 9), &distill(1.0, vec![]), &[]).unwrap();
    let networks = [Network { graph: network("cnn", 2), ..teacher("cnn", 2, 1.0) }];
    let mut teachers = Teachers::new(&networks, &["logits"], 5, Compute::host(1)).unwrap();
    let taught = teachers.taught(&networks, "logits", 1.0, Average::Probabilities).unwrap();
    let said = |teachers: &mut Teachers| {
        teachers.answer(&batch(), &[taught]).unwrap();
        teachers.value(taught).to_vec()
    };
    let first = said(&mut teachers);
    assert!(teachers.hear(&[Some(live.snapshot().into())]));
    let heard = said(&mut teachers);
    assert_ne!(heard, first);
    live.step(&batch(), 0, AT).unwrap();
    live.executor.parameters_mut().iter_mut().flat_map(|p| &mut p.value).for_each(|x| *x = 0.5 * *x + 0.1);
    assert_eq!(said(&mut teachers), heard, "stale");
    assert!(teachers.hear(&[Some(live.snapshot().into())]));
    assert_ne!(said(&mut teachers), heard, "and new");
}

/// Also the running statistics of its batch norms: in every step it is asked as in eval mode.
#[test]
fn a_live_teacher_is_the_same_after_a_hundred_steps() {
    let taught_by = teacher("resnet8", 2, 1.0);
    assert!(taught_by.graph.nodes.iter().any(|node| matches!(node.op, kd_runtime::ops::Op::BatchNormalization(_))));
    let terms = vec![term("kd", 1.0, &[]), term("fitnets", 1.0, &[])];
    let mut learner = learner(&network("resnet8", 1), &distill(1.0, terms), &[taught_by]).unwrap();
    let first = learner.step(&batch(), 0, AT).unwrap().loss;
    for seed in 1..100 {
        for p in learner.executor.parameters_mut().iter_mut().filter(|p| p.role.is_trained()) {
            p.value.iter_mut().zip(&p.gradient).for_each(|(x, d)| *x -= 1e-3 * d);
        }
        assert_ne!(learner.step(&batch(), seed, AT).unwrap().loss, first, "the student learns");
    }
    learner.check_teachers_unchanged().unwrap();
}

#[test]
fn a_baseline_learns_from_the_labels_alone() {
    let student = network("mlp", 1);
    let mut alone = Learner::new(&student, &contract(), &train(0.0), None, Compute::host(1), &nine(), 1).unwrap();
    let found = alone.step(&batch(), 0, AT).unwrap();
    assert_eq!(alone.term_names, ["ce"]);
    let (expected, gradients) = step(&distill(1.0, vec![]), &[]);
    assert_eq!(found, expected);
    let parameters = alone.executor.parameters();
    assert_eq!(parameters.iter().flat_map(|p| p.gradient.to_vec()).collect::<Vec<_>>(), gradients);
}

#[test]
fn refuses_what_cannot_teach() {
    let mut fewer = teacher("cnn", 2, 1.0);
    fewer.contract.output.classes.pop();
    let student = teacher("mlp", 1, 1.0);
    let features = |tap: &str| term("kd", 1.0, &[("teacher", Setting::Text(tap.into()))]);
    let one = || teacher("cnn", 2, 1.0);
    #[rustfmt::skip]
    let cases = [
        ("fewer classes", vec![fewer], vec![term("kd", 1.0, &[])], "expected 4 classes, as the student has, found 3"),
        ("the student", vec![student], vec![term("kd", 1.0, &[])], "found the student itself"),
        ("no teacher", vec![], vec![term("kd", 1.0, &[])], "expected a teacher, found none"),
        ("no such tap", vec![one()], vec![features("stage9")], "`stage9`"),
        ("features of two", vec![one(), one()], vec![features("features")], "expected `logits`"),
        ("a hint of two", vec![one(), one()], vec![term("fitnets", 1.0, &[])],
         "distill.terms.0: expected exactly one teacher, whose inner values this method reads, found several or none; keep one"),
        ("nothing to learn", vec![one()], vec![], "expected a loss to learn from"),
    ];
    for (name, teachers, terms, expected) in cases {
        let refusal = learner(&network("mlp", 1), &distill(0.0, terms), &teachers).err();
        let message = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn a_loss_that_is_not_finite_names_its_term_and_step() {
    let mut broken = teacher("mlp", 2, 1.0);
    let bias = *broken.graph.initializers.keys().last().unwrap();
    let bias = broken.graph.initializers.get_mut(&bias).unwrap();
    bias.get_mut::<f32>().unwrap()[0] = f32::NAN;
    let distill = distill(1.0, vec![term("kd", 1.0, &[])]);
    let mut learner = learner(&network("mlp", 1), &distill, &[broken]).unwrap();
    let message = learner.step(&batch(), 0, AT).unwrap_err().to_string();
    assert!(message.starts_with("term `kd` at step 4: expected a finite loss, found NaN;"), "{message}");
}

/// Steps of two epochs over some samples, with teachers that answer live, or whose answers are kept.
fn epochs(kept: bool, augment: &[Box<dyn Augment>], views: usize, folder: &Path) -> (Vec<StepValues>, Vec<f32>) {
    let noise = Stream::new(12, 0);
    let values = (0..9 * ELEMENTS).map(|i| 16.0 * noise.uniform(i)).collect();
    let samples =
        Samples { values: Values::F32(values), labels: (0..9).map(|i| i % CLASSES).collect(), elements: ELEMENTS };
    let wish = CacheWish { wanted: true, views, precision: Precision::F32 };
    let teachers = [teacher("mlp", 2, 0.25), teacher("cnn", 3, 0.75)].map(|t| Network { cache: wish, ..t });
    let distill = distill(1.0, vec![term("kd", 1.0, &[temperature(3.0)]), term("kd", 0.5, &[temperature(1.0)])]);
    let mut learner = learner(&network("mlp", 1), &distill, &teachers).unwrap();
    let feed = Feed { samples: &samples, augment, augment_text: "jitter", seed: 5, makes: true };
    let mut notes = Vec::new();
    if kept {
        learner.keep_answers(folder, &feed, 4, &mut |note| notes.push(note.to_string())).unwrap();
        assert_eq!(notes.iter().filter(|note| note.contains("kept: 9 samples")).count(), 2, "{notes:?}");
    }
    let mut all = Vec::new();
    let mut batch = RawBatch::default();
    for epoch in 0..3 {
        let of = learner.begin_epoch(epoch);
        assert_eq!(
            of,
            if kept && !augment.is_empty() {
                epoch % views
            } else if kept {
                0
            } else {
                epoch
            }
        );
        let view = if augment.is_empty() { 0 } else { epoch % views.max(1) };
        for places in [&[4, 0, 7, 2, 1][..], &[8, 5, 3, 6]] {
            data::load(&samples, None, places, augment, 5, view, &mut batch);
            all.push(learner.step(&batch, 0, AT).unwrap());
        }
    }
    let gradients = learner.executor.parameters().iter().flat_map(|p| p.gradient.to_vec()).collect();
    (all, gradients)
}

#[test]
fn answers_that_are_kept_teach_bit_for_bit_as_those_given_live() {
    let folder = std::env::temp_dir().join(format!("kd-kept-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    let jitter = crate::data::augment::build(&[augmentation("jitter")], &SHAPE, None).unwrap();
    for (augment, views) in [(Vec::new(), 0), (jitter, 2)] {
        let live = epochs(false, &augment, views, &folder);
        assert_eq!(epochs(true, &augment, views, &folder), live, "made");
        assert_eq!(epochs(true, &augment, views, &folder), live, "read");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn augmentation(name: &str) -> Choice {
    choice(crate::data::augment::table::AUGMENTATIONS.iter().map(|kind| (kind.name, kind.options)), name)
}

#[test]
fn adapters_and_arrays_of_losses_learn_and_are_not_kept() {
    let student = network("cnn", 1);
    let negatives = ("negatives", Setting::Count(8));
    let rep = ("form", Setting::Text("rep".into()));
    for (method, options) in
        [("byot", vec![]), ("ofa", vec![]), ("srrl", vec![]), ("crd", vec![negatives]), ("cc", vec![rep])]
    {
        let distill = distill(0.0, vec![term(method, 1.0, &options)]);
        let mut learner = learner(&student, &distill, &[teacher("mlp", 2, 1.0)]).unwrap();
        learner.step(&batch(), 0, AT).unwrap();
        let parameters = learner.executor.parameters();
        let added = parameters.iter().filter(|p| p.name.starts_with("adapter.0") && p.role.is_trained());
        let idle: Vec<&str> =
            added.clone().filter(|p| p.gradient.iter().all(|g| *g == 0.0)).map(|p| p.name.as_str()).collect();
        assert!(added.count() >= 2 && idle.is_empty(), "{method}: {idle:?}");
        let kept = learner.network().unwrap().stats().unwrap().parameters;
        assert_eq!(kept, student.stats().unwrap().parameters, "{method}");
    }
}

#[test]
fn adapters_and_variances_learn_while_a_copied_classifier_stays() {
    let (student, teachers) = (network("cnn", 1), [teacher("cnn", 2, 1.0)]);
    for (method, of_adapters, stays) in [
        ("fitnets", "adapter.0.0.conv.weight", 0),
        ("vid", "adapter.0.0.log_scale", 0),
        ("simkd", "adapter.0.3.conv.weight", 2),
    ] {
        let mut learner = learner(&student, &distill(0.0, vec![term(method, 1.0, &[])]), &teachers).unwrap();
        let before: Vec<_> = learner.executor.parameters().to_vec();
        learner.step(&batch(), 0, AT).unwrap();
        for parameter in learner.executor.parameters_mut().iter_mut().filter(|p| p.role.is_trained()) {
            parameter.value.iter_mut().zip(&parameter.gradient).for_each(|(x, d)| *x -= 0.1 * d);
        }
        let changed = |name: &str| {
            let now = learner.executor.parameters().iter().find(|p| p.name == name);
            before.iter().find(|p| p.name == name).zip(now).map(|(before, now)| before.value != now.value)
        };
        assert_eq!(changed(of_adapters), Some(true), "{method}: {of_adapters}");
        let copied = |name: &&str| name.starts_with("adapter.0.teacher.");
        let copies: Vec<&str> = before.iter().map(|p| p.name.as_str()).filter(copied).collect();
        assert_eq!(copies.len(), stays, "{method}");
        assert!(copies.iter().all(|name| changed(name) == Some(false)), "{method}: {copies:?}");
        // What is kept: the student alone, or with projector and classifier.
        let kept = learner.network().unwrap();
        assert_eq!(kept.initializers.len() > student.initializers.len(), method == "simkd", "{method}");
        assert_eq!(kept.value(kept.outputs[0]).name, "logits");
    }
}
