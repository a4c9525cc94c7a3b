//! One network that learns: from the labels, from what frozen teachers say of the same batch, and from itself.

use std::path::Path;

use kd_runtime::contract::Contract;
use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::{Refusal, Result};

use super::At;
use super::meeting::Snapshot;
use super::teachers::{Feed, Taught, Teachers};
use super::terms::{Extended, Term, extend, only};
use crate::data::{RawBatch, scale};
use crate::exec::{Executor, Mode, Plan};
use crate::losses::pair::cut;
use crate::losses::{Batch, Tap};
use crate::recipe::{Distill, Train};
use crate::teacher::{Network, largest, same_network};

/// A network that learns.
pub struct Learner {
    /// The learning network with its adapters; its parameters (those of the losses behind them) hold the gradients of the
    /// last step.
    pub executor: Executor<f32>,
    /// Names of the loss terms in order: `ce`, then those of the recipe (`kd`; a second one of the same name is `kd.2`).
    pub term_names: Vec<String>,
    /// Values that answer as the output does, from the shallowest.
    pub exits: Vec<Tap>,
    /// Whether terms that read a teacher count: a replica that burns in does not listen to the others.
    pub listens: bool,
    contract: Contract,
    terms: Vec<Wired>,
    teachers: Teachers,
    /// Values of the network that terms read, and the sum of their gradients.
    taps: Vec<(ValueId, Vec<f32>)>,
    output: ValueId,
    x: Vec<f32>,
}

/// A term with the values that it reads.
struct Wired {
    term: Term,
    /// Places in [`Learner::taps`] of what it reads of the learning network, and the gradients that it gives.
    student: Vec<usize>,
    d_student: Vec<Vec<f32>>,
    teacher: Vec<Taught>,
    /// Places of its own arrays among the executor's parameters.
    own: std::ops::Range<usize>,
}

/// Values of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepValues {
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Each term's value, not weighted, in the order of [`Learner::term_names`]; 0 of one whose stage it is not.
    pub terms: Vec<f64>,
    /// Samples whose largest logit was their class.
    pub right: usize,
}

impl Learner {
    /// Plans a network with its teachers and the adapters of its terms, whose first weights `seed` decides. Without
    /// `distill` it learns from the labels alone (the baseline, a teacher). `samples` are those that are trained on.
    /// Checks that every term's taps exist and classes agree, that no teacher equals the student.
    pub fn new(
        graph: &Graph,
        contract: &Contract,
        train: &Train,
        distill: Option<(&Distill, &[Network])>,
        threads: usize,
        samples: usize,
        seed: u64,
    ) -> Result<Self> {
        let networks = distill.map_or(&[][..], |(_, networks)| networks);
        networks.iter().try_for_each(|network| check_teacher(network, graph, contract))?;
        let recipe = distill.map(|(distill, _)| distill);
        let Extended { graph, exits, terms } =
            extend(graph, contract, recipe, train.label_smoothing, only(networks), samples, seed)?;
        if terms.is_empty() {
            let action = "set distill.task_weight above 0, or add a term";
            return Err(Refusal::new("distill", "a loss to learn from", "none", action));
        }
        let mut taps: Vec<String> = vec![contract.output.name.clone()];
        taps.extend(terms.iter().flat_map(|term| term.loss.student_taps()).cloned());
        let mut executor = Executor::new(&graph, &Plan { batch: train.batch, taps, backward: true, threads })?;
        let taught: Vec<&str> = terms.iter().flat_map(|term| term.loss.teacher_taps()).map(String::as_str).collect();
        let mut teachers = Teachers::new(networks, &taught, train.batch, threads)?;
        let mut taps: Vec<(ValueId, Vec<f32>)> = Vec::new();
        let term_names = terms.iter().map(|term| term.name.clone()).collect();
        let mut wired = Vec::with_capacity(terms.len());
        for term in terms {
            let (mut student, mut teacher) = (Vec::new(), Vec::new());
            for name in term.loss.student_taps() {
                let id = executor.tap(name)?;
                let known = taps.iter().position(|(known, _)| *known == id);
                student.push(known.unwrap_or(taps.len()));
                if known.is_none() {
                    taps.push((id, Vec::new()));
                }
            }
            for name in term.loss.teacher_taps() {
                teacher.push(teachers.taught(networks, name, term.temperature)?);
            }
            let first = executor.adopt(term.loss.own());
            let own = first..executor.parameters().len();
            wired.push(Wired { term, d_student: vec![Vec::new(); student.len()], student, teacher, own });
        }
        let output = executor.tap(&contract.output.name)?;
        let (contract, x) = (contract.clone(), Vec::new());
        Ok(Self { executor, term_names, exits, listens: true, contract, terms: wired, teachers, taps, output, x })
    }

    /// Keeps in `folder` what teachers that wish it say of all samples, and asks them no more. Remarks go to `note`.
    pub fn keep_answers(
        &mut self,
        folder: &Path,
        feed: &Feed<'_>,
        batch: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.teachers.keep(folder, feed, batch, note)
    }

    /// What it leaves for others to listen to: all parameters.
    pub fn snapshot(&self) -> Vec<Vec<f32>> {
        self.executor.parameters().iter().map(|parameter| parameter.value.clone()).collect()
    }

    /// Listens, from now on, to these snapshots of networks like itself.
    pub fn hear(&mut self, snapshots: &[Snapshot]) {
        let names: Vec<String> = self.executor.parameters().iter().map(|parameter| parameter.name.clone()).collect();
        self.teachers.hear(&names, snapshots);
    }

    /// Says which epoch follows; gives the one whose augmentations its samples are to have: another one where teachers'
    /// answers to a few augmented views are kept.
    pub fn begin_epoch(&mut self, epoch: usize) -> usize {
        self.teachers.begin_epoch(epoch)
    }

    /// Forward, losses and backward of one batch; the optimizer is the caller's. `at` drives the schedules of the terms'
    /// weights, `seed` the dropout masks. Refuses a loss that is not finite, naming the term.
    pub fn step(&mut self, batch: &RawBatch, seed: u64, at: At) -> Result<StepValues> {
        let Self { executor, contract, terms, teachers, taps, output, x, listens, .. } = self;
        let n = batch.labels.len();
        scale(contract, &batch.values, x);
        executor.forward(x, n, Mode::Train { seed })?;
        if *listens {
            teachers.answer(batch)?;
        }
        for (tap, d) in taps.iter_mut() {
            d.clear();
            d.resize(executor.value(*tap).len(), 0.0);
        }
        let progress = at.step as f64 / at.steps.max(1) as f64;
        let seen = Batch { size: n, labels: &batch.labels, mixed: &batch.mixed, places: &batch.places, progress };
        let mut values = StepValues { terms: Vec::with_capacity(terms.len()), ..StepValues::default() };
        for wired in terms {
            let heard = *listens || wired.teacher.is_empty();
            let Some(weight) = wired.term.factor(at).filter(|_| heard) else {
                values.terms.push(0.0);
                executor.parameters_mut()[wired.own.clone()].iter_mut().for_each(|own| own.gradient.fill(0.0));
                continue;
            };
            let value = wired.value(&seen, executor, teachers, taps, weight as f32)?;
            if !value.is_finite() {
                let place = format!("term `{}` at step {}", wired.term.name, at.step + 1);
                return Err(Refusal::new(place, "a finite loss", value, "lower the learning rate or check the data"));
            }
            values.terms.push(value);
            values.loss += weight * value;
            for (&place, d_term) in wired.student.iter().zip(&wired.d_student) {
                let sums = taps[place].1.iter_mut().zip(d_term);
                sums.for_each(|(sum, d)| *sum += weight as f32 * d);
            }
        }
        let rows = executor.value(*output).chunks_exact((executor.value(*output).len() / n.max(1)).max(1));
        values.right = rows.zip(&batch.labels).filter(|(row, label)| largest(row) == **label).count();
        let d_taps: Vec<(ValueId, &[f32])> = taps.iter().map(|(tap, d)| (*tap, &d[..])).collect();
        executor.backward(&d_taps)?;
        Ok(values)
    }

    /// The network with its present parameters, without adapters that its output does not need.
    pub fn network(&self) -> Result<Graph> {
        cut(&self.executor.to_graph(), &self.contract.output.name, &self.contract.output.name)
    }

    /// Refuses teachers whose parameters are not, bit for bit, those they had when the learner was planned.
    pub fn check_teachers_unchanged(&self) -> Result<()> {
        self.teachers.check_unchanged()
    }
}

impl Wired {
    /// The term's value for a batch, not weighted. Leaves its gradients by the student in `d_student`, not weighted, and
    /// those by its own arrays, weighted, in the executor.
    fn value(
        &mut self,
        batch: &Batch<'_>,
        executor: &mut Executor<f32>,
        teachers: &Teachers,
        taps: &[(ValueId, Vec<f32>)],
        weight: f32,
    ) -> Result<f64> {
        let mut own = executor.lend(self.own.clone());
        let student: Vec<&[f32]> = self.student.iter().map(|&place| executor.value(taps[place].0)).collect();
        let teacher: Vec<&[f32]> = self.teacher.iter().map(|&taught| teachers.value(taught)).collect();
        for (d, student) in self.d_student.iter_mut().zip(&student) {
            d.resize(student.len(), 0.0);
        }
        let mut d_student: Vec<&mut [f32]> = self.d_student.iter_mut().map(Vec::as_mut_slice).collect();
        let value = self.term.loss.value(batch, &student, &teacher, &mut d_student, &mut own);
        own.iter_mut().flat_map(|own| &mut own.gradient).for_each(|d| *d *= weight);
        executor.give_back(self.own.start, own);
        Ok(f64::from(value?))
    }
}

/// Refuses a teacher that answers other classes, that is fed other samples, or that is the student itself.
fn check_teacher(network: &Network, graph: &Graph, contract: &Contract) -> Result<()> {
    let at = format!("teacher `{}`", network.name);
    let (ours, theirs) = (&contract.output.classes, &network.contract.output.classes);
    if ours.len() != theirs.len() {
        let expected = format!("{} classes, as the student has", ours.len());
        return Err(Refusal::new(at, expected, theirs.len(), "choose a teacher of the same classes"));
    }
    let (ours, theirs) = (contract.input.elements(), network.contract.input.elements());
    if ours != theirs {
        let expected = format!("samples of {ours} values, as the student has");
        return Err(Refusal::new(at, expected, theirs, "choose a teacher of the same data"));
    }
    if same_network(graph, &network.graph) {
        let found = "the student itself, with its weights";
        return Err(Refusal::new(at, "a network that differs from the student", found, "choose another teacher"));
    }
    Ok(())
}
