//! Training of one network: stopped and continued, on any number of threads, with damaged checkpoints and bad numbers.

use std::fs;
use std::path::{Path, PathBuf};

use kd_runtime::Result;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::error::Exit;
use kd_runtime::graph::Graph;

use super::fit::{Epoch, Fitted, Job, fit};
use super::monitor::Monitor;
use super::signals::Stop;
use crate::data::{Prepared, Samples, Values, augment};
use crate::options::{Options, Setting};
use crate::recipe::{Choice, Data, Keep, Normalize, Train};
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
        clip_norm: Some(1.0),
        max_norm: Some(3.0),
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
    threads: usize,
    loaders: usize,
    fingerprint: &'static str,
}

impl Setup {
    fn new(optimizer: &str) -> Self {
        let (data, section) = (prepared(), section());
        Self { data, section, graph: network(), train: train(optimizer), threads: 1, loaders: 1, fingerprint: "f" }
    }

    /// Trains until the end or so many steps (0: no limit).
    fn fit(&self, folder: &Path, steps: usize) -> (Result<Fitted>, Vec<Epoch>) {
        let stop = Stop::default();
        let mut monitor = After { steps, stop: stop.clone(), epochs: Vec::new() };
        let job = Job {
            name: "student",
            graph: &self.graph,
            train: &self.train,
            data_section: &self.section,
            distill: None,
            data: &self.data,
            seed: 3,
            threads: self.threads,
            loaders: self.loaders,
            replica: None,
            caches: folder,
            checkpoints: folder,
            fingerprint: self.fingerprint,
        };
        let result = fit(&job, &stop, &mut monitor);
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

#[test]
fn training_that_is_stopped_anywhere_and_goes_on_gives_the_same_bits() {
    for optimizer in ["sgd", "adamw"] {
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
