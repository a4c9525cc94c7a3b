//! What happens at the first and last steps of something: a burn-in, an epoch whose last batch is small, a stage.

use std::sync::Mutex;

use super::super::replicas::{Peers, Replica};
use super::*;
use crate::recipe::{Codistill, Shards};
use crate::schemes::meeting::Meeting;

/// What is told of each step, and all remarks.
#[derive(Default)]
struct Told {
    /// Of each step its samples and the sums of its terms' values.
    steps: Vec<(usize, Vec<(String, f64)>)>,
    epochs: Vec<Epoch>,
    notes: Vec<String>,
    /// Of the epoch so far.
    samples: usize,
    sums: Vec<f64>,
}

impl Monitor for Told {
    fn begin(&mut self, _: &str, _: usize, _: usize, _: usize) {}
    fn step(&mut self, samples: usize, means: &[(&str, f64)], _: f64) {
        self.samples += samples;
        let now: Vec<f64> = means.iter().map(|(_, mean)| mean * self.samples as f64).collect();
        self.sums.resize(now.len(), 0.0);
        let step = means.iter().zip(now.iter().zip(&self.sums)).map(|((name, _), (a, b))| (name.to_string(), a - b));
        self.steps.push((samples, step.collect()));
        self.sums = now;
    }
    fn epoch(&mut self, _: &str, epoch: &Epoch) {
        self.epochs.push(epoch.clone());
        (self.samples, self.sums) = (0, Vec::new());
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
}

pub(super) fn term(method: &str, set: &[(&'static str, Setting)]) -> Term {
    let row = METHODS.iter().find(|row| row.name == method).unwrap();
    let mut method = named(row.name, row.options);
    for (name, setting) in set {
        method.options = method.options.with(name, setting.clone());
    }
    Term { method, weight: 1.0, stage: Stage::Main, schedule: None }
}

pub(super) fn distill(scheme: Scheme, task_weight: f64, terms: Vec<Term>) -> Distill {
    Distill { scheme, peers: Vec::new(), assistants: Vec::new(), task_weight, init_epochs: 0, diagnose: false, terms }
}

/// A teacher of this architecture.
pub(super) fn teacher(arch: &str, set: &[(&'static str, Setting)], setup: &Setup) -> Network {
    let row = ARCHS.iter().find(|row| row.name == arch).unwrap();
    let mut choice = named(row.name, row.options);
    for (name, setting) in set {
        choice.options = choice.options.with(name, setting.clone());
    }
    Network {
        name: arch.into(),
        graph: zoo::build(&choice, &Site { input: vec![1, 8, 8], classes: 3 }, 5).unwrap(),
        contract: setup.data.contract.clone(),
        sha256: String::new(),
        weight: 1.0,
        cache: CacheWish::OFF,
        notes: vec![],
    }
}

impl Setup {
    fn told(&self, folder: &Path, replica: Option<Replica<'_>>) -> Result<Told> {
        let mut told = Told::default();
        let job = Job { replica, ..self.job(folder) };
        fit(&job, &Stop::default(), &mut told).map(|_| told)
    }
}

/// Two replicas; the first's value of what it hears at each step.
fn heard(burn_in_steps: Option<usize>) -> Vec<f64> {
    let scheme = Codistill { replicas: 2, burn_in_steps, exchange_steps: 1, shards: Shards::Same };
    let (meeting, scratch) = (Meeting::new(2), Scratch::new(&format!("burn-in-{burn_in_steps:?}")));
    let shard: Vec<usize> = (0..34).collect();
    let told = Mutex::new(None);
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (meeting, scratch, shard, told) = (&meeting, &scratch, &shard, &told);
            scope.spawn(move || {
                let mut setup = Setup::new("sgd");
                setup.train.epochs = 2;
                // As its own, with other first weights.
                let like = [("widths", Setting::Counts(vec![4, 6])), ("dropout", Setting::Number(0.3))];
                let peer = teacher("cnn", &like, &setup);
                let distill = distill(Scheme::Codistill(scheme), 1.0, vec![term("codistill", &[])]);
                setup.distill = Some((distill, vec![peer]));
                let replica = Replica { peers: Peers::Here(meeting), scheme, shard, me };
                let found = setup.told(&scratch.0.join(me.to_string()), Some(replica)).unwrap();
                if me == 0 {
                    *told.lock().unwrap() = Some(found);
                }
            });
        }
    });
    let told = told.into_inner().unwrap().unwrap();
    told.steps.iter().map(|(_, terms)| terms[1].1).collect()
}

#[test]
fn a_replica_listens_from_the_step_on_that_follows_its_burn_in() {
    // 34 samples in batches of 8: five steps an epoch.
    for (burn_in_steps, first) in [(Some(0), 0), (Some(1), 1), (Some(4), 4), (Some(7), 7), (None, 5)] {
        let values = heard(burn_in_steps);
        assert_eq!(values.len(), 10);
        let silent = values.iter().take_while(|value| value.abs() < 1e-9).count();
        assert_eq!(silent, first, "{burn_in_steps:?}: {values:?}");
        assert!(values[first..].iter().all(|value| *value > 1e-3), "{burn_in_steps:?}: {values:?}");
    }
}

#[test]
fn an_epoch_with_one_or_two_samples_left_over_is_trained_with_finite_numbers() {
    let relations = ["rkd_d", "rkd_a", "sp", "cc", "pkt", "crd", "kd"];
    // 34 samples: one is left over of batches of 11 and left out, as is the last of batches of 1; two of batches of 8 and 16.
    for (batch, sizes) in [(11, vec![11; 3]), (8, vec![8, 8, 8, 8, 2]), (16, vec![16, 16, 2]), (1, vec![1; 33])] {
        let mut setup = Setup::new("sgd");
        (setup.train.batch, setup.train.epochs) = (batch, 2);
        let terms = relations.iter().map(|name| term(name, &[])).collect();
        setup.distill = Some((distill(Scheme::Offline, 1.0, terms), vec![teacher("mlp", &[], &setup)]));
        let scratch = Scratch::new(&format!("left-over-{batch}"));
        let told = setup.told(&scratch.0, None).unwrap();
        let found: Vec<usize> = told.steps.iter().map(|(samples, _)| *samples).collect();
        assert_eq!(found, sizes.repeat(2), "batches of {batch}");
        for epoch in &told.epochs {
            assert!(epoch.loss.is_finite() && epoch.validation_loss.is_some_and(f64::is_finite), "{epoch:?}");
        }
    }
    // One sample is all there is.
    let mut setup = Setup::new("sgd");
    setup.data.train = samples(1, 0);
    setup.train.epochs = 1;
    let told = setup.told(&Scratch::new("one-sample").0, None).unwrap();
    assert!(told.epochs[0].loss.is_finite(), "{:?}", told.epochs);
}

#[test]
fn a_gradient_far_from_the_first_terms_is_remarked_once_a_stage() {
    let notes = |weight: f64| {
        let mut setup = Setup::new("sgd");
        setup.train.epochs = 2;
        let kd = Term { weight, ..term("kd", &[]) };
        let distill = Distill { diagnose: true, ..distill(Scheme::Offline, 1.0, vec![kd]) };
        setup.distill = Some((distill, vec![teacher("mlp", &[], &setup)]));
        setup.told(&Scratch::new(&format!("lopsided-{weight}")).0, None).unwrap().notes
    };
    let found = notes(1e5);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("student: epoch 1: the gradient of `kd` is "), "{found:?}");
    assert!(found[0].ends_with(" times that of `ce`: check its weight"), "{found:?}");
    assert_eq!((notes(1e-5).len(), notes(1.0).len(), notes(0.0).len()), (1, 0, 0));
}
