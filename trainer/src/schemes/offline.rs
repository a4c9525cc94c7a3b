//! Frozen teachers: one network learns from the labels and from what the teachers say of the same batch.

use kd_runtime::contract::Contract;
use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::{Refusal, Result};

use super::teachers::{Taught, Teachers, value_name};
use crate::data::{RawBatch, scale};
use crate::exec::{Executor, Mode, Plan};
use crate::losses::table::METHODS;
use crate::losses::{Batch, Loss, ce};
use crate::optim::schedule::SCHEDULES;
use crate::options::{Options, Setting};
use crate::recipe::{self, Choice, Distill, Train};
use crate::teacher::{Network, largest, same_network};

/// A network that learns.
pub struct Learner {
    /// The learning network; its parameters hold the gradients of the last step.
    pub executor: Executor<f32>,
    /// Names of the loss terms in order: `ce`, then those of the recipe (`kd`; a second one of the same name is `kd.2`).
    pub term_names: Vec<String>,
    contract: Contract,
    terms: Vec<Term>,
    teachers: Teachers,
    /// Values of the network that terms read, and the sum of their gradients.
    taps: Vec<(ValueId, Vec<f32>)>,
    output: ValueId,
    x: Vec<f32>,
}

/// One loss in the sum.
struct Term {
    loss: Box<dyn Loss>,
    weight: f64,
    schedule: Option<Choice>,
    /// Places in [`Learner::taps`] of what it reads of the learning network, and the gradients that it gives.
    student: Vec<usize>,
    d_student: Vec<Vec<f32>>,
    teacher: Vec<Taught>,
    /// Of its soft targets; 1 for a method that has none.
    temperature: f64,
}

/// Values of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepValues {
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Each term's value, not weighted, in the order of [`Learner::term_names`].
    pub terms: Vec<f64>,
    /// Samples whose largest logit was their class.
    pub right: usize,
}

impl Learner {
    /// Plans a network with its teachers. Without `distill` it learns from the labels alone (the baseline, a teacher).
    /// Checks that every term's taps exist and classes agree, that no teacher equals the student.
    pub fn new(
        graph: &Graph,
        contract: &Contract,
        train: &Train,
        distill: Option<(&Distill, &[Network])>,
        threads: usize,
    ) -> Result<Self> {
        let networks = distill.map_or(&[][..], |(_, networks)| networks);
        networks.iter().try_for_each(|network| check_teacher(network, graph, contract))?;
        let mut terms: Vec<(&str, Term)> = Vec::new();
        let task_weight = distill.map_or(1.0, |(distill, _)| distill.task_weight);
        if task_weight > 0.0 {
            terms.push(("ce", Term::task(task_weight, train.label_smoothing, &contract.output.name)));
        }
        let others = distill.map_or(&[][..], |(distill, _)| &distill.terms);
        terms.extend(others.iter().map(|term| (term.method.name, Term::new(term))));
        if terms.is_empty() {
            let action = "set distill.task_weight above 0, or add a term";
            return Err(Refusal::new("distill", "a loss to learn from", "none", action));
        }
        let (names, mut terms): (Vec<&str>, Vec<Term>) = terms.into_iter().unzip();

        let mut taps: Vec<String> = vec![contract.output.name.clone()];
        let read = terms.iter().flat_map(|term| term.loss.student_taps());
        taps.extend(read.map(|tap| value_name(graph, contract, tap).to_string()));
        let executor = Executor::new(graph, &Plan { batch: train.batch, taps, backward: true, threads })?;
        let taught: Vec<&str> = terms.iter().flat_map(|term| term.loss.teacher_taps()).map(String::as_str).collect();
        let mut teachers = Teachers::new(networks, &taught, train.batch, threads)?;
        let mut taps: Vec<(ValueId, Vec<f32>)> = Vec::new();
        for term in &mut terms {
            for name in term.loss.student_taps() {
                let id = executor.tap(value_name(graph, contract, name))?;
                let known = taps.iter().position(|(known, _)| *known == id);
                term.student.push(known.unwrap_or(taps.len()));
                if known.is_none() {
                    taps.push((id, Vec::new()));
                }
                term.d_student.push(Vec::new());
            }
            for name in term.loss.teacher_taps() {
                term.teacher.push(teachers.taught(networks, name, term.temperature)?);
            }
        }
        let output = executor.tap(&contract.output.name)?;
        let (term_names, contract) = (numbered(&names), contract.clone());
        Ok(Self { executor, term_names, contract, terms, teachers, taps, output, x: Vec::new() })
    }

    /// Forward, losses and backward of one batch; the optimizer is the caller's. `step` of `steps` (and `steps_per_epoch`)
    /// drive the schedules of the terms' weights; `seed` the dropout masks. Refuses a loss that is not finite, naming the
    /// term.
    pub fn step(&mut self, batch: &RawBatch, seed: u64, at: At) -> Result<StepValues> {
        let Self { executor, term_names, contract, terms, teachers, taps, output, x } = self;
        let n = batch.labels.len();
        scale(contract, &batch.values, x);
        executor.forward(x, n, Mode::Train { seed })?;
        teachers.answer(batch)?;
        for (tap, d) in taps.iter_mut() {
            d.clear();
            d.resize(executor.value(*tap).len(), 0.0);
        }
        let mut values = StepValues { terms: Vec::with_capacity(terms.len()), ..StepValues::default() };
        for (term, name) in terms.iter_mut().zip(term_names) {
            let weight = term.weight * term.factor(at);
            let value = term.value(n, &batch.labels, executor, teachers, taps)?;
            if !value.is_finite() {
                let place = format!("term `{name}` at step {}", at.step + 1);
                return Err(Refusal::new(place, "a finite loss", value, "lower the learning rate or check the data"));
            }
            values.terms.push(value);
            values.loss += weight * value;
            for (&place, d_term) in term.student.iter().zip(&term.d_student) {
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

    /// Refuses teachers whose parameters are not, bit for bit, those they had when the learner was planned.
    pub fn check_teachers_unchanged(&self) -> Result<()> {
        self.teachers.check_unchanged()
    }
}

impl Term {
    fn with(loss: Box<dyn Loss>, weight: f64, schedule: Option<Choice>, temperature: f64) -> Self {
        let (student, d_student, teacher) = (Vec::new(), Vec::new(), Vec::new());
        Self { loss, weight, schedule, student, d_student, teacher, temperature }
    }

    /// The task's cross-entropy.
    fn task(weight: f64, label_smoothing: f64, output: &str) -> Self {
        let options = Options::defaults(ce::OPTIONS)
            .with("label_smoothing", Setting::Number(label_smoothing))
            .with("student", Setting::Text(output.into()));
        Self::with(ce::build(&options), weight, None, 1.0)
    }

    /// A term of a checked recipe.
    fn new(term: &recipe::Term) -> Self {
        let method = METHODS.iter().find(|method| method.name == term.method.name);
        let options = &term.method.options;
        let loss = (method.expect("a checked choice names a row").build)(options);
        let temperature = options.0.contains_key("temperature").then(|| options.number("temperature"));
        Self::with(loss, term.weight, term.schedule.clone(), temperature.unwrap_or(1.0))
    }

    /// What its schedule multiplies its weight by.
    fn factor(&self, at: At) -> f64 {
        let Some(Choice { name, options }) = &self.schedule else { return 1.0 };
        let schedule = SCHEDULES.iter().find(|schedule| schedule.name == *name);
        let schedule = schedule.expect("a checked choice names a row");
        (schedule.factor)(options, at.step, at.steps, at.steps_per_epoch)
    }

    /// Its value for a batch of `size`, not weighted; leaves its gradients in `d_student`.
    fn value(
        &mut self,
        size: usize,
        labels: &[usize],
        executor: &Executor<f32>,
        teachers: &Teachers,
        taps: &[(ValueId, Vec<f32>)],
    ) -> Result<f64> {
        let student: Vec<&[f32]> = self.student.iter().map(|&place| executor.value(taps[place].0)).collect();
        let teacher: Vec<&[f32]> = self.teacher.iter().map(|&taught| teachers.value(taught)).collect();
        for (d, student) in self.d_student.iter_mut().zip(&student) {
            d.resize(student.len(), 0.0);
        }
        let mut d_student: Vec<&mut [f32]> = self.d_student.iter_mut().map(Vec::as_mut_slice).collect();
        let value = self.loss.value(&Batch { size, labels }, &student, &teacher, &mut d_student)?;
        Ok(f64::from(value))
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

/// Names that differ: the second `kd` is `kd.2`.
fn numbered(names: &[&str]) -> Vec<String> {
    let name = |(i, name): (usize, &&str)| match names[..i].iter().filter(|other| *other == name).count() {
        0 => name.to_string(),
        before => format!("{name}.{}", before + 1),
    };
    names.iter().enumerate().map(name).collect()
}

/// Where in a run a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// From 0.
    pub step: usize,
    /// Of the whole run.
    pub steps: usize,
    /// Of one epoch.
    pub steps_per_epoch: usize,
}
