//! What frozen teachers say of a batch: each fed as its own contract scales, several of them as one.

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::graph::ValueId;
use kd_runtime::{Refusal, Result};

use crate::data::{RawBatch, scale};
use crate::exec::{Executor, Mode, Plan};
use crate::losses::pair::{LOGITS, value_name};
use crate::losses::rows::log_sum_exp;
use crate::teacher::{Network, log_probability, parameters_sha256};

/// All teachers of a learner.
pub(super) struct Teachers {
    members: Vec<Member>,
    soft: Vec<Soft>,
    /// Input of a member, made from raw values.
    x: Vec<f32>,
}

struct Member {
    name: String,
    executor: Executor<f32>,
    contract: Contract,
    weight: f64,
    /// [`parameters_sha256`] before training.
    sha256: String,
}

/// What a loss reads of the teachers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taught {
    /// A value of the only teacher as it is.
    Value(ValueId),
    /// Logits that are made of the teachers' answers: the place of a [`Soft`].
    Soft(usize),
}

/// A value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    tap: ValueId,
    is_answer: bool,
    is_probability: bool,
}

/// Logits made of answers: the logarithm of one teacher's probabilities, or what stands for several teachers at a
/// temperature T: `T · ln Σ w_i softmax(z_i / T)`, whose softmax at T is the weighted mean of the softened answers.
struct Soft {
    /// One a member.
    sources: Vec<Source>,
    temperature: f64,
    values: Vec<f32>,
    /// Logits of one row of one member, and the mean of a row.
    row: Vec<f32>,
    mean: Vec<f64>,
}

impl Teachers {
    /// Plans the teachers for the values `taps` that losses read of them.
    pub(super) fn new(networks: &[Network], taps: &[&str], batch: usize, threads: usize) -> Result<Self> {
        let member = |network: &Network| -> Result<Member> {
            let Network { name, graph, contract, weight, .. } = network;
            let taps = taps.iter().map(|tap| value_name(graph, &contract.output.name, tap).to_string()).collect();
            let executor = Executor::new(graph, &Plan { batch, taps, backward: false, threads })
                .map_err(|e| e.within(format!("teacher `{name}`")))?;
            let sha256 = parameters_sha256(graph);
            Ok(Member { name: name.clone(), executor, contract: contract.clone(), weight: *weight, sha256 })
        };
        let members = networks.iter().map(member).collect::<Result<_>>()?;
        Ok(Self { members, soft: Vec::new(), x: Vec::new() })
    }

    /// How a term reads the value `name` at its temperature. `networks` are those it was planned with.
    pub(super) fn taught(&mut self, networks: &[Network], name: &str, temperature: f64) -> Result<Taught> {
        let source = |(network, member): (&Network, &Member)| -> Result<Source> {
            let Network { graph, contract, .. } = network;
            let value = value_name(graph, &contract.output.name, name);
            let is_output = value == contract.output.name;
            let is_probability = is_output && contract.output.meaning == Meaning::Probabilities;
            Ok(Source { tap: member.executor.tap(value)?, is_answer: is_output || name == LOGITS, is_probability })
        };
        let sources = networks.iter().zip(&self.members).map(source).collect::<Result<Vec<_>>>()?;
        match sources[..] {
            [] => Err(Refusal::new("distill.terms", "a teacher", "none", "add [teacher]")),
            [only] if !only.is_probability => Ok(Taught::Value(only.tap)),
            _ if sources.iter().all(|source| source.is_answer) => Ok(Taught::Soft(self.soften(sources, temperature))),
            _ => {
                let expected = "`logits`, the only value that several teachers have a mean of";
                Err(Refusal::new("distill.terms: teacher", expected, format!("`{name}`"), "keep one teacher"))
            }
        }
    }

    /// The place of these logits; terms that read the same at the same temperature share them.
    fn soften(&mut self, sources: Vec<Source>, temperature: f64) -> usize {
        let known = self.soft.iter().position(|soft| soft.sources == sources && soft.temperature == temperature);
        known.unwrap_or_else(|| {
            let (values, row, mean) = (Vec::new(), Vec::new(), Vec::new());
            self.soft.push(Soft { sources, temperature, values, row, mean });
            self.soft.len() - 1
        })
    }

    /// Lets every teacher answer.
    pub(super) fn answer(&mut self, batch: &RawBatch) -> Result<()> {
        for member in &mut self.members {
            scale(&member.contract, &batch.values, &mut self.x);
            let answered = member.executor.forward(&self.x, batch.labels.len(), Mode::Eval);
            answered.map_err(|e| e.within(format!("teacher `{}`", member.name)))?;
        }
        self.soft.iter_mut().for_each(|soft| soft.mix(&self.members));
        Ok(())
    }

    /// What a loss reads, of the last batch.
    pub(super) fn value(&self, taught: Taught) -> &[f32] {
        match taught {
            Taught::Value(tap) => self.members.first().map_or(&[], |member| member.executor.value(tap)),
            Taught::Soft(place) => &self.soft[place].values,
        }
    }

    /// Refuses teachers whose parameters are not those they began with.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        for member in &self.members {
            let found = parameters_sha256(&member.executor.to_graph());
            if found != member.sha256 {
                let at = format!("teacher `{}`", member.name);
                let expected = format!("its parameters as before training (sha256 {})", member.sha256);
                return Err(Refusal::new(at, expected, found, "report this as a bug"));
            }
        }
        Ok(())
    }
}

impl Soft {
    fn mix(&mut self, members: &[Member]) {
        self.values.clear();
        if let ([source], [member]) = (&self.sources[..], members) {
            self.values.extend(member.executor.value(source.tap).iter().map(|&p| log_probability(p)));
            return;
        }
        let [(first, source), ..] = &*members.iter().zip(&self.sources).collect::<Vec<_>>() else { return };
        let classes = first.executor.tap_shape(source.tap).iter().product::<usize>().max(1);
        let rows = first.executor.value(source.tap).len() / classes;
        let inverse = 1.0 / self.temperature;
        for i in 0..rows {
            self.mean.clear();
            self.mean.resize(classes, 0.0);
            for (member, source) in members.iter().zip(&self.sources) {
                let answer = &member.executor.value(source.tap)[i * classes..][..classes];
                self.row.clear();
                self.row.extend(answer.iter().map(|&v| if source.is_probability { log_probability(v) } else { v }));
                let shift = f64::from(log_sum_exp(&self.row, inverse as f32));
                for (mean, &z) in self.mean.iter_mut().zip(&self.row) {
                    *mean += member.weight * (f64::from(z) * inverse - shift).exp();
                }
            }
            let logits = self.mean.iter().map(|mean| (self.temperature * mean.max(f64::MIN_POSITIVE).ln()) as f32);
            self.values.extend(logits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemes::tests::teacher;

    #[test]
    fn a_changed_parameter_is_noticed() {
        let mut teachers = Teachers::new(&[teacher("cnn", 1, 0.5), teacher("mlp", 2, 0.5)], &[], 1, 1).unwrap();
        teachers.check_unchanged().unwrap();
        let last = teachers.members[1].executor.parameters_mut().last_mut().unwrap();
        last.value[0] += 1e-3;
        let message = teachers.check_unchanged().unwrap_err().to_string();
        assert!(message.starts_with("teacher `arch mlp`: expected its parameters as before"), "{message}");
    }
}
