//! What a method is built from: both networks' shapes, and the student's graph, which takes the method's adapters.
//!
//! Adapters (connectors, regressors, projectors, exits) are ordinary layers behind the student's taps: they train with
//! the student, lie in its checkpoints, and are cut off what is kept of it.

use std::collections::BTreeMap;

use kd_runtime::contract::Contract;
use kd_runtime::graph::{Dim, Graph, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use crate::recipe::suggest;
use crate::zoo::initialize::initialize_from;
use crate::zoo::layers::{Net, Tail};

/// The name by which a method means a network's answer, whatever its output is called.
pub const LOGITS: &str = "logits";

/// The word by which a method means every stage of a network: `stage1`, `stage2`, …
pub const STAGES: &str = "stages";

/// The word for the last stage alone.
pub const LAST: &str = "last";

/// The word for the middle one of the stages (the second of three; of two the later).
pub const MIDDLE: &str = "middle";

/// Behind [`STAGES`], [`LAST`], [`MIDDLE`] or a stage's name: before its activation.
pub const PRE: &str = ".pre";

/// A value of a network, for one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name in its graph.
    pub name: String,
    /// Its shape without the batch: `[C, H, W]`, `[C, T]` or `[F]`.
    pub shape: Vec<usize>,
}

impl Tap {
    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A student beside its teacher while methods are built.
pub struct Pair<'a> {
    student: Graph,
    student_output: &'a str,
    teacher: Option<(&'a Graph, &'a Contract)>,
    /// Of the term that is built: what its adapters' names begin with.
    pub prefix: String,
    /// Classes of the answers.
    pub classes: usize,
    /// Training samples: rows of a memory that holds one for each.
    pub samples: usize,
    /// Of first weights and of what a method draws.
    pub seed: u64,
    /// Values that answer as the output does, from the shallowest: each can be kept as a student of its own.
    pub exits: Vec<Tap>,
    /// Whether the teacher learns too: it is another replica, with first weights while methods are built.
    pub teacher_learns: bool,
}

impl<'a> Pair<'a> {
    /// A student with its contract, and the only teacher if there is just one.
    pub fn new(
        student: &Graph,
        contract: &'a Contract,
        teacher: Option<(&'a Graph, &'a Contract)>,
        samples: usize,
        seed: u64,
    ) -> Self {
        let (prefix, exits, classes) = (String::new(), Vec::new(), contract.output.classes.len());
        let student_output = &contract.output.name;
        let student = student.clone();
        Self { student, student_output, teacher, prefix, classes, samples, seed, exits, teacher_learns: false }
    }

    /// A value of the student; refused if there is none of this name.
    pub fn student(&self, name: &str) -> Result<Tap> {
        tap(&self.student, "student", value_name(&self.student, self.student_output, name))
    }

    /// A value of the teacher; refused if there is none of this name, or not just one teacher.
    pub fn teacher(&self, name: &str) -> Result<Tap> {
        let Some((graph, contract)) = self.teacher else {
            let action = match self.teacher_learns {
                true => "set distill.replicas = 2, or keep methods of answers alone",
                false => "keep one teacher, or methods of answers alone",
            };
            return Err(Refusal::new("distill.terms", "one teacher, whose values are read", "none or several", action));
        };
        tap(graph, "teacher", value_name(graph, &contract.output.name, name))
    }

    /// The teacher's graph, for what a method copies of it: refused as [`Pair::teacher`], and of a teacher that learns.
    pub fn teacher_graph(&self) -> Result<&'a Graph> {
        if self.teacher_learns {
            let expected = "a teacher that is trained: this method copies some of its parameters once";
            let action = "choose another method, or set distill.scheme = \"offline\"";
            return Err(Refusal::new("", expected, "another replica with its first weights", action));
        }
        self.teacher(LOGITS).map(|_| self.teacher.map(|(graph, _)| graph).expect("there is a teacher"))
    }

    /// Values of the student: names with commas between, or [`STAGES`] for all its stages, from the shallowest. A network
    /// without stages has its `features` instead.
    pub fn student_taps(&self, names: &str) -> Result<Vec<Tap>> {
        listed(&self.student, names, |name| self.student(name))
    }

    /// Values of both, one beside the other: each side names taps with commas between, or [`STAGES`] (`stages.pre`) for
    /// all its stages, which are paired from the deepest up ([`LAST`], [`MIDDLE`]: one of them). A network without stages
    /// has its `features` instead.
    pub fn taps(&self, student: &str, teacher: &str) -> Result<Vec<(Tap, Tap)>> {
        let mut ours = self.student_taps(student)?;
        let mut theirs = match self.teacher {
            Some((graph, _)) => listed(graph, teacher, |name| self.teacher(name))?,
            None => vec![self.teacher(teacher)?],
        };
        let is_stages = |word: &str| word.trim_end_matches(PRE) == STAGES;
        if ours.len() != theirs.len() && !is_stages(student) && !is_stages(teacher) {
            let expected = format!("as many taps of the teacher as of the student ({})", ours.len());
            return Err(Refusal::new("distill.terms", expected, theirs.len(), "name them in pairs"));
        }
        let both = ours.len().min(theirs.len());
        ours.drain(..ours.len() - both);
        theirs.drain(..theirs.len() - both);
        Ok(ours.into_iter().zip(theirs).collect())
    }

    /// Adds layers behind a value of the student, with first weights; gives what they end in. `layers` is given the
    /// names' beginning.
    pub fn adapt(&mut self, from: &Tap, layers: impl FnOnce(&mut Net, &str) -> Result<()>) -> Result<Tap> {
        let id = self.student.find(&from.name).expect("a tap is a value of its graph");
        let first = self.student.nodes.len();
        let mut net = Net::resume(std::mem::take(&mut self.student), Tail { id, shape: from.shape.clone() });
        let built = layers(&mut net, &self.prefix);
        let (mut graph, tail) = net.into_parts();
        initialize_from(&mut graph, self.seed, first);
        self.student = graph;
        built?;
        self.student.validate()?;
        let name = self.student.value(tail.id).name.clone();
        Ok(Tap { name, shape: tail.shape })
    }

    /// Copies what a teacher's answer is made of behind one of its taps, and applies it to a value of the student. Gives the
    /// copy's answer (before a last softmax) and the names of its parameters. Refuses a teacher whose answer needs more than
    /// that tap.
    pub fn graft(&mut self, at: &Tap, teacher_tap: &Tap) -> Result<(Tap, Vec<String>)> {
        let answer = self.teacher(LOGITS)?.name;
        let graph = self.teacher_graph()?;
        let refused = |found: String| {
            let at = format!("tap `{}` of the teacher", teacher_tap.name);
            Refusal::new(at, "a value that the teacher's answer is made of alone", found, "name its last stage")
        };
        let (Some(from), Some(mut end)) = (graph.find(&teacher_tap.name), graph.find(&answer)) else {
            return Err(refused("no such value".into()));
        };
        let producers = graph.producers();
        let node_of = |id: ValueId| producers[id.index()].map(|i| &graph.nodes[i]);
        if let Some(node) = node_of(end)
            && let (Op::Softmax(_), Some(scores)) = (&node.op, node.input(0))
        {
            end = scores;
        }
        let mut needed = vec![false; graph.values.len()];
        needed[end.index()] = true;
        let mut copied = Vec::new();
        for node in graph.nodes.iter().rev() {
            if node.outputs.contains(&from) || !node.outputs.iter().any(|id| needed[id.index()]) {
                continue;
            }
            node.inputs.iter().flatten().for_each(|id| needed[id.index()] = true);
            copied.push(node);
        }
        if let Some(input) = graph.inputs.iter().find(|id| needed[id.index()]) {
            return Err(refused(format!("one that needs `{}` too", graph.value(*input).name)));
        }
        if !needed[from.index()] {
            return Err(refused("one that it does not need".into()));
        }
        let start = self.student.find(&at.name).expect("a tap is a value of its graph");
        let mut ids: BTreeMap<ValueId, ValueId> = BTreeMap::from([(from, start)]);
        let (student, prefix) = (&mut self.student, &self.prefix);
        let mut parameters = Vec::new();
        for (&id, tensor) in graph.initializers.iter().filter(|(id, _)| needed[id.index()]) {
            let name = format!("{prefix}.teacher.{}", graph.value(id).name);
            ids.insert(id, student.add_initializer(&name, tensor.clone()));
            parameters.push(name);
        }
        for node in copied.into_iter().rev() {
            match &node.op {
                // The teacher is in eval mode: nothing is dropped.
                Op::Dropout(_) => {
                    let source = node.input(0).and_then(|id| ids.get(&id).copied());
                    ids.extend(node.outputs.first().copied().zip(source));
                    continue;
                }
                Op::BatchNormalization(_) => {
                    return Err(refused(format!("one before the batch norm `{}`, which would learn", node.name)));
                }
                _ => {}
            }
            let inputs: Vec<Option<ValueId>> =
                node.inputs.iter().map(|id| id.and_then(|id| ids.get(&id).copied())).collect();
            let names: Vec<String> =
                node.outputs.iter().map(|&id| format!("{prefix}.teacher.{}", graph.value(id).name)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let outputs = student.add_node(names[0], node.op.clone(), &inputs, &names);
            ids.extend(node.outputs.iter().copied().zip(outputs));
        }
        let shape = &at.shape;
        student
            .validate()
            .map_err(|e| e.within(format!("the teacher's last layers on a student's value {shape:?}")))?;
        let name = student.value(ids[&end]).name.clone();
        let answer = self.student(&name)?;
        Ok((answer, parameters))
    }

    /// Makes a value the student's answer, in place of its own, which keeps its name with `.own` behind.
    pub fn answer_with(&mut self, tap: &Tap) -> Result<()> {
        let old = self.student.find(self.student_output).expect("a network has its output");
        let new = self.student.find(&tap.name).expect("a tap is a value of its graph");
        let own = self.student.fresh_name(&format!("{}.own", self.student_output));
        self.student.values[old.index()].name = own;
        self.student.values[new.index()].name = self.student_output.to_string();
        self.student.outputs = vec![new];
        self.student.validate()
    }

    /// The student with all adapters, and its exits.
    pub fn into_parts(self) -> (Graph, Vec<Tap>) {
        (self.student, self.exits)
    }
}

/// A network that answers with the value `name`, under the name `output`, without what that does not need.
pub fn cut(graph: &Graph, name: &str, output: &str) -> Result<Graph> {
    let mut cut = graph.clone();
    if let Some(id) = cut.find(name) {
        if name != output {
            let other = cut.find(output);
            if let Some(other) = other {
                cut.values[other.index()].name = cut.fresh_name(&format!("{output}.own"));
            }
            cut.values[id.index()].name = output.to_string();
        }
        cut.outputs = vec![id];
    }
    cut.prune();
    cut.validate()?;
    Ok(cut)
}

/// The value of a network that a method names: `logits` is the output where no value is called so.
pub fn value_name<'n>(graph: &Graph, output: &'n str, name: &'n str) -> &'n str {
    if name == LOGITS && graph.find(name).is_none() { output } else { name }
}

/// The taps that a word names: all stages, or a list.
fn listed(graph: &Graph, words: &str, tap: impl Fn(&str) -> Result<Tap>) -> Result<Vec<Tap>> {
    let suffix = if words.ends_with(PRE) { PRE } else { "" };
    let word = words.trim_end_matches(PRE);
    if ![STAGES, LAST, MIDDLE].contains(&word) {
        return words.split(',').map(|name| tap(name.trim())).collect();
    }
    let name = |i: usize| format!("stage{i}{suffix}");
    let mut stages: Vec<Tap> =
        (1..).map(name).take_while(|name| graph.find(name).is_some()).map(|name| tap(&name)).collect::<Result<_>>()?;
    if stages.is_empty() {
        return Ok(vec![tap("features")?]);
    }
    let place = match word {
        LAST => stages.len() - 1,
        MIDDLE => stages.len() / 2,
        _ => return Ok(stages),
    };
    Ok(vec![stages.swap_remove(place)])
}

fn tap(graph: &Graph, whose: &str, name: &str) -> Result<Tap> {
    let Some(id) = graph.find(name) else {
        let computed = graph.nodes.iter().flat_map(|node| &node.outputs).map(|&id| graph.value(id).name.as_str());
        let action = suggest(name, &computed.collect::<Vec<_>>());
        return Err(Refusal::new("", format!("a tap of the {whose}"), format!("`{name}`"), action));
    };
    Ok(Tap { name: name.to_string(), shape: sample_shape(graph, id)? })
}

/// A value's shape without the batch.
fn sample_shape(graph: &Graph, id: ValueId) -> Result<Vec<usize>> {
    let value = graph.value(id);
    let rest: Option<Vec<usize>> = match value.shape.0.split_first() {
        Some((Dim::Batch, rest)) => {
            rest.iter().map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect()
        }
        _ => None,
    };
    rest.ok_or_else(|| {
        let at = format!("tap `{}`", value.name);
        Refusal::new(at, "a value [N, …], a row a sample", &value.shape, "name another tap")
    })
}
