//! Training of one network: stopped and continued, on any number of threads, with damaged checkpoints and bad numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kd_runtime::Result;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::error::Exit;
use kd_runtime::graph::Graph;

mod boundaries;
mod memories;

use super::fit::{Epoch, Fitted, Job, fit};
use super::monitor::Monitor;
use super::signals::Stop;
use crate::data::{Prepared, Samples, UNLABELLED, Values, augment};
use crate::exec::{Compute, Executor, Plan};
use crate::losses::table::METHODS;
use crate::optim::groups::Group;
use crate::optim::schedule::SCHEDULES;
use crate::options::{Options, Setting};
use crate::recipe::{Choice, ClassWeights, Data, Distill, Keep, Normalize, Scheme, Stage, Term, Train};
use crate::teacher::cache::Precision;
use crate::teacher::{CacheWish, Network, Pace};
use crate::zoo::{self, Site, table::ARCHS};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kd-fit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks to stop after so many steps.
struct After {
    steps: usize,
    stop: Stop,
    epochs: Vec<Epoch>,
}

impl Monitor for After {
    fn begin(&mut self, _: &str, _: usize, _: usize, _: usize) {}
    fn step(&mut self, _: usize, _: &[(&str, f64)], _: f64) {
        match self.steps {
            0 => {}
            1 => self.stop.ask(),
            _ => self.steps -= 1,
        }
    }
    fn epoch(&mut self, _: &str, epoch: &Epoch) {
        self.epochs.push(epoch.clone());
    }
    fn note(&mut self, _: &str) {}
}

fn samples(n: usize, first: usize) -> Samples {
    let values = (first * 64..(first + n) * 64).map(|i| ((i * 2_654_435_761) >> 7 & 15) as u8);
    let mut values: Vec<u8> = values.collect();
    let labels: Vec<usize> = (0..n).map(|i| (i + first) % 3).collect();
    // Each class lights a row of its own.
    for (image, &label) in values.chunks_exact_mut(64).zip(&labels) {
        image[label * 8..label * 8 + 8].fill(16);
    }
    Samples { values: Values::U8(values), labels, elements: 64 }
}

fn prepared() -> Prepared {
    let description = Description {
        shape: vec![1, 8, 8],
        layout: "CHW".into(),
        classes: ["a", "b", "c"].map(String::from).to_vec(),
        raw_max: Some(16.0),
        n_train: 47,
        n_test: 3,
        sha256: "0".into(),
        reading: None,
    };
    let contract = Contract::for_data(&description, "x", "logits", Meaning::Logits);
    // Nobody may look at the test samples while training: their labels are of no class.
    let test = Samples { labels: vec![usize::MAX; 3], ..samples(3, 90) };
    Prepared { description, contract, train: samples(34, 0), validation: samples(14, 40), test }
}

fn named(name: &'static str, specs: &'static [crate::options::Spec]) -> Choice {
    Choice { name, options: Options::defaults(specs) }
}

fn train(optimizer: &str) -> Train {
    let kind = crate::optim::table::OPTIMIZERS.iter().find(|kind| kind.name == optimizer).unwrap();
    let mut optimizer = named(kind.name, kind.options);
    optimizer.options = optimizer.options.with("lr", Setting::Number(0.01));
    let schedule = crate::optim::schedule::SCHEDULES.iter().find(|kind| kind.name == "cosine").unwrap();
    Train {
        epochs: 5,
        batch: 8,
        optimizer,
        schedule: named(schedule.name, schedule.options),
        decay_norm_and_bias: false,
        label_smoothing: 0.1,
        class_weights: ClassWeights::Equal,
        clip_value: None,
        clip_norm: Some(1.0),
        max_norm: Some(3.0),
        accumulate: 1,
        ema: None,
        ema_warmup: true,
        groups: Vec::new(),
        patience: None,
        keep: Keep::Selected,
    }
}

fn section() -> Data {
    let kind = augment::table::AUGMENTATIONS.iter().find(|kind| kind.name == "translate").unwrap();
    Data {
        format: "digits".into(),
        path: PathBuf::new(),
        read: None,
        normalize: Normalize::Unit,
        subset: 1.0,
        exclude_classes: Vec::new(),
        validation: 0.3,
        labelled: 1.0,
        augment: vec![named(kind.name, kind.options)],
    }
}

fn network() -> Graph {
    let arch = ARCHS.iter().find(|arch| arch.name == "cnn").unwrap();
    let mut choice = named(arch.name, arch.options);
    choice.options = choice.options.with("widths", Setting::Counts(vec![4, 6])).with("dropout", Setting::Number(0.3));
    zoo::build(&choice, &Site { input: vec![1, 8, 8], classes: 3 }, 1).unwrap()
}

struct Setup {
    data: Prepared,
    section: Data,
    graph: Graph,
    train: Train,
    distill: Option<(Distill, Vec<Network>)>,
    threads: usize,
    loaders: usize,
    fingerprint: &'static str,
}

impl Setup {
    fn new(optimizer: &str) -> Self {
        let (data, section) = (prepared(), section());
        let train = train(optimizer);
        Self { data, section, graph: network(), train, distill: None, threads: 1, loaders: 1, fingerprint: "f" }
    }

    /// Everything that `[train]` and `[distill]` can switch on.
    fn with_everything() -> Self {
        let mut setup = Self::new("dot");
        let first = setup.parameters().into_iter().next().unwrap();
        let group =
            |pattern: &str| Group { pattern: pattern.into(), lr_factor: 0.5, weight_decay: None, frozen: false };
        setup.train.groups = vec![Group { frozen: true, ..group(&first) }, group("*")];
        setup.train.groups[1].weight_decay = Some(1e-3);
        (setup.train.ema, setup.train.accumulate, setup.train.batch) = (Some(0.9), 2, 5);
        setup.train.class_weights = ClassWeights::Balanced;
        let mixup = augment::table::AUGMENTATIONS.iter().find(|kind| kind.name == "mixup").unwrap();
        setup.section.augment.push(named(mixup.name, mixup.options));
        let arch = ARCHS.iter().find(|arch| arch.name == "mlp").unwrap();
        let site = Site { input: vec![1, 8, 8], classes: 3 };
        let teacher = Network {
            name: "mlp".into(),
            graph: zoo::build(&named(arch.name, arch.options), &site, 5).unwrap(),
            contract: setup.data.contract.clone(),
            sha256: String::new(),
            weight: 1.0,
            cache: CacheWish { wanted: true, views: 2, precision: Precision::F16 },
            notes: vec![],
        };
        let kd = METHODS.iter().find(|method| method.name == "kd").unwrap();
        let late = SCHEDULES.iter().find(|kind| kind.name == "from").unwrap();
        let options = Options::defaults(late.options).with("epochs", Setting::Number(1.5));
        let term = |stage, schedule| Term { method: named(kd.name, kd.options), weight: 0.5, stage, schedule };
        let terms = vec![term(Stage::Both, None), term(Stage::Main, Some(Choice { name: late.name, options }))];
        let distill = Distill {
            scheme: Scheme::Offline,
            peers: Vec::new(),
            assistants: Vec::new(),
            task_weight: 0.8,
            init_epochs: 1,
            diagnose: true,
            terms,
        };
        setup.distill = Some((distill, vec![teacher]));
        setup
    }

    /// Names of the network's parameters that are trained.
    fn parameters(&self) -> Vec<String> {
        let plan = Plan { batch: 1, taps: vec![], backward: true, threads: 1, gpu: None };
        let executor = Executor::<f32>::new(&self.graph, &plan).unwrap();
        let trained = executor.parameters().iter().filter(|p| p.role.is_trained());
        trained.map(|p| p.name.clone()).collect()
    }

    /// The student, as it is set up.
    fn job<'a>(&'a self, folder: &'a Path) -> Job<'a> {
        Job {
            name: "student",
            graph: &self.graph,
            train: &self.train,
            data_section: &self.section,
            distill: self.distill.as_ref().map(|(distill, teachers)| (distill, &teachers[..])),
            data: &self.data,
            seed: 3,
            compute: Compute::host(self.threads),
            loaders: self.loaders,
            replica: None,
            group: None,
            caches: folder,
            checkpoints: folder,
            fingerprint: self.fingerprint,
            checkpoint_after: Duration::ZERO,
        }
    }

    /// Trains until the end or so many steps (0: no limit).
    fn fit(&self, folder: &Path, steps: usize) -> (Result<Fitted>, Vec<Epoch>) {
        let stop = Stop::default();
        let mut monitor = After { steps, stop: stop.clone(), epochs: Vec::new() };
        let result = fit(&self.job(folder), &stop, &mut monitor);
        (result, monitor.epochs)
    }

    fn whole(&self) -> Fitted {
        let scratch = Scratch::new(&format!("whole-{}-{:?}", self.threads, std::thread::current().id()));
        self.fit(&scratch.0, 0).0.unwrap()
    }
}

fn same(a: &Fitted, b: &Fitted, about: &str) {
    let told = |fitted: &Fitted| -> Vec<Epoch> {
        fitted.history.iter().map(|epoch| Epoch { data_wait_share: 0.0, ..epoch.clone() }).collect()
    };
    assert_eq!(told(a), told(b), "{about}");
    assert_eq!((&a.last, &a.selected, a.selected_epoch), (&b.last, &b.selected, b.selected_epoch), "{about}");
}

/// A stop in the third epoch (of five steps each) says which one the checkpoint is of, and what goes on from there is the same.
#[test]
fn a_checkpoint_waits_for_its_time_and_a_stop_names_it() {
    let setup = Setup::new("adamw");
    let whole = setup.whole();
    for (i, (checkpoint_after, kept)) in [(Duration::ZERO, 2), (Duration::MAX, 1)].into_iter().enumerate() {
        let scratch = Scratch::new(&format!("waits-{i}"));
        let stop = Stop::default();
        let mut monitor = After { steps: 12, stop: stop.clone(), epochs: Vec::new() };
        let job = Job { checkpoint_after, ..setup.job(&scratch.0) };
        let message = fit(&job, &stop, &mut monitor).err().unwrap().to_string();
        assert!(message.contains(&format!(" after epoch {kept} of 5")), "{message}");
        let (fitted, epochs) = setup.fit(&scratch.0, 0);
        assert_eq!(epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), (kept + 1..=5).collect::<Vec<_>>());
        same(&fitted.unwrap(), &whole, &format!("{checkpoint_after:?}"));
    }
    // The last epoch is written whatever the time.
    let scratch = Scratch::new("waits-whole");
    let mut monitor = After { steps: 0, stop: Stop::default(), epochs: Vec::new() };
    let job = Job { checkpoint_after: Duration::MAX, ..setup.job(&scratch.0) };
    same(&fit(&job, &Stop::default(), &mut monitor).unwrap(), &whole, "whole");
    let (again, epochs) = setup.fit(&scratch.0, 0);
    same(&again.unwrap(), &whole, "read back");
    assert!(epochs.is_empty(), "nothing is left to train");
}

#[test]
fn training_that_is_stopped_anywhere_and_goes_on_gives_the_same_bits() {
    for optimizer in ["sgd", "adamw", "dot"] {
        let setup = Setup::new(optimizer);
        let whole = setup.whole();
        assert!(whole.history.last().unwrap().loss < whole.history[0].loss, "{optimizer} learns");
        let scratch = Scratch::new(&format!("stopped-{optimizer}"));
        for steps in [3, 7, 1, 6, 5] {
            let (result, epochs) = setup.fit(&scratch.0, steps);
            let refusal = result.err().unwrap();
            assert_eq!(refusal.exit, Exit::Terminated, "{refusal}");
            assert!(epochs.len() <= 1 || steps > 5, "{epochs:?}");
        }
        same(&setup.fit(&scratch.0, 0).0.unwrap(), &whole, optimizer);
        let (again, epochs) = setup.fit(&scratch.0, 0);
        same(&again.unwrap(), &whole, "read back");
        assert!(epochs.is_empty(), "nothing is trained again");
    }
}

#[test]
fn samples_without_a_label_teach_by_the_teacher_alone() {
    for mut setup in [Setup::new("sgd"), Setup::with_everything()] {
        let labelled = setup.whole();
        setup.data.train.labels[..9].fill(UNLABELLED);
        let fitted = setup.whole();
        let is_sound = |epoch: &Epoch| epoch.loss > 0.0 && epoch.loss.is_finite() && epoch.train_accuracy <= 1.0;
        assert!(fitted.history.iter().all(is_sound), "{:?}", fitted.history);
        assert_ne!(fitted.last, labelled.last);
        setup.data.train.labels.fill(UNLABELLED);
        let unknown = setup.whole();
        assert!(unknown.history.iter().all(|epoch| epoch.train_accuracy == 0.0));
        // Without a teacher nothing is left to learn from.
        let heard = unknown.history.iter().all(|epoch| epoch.loss > 0.0);
        assert_eq!(heard, setup.distill.is_some(), "{:?}", unknown.history);
        let silent = unknown.history.iter().all(|epoch| epoch.loss == 0.0);
        assert_eq!(silent, setup.distill.is_none(), "{:?}", unknown.history);
    }
}

#[test]
fn with_everything_switched_on_training_resumes_bit_for_bit_on_any_threads() {
    let setup = Setup::with_everything();
    let whole = setup.whole();
    assert_eq!(whole.history.len(), 6);
    let measured = |epoch: &Epoch| epoch.gradients.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (init, main) = (measured(&whole.history[0]), measured(&whole.history[1]));
    assert_eq!((init, main), (vec!["kd".to_string()], vec!["ce".into(), "kd".into(), "kd.2".into()]));
    assert_eq!(whole.history[1].gradients[2].1, 0.0, "its schedule begins later");
    assert!(whole.history[5].gradients[2].1 > 0.0);
    for threads in [1, 2] {
        let setup = Setup { threads, ..Setup::with_everything() };
        let scratch = Scratch::new(&format!("everything-{threads}"));
        // An epoch has 7 batches: these stop within and between steps.
        for steps in [3, 9, 1, 8] {
            assert_eq!(setup.fit(&scratch.0, steps).0.err().unwrap().exit, Exit::Terminated);
        }
        same(&setup.fit(&scratch.0, 0).0.unwrap(), &whole, &format!("{threads} threads"));
    }
    let initializer = |graph: &Graph, name: &str| graph.initializers[&graph.find(name).unwrap()].clone();
    let changed = |name: &&String| initializer(&whole.last, name) != initializer(&setup.graph, name);
    let names = setup.parameters();
    assert_eq!(
        names.iter().filter(changed).collect::<Vec<_>>(),
        names[1..].iter().collect::<Vec<_>>(),
        "one is frozen"
    );

    // Measuring changes nothing else.
    let mut plain = Setup::with_everything();
    plain.distill.as_mut().unwrap().0.diagnose = false;
    let mut plain = plain.whole();
    plain.history.iter_mut().zip(&whole.history).for_each(|(epoch, with)| epoch.gradients = with.gradients.clone());
    same(&plain, &whole, "measured or not");
}

#[test]
fn a_hint_of_the_first_stage_alone_leaves_training_resumable_in_both() {
    let with_hint = |threads: usize| {
        let mut setup = Setup { threads, ..Setup::with_everything() };
        let fitnets = METHODS.iter().find(|method| method.name == "fitnets").unwrap();
        let mut method = named(fitnets.name, fitnets.options);
        for side in ["student", "teacher"] {
            method.options = method.options.with(side, Setting::Text("features".into()));
        }
        let (distill, _) = setup.distill.as_mut().unwrap();
        distill.init_epochs = 2;
        distill.terms.push(Term { method, weight: 1.0, stage: Stage::Init, schedule: None });
        setup
    };
    let whole = with_hint(1).whole();
    let value = |epoch: usize| whole.history[epoch].terms.iter().find(|(name, _)| name == "fitnets").unwrap().1;
    assert!(value(1) > 0.0 && value(2) == 0.0, "{} {}", value(1), value(2));
    for threads in [1, 2] {
        let setup = with_hint(threads);
        let scratch = Scratch::new(&format!("hint-{threads}"));
        // An epoch has 7 batches: the first two stop in the first stage, the others in the main one.
        for steps in [3, 9, 8, 1, 9] {
            assert_eq!(setup.fit(&scratch.0, steps).0.err().unwrap().exit, Exit::Terminated);
        }
        same(&setup.fit(&scratch.0, 0).0.unwrap(), &whole, &format!("{threads} threads"));
    }
}

/// Largest difference of two networks' arrays, relative to the largest element of each.
fn difference(a: &Graph, b: &Graph) -> f32 {
    let floats = |graph: &Graph| -> Vec<Vec<f32>> {
        graph.initializers.values().filter_map(|tensor| tensor.get::<f32>()).map(<[f32]>::to_vec).collect()
    };
    let arrays = floats(a).into_iter().zip(floats(b));
    let off = |(a, b): (Vec<f32>, Vec<f32>)| {
        let largest = a.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
        a.iter().zip(&b).fold(0.0_f32, |off, (a, b)| off.max((a - b).abs())) / largest
    };
    arrays.map(off).fold(0.0, f32::max)
}

#[test]
fn batches_of_one_step_equal_one_batch_of_all_their_samples() {
    let arch = ARCHS.iter().find(|arch| arch.name == "mlp").unwrap();
    let site = Site { input: vec![1, 8, 8], classes: 3 };
    let of = |batch: usize, accumulate: usize| {
        let mut setup = Setup::with_everything();
        setup.graph = zoo::build(&named(arch.name, arch.options), &site, 1).unwrap();
        (setup.train.batch, setup.train.accumulate, setup.train.groups) = (batch, accumulate, vec![]);
        // With weights each batch is a mean of its own.
        setup.train.class_weights = ClassWeights::Equal;
        setup.whole()
    };
    // 34 samples: the last step of an epoch has 2 of them, in one batch.
    let (large, small) = (of(8, 1), of(4, 2));
    assert_eq!(large.history.len(), small.history.len());
    assert!(difference(&large.last, &small.last) < 1e-4, "{}", difference(&large.last, &small.last));
    assert!(difference(&large.last, &of(4, 1).last) > 1e-2, "unlike twice as many steps");
}

#[test]
fn the_average_is_what_is_judged_and_kept() {
    let mut setup = Setup::new("sgd");
    (setup.train.epochs, setup.train.batch) = (1, 34);
    let raw = setup.whole();
    (setup.train.ema, setup.train.ema_warmup) = (Some(0.25), false);
    let scratch = Scratch::new("average");
    let averaged = setup.fit(&scratch.0, 0).0.unwrap();
    let mut expected = raw.last.clone();
    for (id, tensor) in &mut expected.initializers {
        let first = setup.graph.initializers[id].clone();
        let (Some(first), Some(last)) = (first.get::<f32>(), tensor.get_mut::<f32>()) else { continue };
        last.iter_mut().zip(first).for_each(|(last, first)| *last = 0.25 * first + 0.75 * *last);
    }
    assert!(difference(&expected, &averaged.last) < 1e-6, "{}", difference(&expected, &averaged.last));
    assert!(difference(&expected, &raw.last) > 1e-3);
    assert_eq!(averaged.last, averaged.selected);
    let judge = |graph| {
        crate::teacher::evaluate(
            graph,
            &setup.data.contract,
            &setup.data.validation,
            Pace { batch: 34, compute: Compute::host(1) },
        )
        .unwrap()
    };
    assert_eq!(averaged.history[0].validation_loss, Some(judge(&averaged.last).loss));
    // Training itself went on with the parameters: the checkpoint holds both.
    let bytes = fs::read(scratch.0.join("state.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = &setup.parameters()[0];
    let [raw_now, average] =
        [format!("parameter/{name}"), format!("optimizer/average/{name}")].map(|n| file.tensor(&n).unwrap());
    assert_ne!(raw_now.data(), average.data());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let one = Setup::new("sgd");
    let three = Setup { threads: 3, ..Setup::new("sgd") };
    same(&one.whole(), &three.whole(), "1 and 3 threads");
    for loaders in [0, 2, 5] {
        let other = Setup { loaders, threads: 2, ..Setup::new("sgd") };
        same(&one.whole(), &other.whole(), &format!("1 and {loaders} loaders"));
    }
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused() {
    let setup = Setup::new("adamw");
    let scratch = Scratch::new("damaged");
    assert!(setup.fit(&scratch.0, 8).0.is_err());
    let path = scratch.0.join("state.safetensors");
    let good = fs::read(&path).unwrap();
    let other = Setup { fingerprint: "g", ..Setup::new("adamw") };
    let refusal = other.fit(&scratch.0, 0).0.err().unwrap().to_string();
    assert!(refusal.contains("the checkpoint of this run"), "{refusal}");
    let mut accepted = 0;
    for i in 0..200 {
        let mut bad = good.clone();
        let bit = i * (good.len() * 8) / 200 + i % 8;
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        accepted += usize::from(setup.fit(&scratch.0, 1).0.err().is_none_or(|error| error.exit == Exit::Terminated));
    }
    assert_eq!(accepted, 0, "of 200 damaged checkpoints");
    for end in [0, 1, 7, 8, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..end]).unwrap();
        assert_eq!(setup.fit(&scratch.0, 0).0.err().unwrap().exit, Exit::Refused, "{end} bytes");
    }
    fs::write(&path, &good).unwrap();
    same(&setup.fit(&scratch.0, 0).0.unwrap(), &setup.whole(), "the good one");
}

#[test]
fn numbers_that_are_not_finite_stop_it_and_keep_the_last_good_checkpoint() {
    let mut setup = Setup::new("sgd");
    let scratch = Scratch::new("nan");
    assert!(setup.fit(&scratch.0, 7).0.is_err());
    let good = fs::read(scratch.0.join("state.safetensors")).unwrap();
    let Values::U8(bytes) = &setup.data.train.values else { unreachable!() };
    let mut floats: Vec<f32> = bytes.iter().map(|&b| f32::from(b)).collect();
    floats[64 * 11 + 28] = f32::NAN;
    setup.data.train.values = Values::F32(floats);
    let refusal = setup.fit(&scratch.0, 0).0.err().unwrap();
    assert_eq!(refusal.exit, Exit::VerdictFailed);
    let line = refusal.to_string();
    assert!(line.starts_with("student: epoch 2: term `ce` at step"), "{line}");
    assert_eq!(fs::read(scratch.0.join("state.safetensors")).unwrap(), good);
}

#[test]
fn training_ends_early_where_validation_no_longer_gains_and_keeps_the_best() {
    let mut setup = Setup::new("sgd");
    setup.train.epochs = 60;
    setup.train.patience = Some(3);
    let fitted = setup.whole();
    assert!(fitted.history.len() < 60, "{} epochs", fitted.history.len());
    assert_eq!(fitted.selected_epoch + 3, fitted.history.len());
    let best = fitted.history.iter().map(|epoch| epoch.validation_accuracy.unwrap()).fold(0.0, f64::max);
    assert_eq!(fitted.history[fitted.selected_epoch - 1].validation_accuracy, Some(best));
}
