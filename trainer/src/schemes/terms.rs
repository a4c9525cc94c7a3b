//! The terms of a loss: built on a student (which takes their adapters) beside its teacher, weighted over time.

use kd_runtime::Result;
use kd_runtime::contract::Contract;
use kd_runtime::graph::Graph;

use super::At;
use crate::losses::ce::Targets;
use crate::losses::table::METHODS;
use crate::losses::{Loss, Pair, Tap, ce};
use crate::optim::schedule::{self, SCHEDULES};
use crate::optim::table::OPTIMIZERS;
use crate::recipe::{self, Choice, Distill, Scheme, Stage, Train};
use crate::teacher::Network;

/// One loss in the sum.
pub struct Term {
    /// In metrics: the method's name; a second one of it is `kd.2`.
    pub name: String,
    /// What is computed.
    pub loss: Box<dyn Loss>,
    /// Of its soft targets; 1 for a method that has none.
    pub temperature: f64,
    /// Whether its value is a sum over the samples, and no mean.
    pub sums: bool,
    weight: f64,
    schedule: Option<Choice>,
    stage: Stage,
}

/// A student as it is trained: with the adapters of its terms.
pub struct Extended {
    /// The network with everything that is trained.
    pub graph: Graph,
    /// Values that answer as the output does, from the shallowest.
    pub exits: Vec<Tap>,
    /// The task's loss, if it has a weight, and the terms of the recipe.
    pub terms: Vec<Term>,
    /// What methods did otherwise than asked for, or cannot do here: remarks of one line.
    pub notes: Vec<String>,
}

/// Builds the terms of a recipe for a student. `teacher` is the only one, if there is just one; `samples` are those that
/// are trained on; `targets` the task's. Refuses what cannot work: a tap that does not exist, shapes that no adapter joins.
pub fn extend(
    student: &Graph,
    contract: &Contract,
    distill: Option<&Distill>,
    targets: Targets<f32>,
    teacher: Option<(&Graph, &Contract)>,
    samples: usize,
    seed: u64,
) -> Result<Extended> {
    let (mut terms, mut notes) = (Vec::new(), Vec::new());
    let task_weight = distill.map_or(1.0, |distill| distill.task_weight);
    if task_weight > 0.0 {
        let loss = ce::task(&contract.output.name, targets);
        let (name, schedule, stage) = ("ce".into(), None, Stage::Main);
        terms.push(Term { name, loss, temperature: 1.0, sums: false, weight: task_weight, schedule, stage });
    }
    let mut pair = Pair::new(student, contract, teacher, samples, seed);
    pair.teacher_learns = distill.is_some_and(|distill| matches!(distill.scheme, Scheme::Codistill(_)));
    for (i, term) in distill.map_or(&[][..], |distill| &distill.terms).iter().enumerate() {
        pair.begin_term(i);
        terms.push(Term::new(term, &mut pair).map_err(|e| e.within(format!("distill.terms.{i}")))?);
        notes.extend(pair.notes.drain(..).map(|note| format!("distill.terms.{i}: `{}` {note}", term.method.name)));
    }
    let names: Vec<String> = terms.iter().map(|term| term.name.clone()).collect();
    for (i, term) in terms.iter_mut().enumerate() {
        let before = names[..i].iter().filter(|name| **name == names[i]).count();
        if before > 0 {
            term.name = format!("{}.{}", names[i], before + 1);
        }
    }
    let (graph, exits) = pair.into_parts();
    Ok(Extended { graph, exits, terms, notes })
}

/// How often a step goes backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// The task's gradient is wanted apart from that of the other terms, and there are both.
    pub split: bool,
    /// Each term's gradient is measured at times.
    pub diagnose: bool,
}

impl Passes {
    /// What a recipe wants.
    pub fn of(train: &Train, distill: Option<&Distill>) -> Self {
        let splits = OPTIMIZERS.iter().any(|kind| kind.name == train.optimizer.name && kind.splits);
        Self {
            split: splits && distill.is_some_and(|distill| distill.task_weight > 0.0 && !distill.terms.is_empty()),
            diagnose: distill.is_some_and(|distill| distill.diagnose),
        }
    }

    /// Whether a step may go backward more than once.
    pub fn several(self) -> bool {
        self.split || self.diagnose
    }
}

/// The teacher whose inner values can be read: the only one.
pub fn only(teachers: &[Network]) -> Option<(&Graph, &Contract)> {
    match teachers {
        [only] => Some((&only.graph, &only.contract)),
        _ => None,
    }
}

impl Term {
    /// A term of a checked recipe.
    fn new(term: &recipe::Term, pair: &mut Pair<'_>) -> Result<Self> {
        let method = METHODS.iter().find(|method| method.name == term.method.name);
        let method = method.expect("a checked choice names a row");
        let options = &term.method.options;
        let temperature = options.0.contains_key("temperature").then(|| options.number("temperature"));
        Ok(Self {
            name: method.name.into(),
            loss: (method.build)(options, pair)?,
            temperature: temperature.unwrap_or(1.0),
            sums: options.0.contains_key("reduction") && options.text("reduction") == "sum",
            weight: term.weight,
            schedule: term.schedule.clone(),
            stage: term.stage,
        })
    }

    /// Its factor at a step; `None` where it does not take part: in another stage, or after its end.
    pub fn factor(&self, at: At) -> Option<f64> {
        if self.stage != Stage::Both && (self.stage == Stage::Init) != at.init {
            return None;
        }
        let Some(Choice { name, options }) = &self.schedule else { return Some(self.weight) };
        if schedule::is_over(name, options, at.step, at.steps_per_epoch) {
            return None;
        }
        let kind = SCHEDULES.iter().find(|kind| kind.name == *name);
        let kind = kind.expect("a checked choice names a row");
        Some(self.weight * (kind.factor)(options, at.step, at.steps, at.steps_per_epoch))
    }
}
