//! What a method is built from: both networks' shapes, and the student's graph, which takes the method's adapters.
//!
//! Adapters (connectors, regressors, projectors, exits) are ordinary layers behind the student's taps: they train with
//! the student, lie in its checkpoints, and are cut off what is kept of it.

mod graft;
mod signs;

use kd_runtime::contract::Contract;
use kd_runtime::graph::{Dim, Graph, ValueId};
use kd_runtime::{Refusal, Result};

pub use signs::is_never_negative;

use crate::exec::random::mix;
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

/// In the same place: scores of its attention, `[heads, L, L]` before the softmax.
pub const SCORES: &str = ".scores";

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
#[derive(Clone)]
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
    /// Of the first weights of adapters.
    seed: u64,
    /// Of what the term that is built draws: no two terms of a run draw the same.
    pub own_seed: u64,
    /// Values that answer as the output does, from the shallowest: each can be kept as a student of its own.
    pub exits: Vec<Tap>,
    /// Whether the teacher learns too: it is another replica, with first weights while methods are built.
    pub teacher_learns: bool,
    /// What a method did otherwise than asked for, or cannot do here: remarks of one line.
    pub notes: Vec<String>,
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
        let (student, notes) = (student.clone(), Vec::new());
        let own_seed = seed;
        let teacher_learns = false;
        Self {
            student,
            student_output,
            teacher,
            prefix,
            classes,
            samples,
            seed,
            own_seed,
            exits,
            teacher_learns,
            notes,
        }
    }

    /// What follows is for term number `term`, from 0.
    pub fn begin_term(&mut self, term: usize) {
        self.prefix = format!("adapter.{term}");
        self.own_seed = if term == 0 { self.seed } else { mix(self.seed ^ mix(term as u64)) };
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
            return Err(Refusal::new(
                "",
                "exactly one teacher, whose inner values this method reads",
                "several or none",
                action,
            ));
        };
        tap(graph, "teacher", value_name(graph, &contract.output.name, name))
    }

    /// A value of the student with a logit for each class; refused if it has another number of elements.
    pub fn student_answer(&self, name: &str) -> Result<Tap> {
        let tap = self.student(name)?;
        self.check_answer(&tap, "student")?;
        Ok(tap)
    }

    /// The name of a value of the teachers with a logit for each class. Of several teachers only [`LOGITS`] have a mean.
    pub fn teacher_answer(&self, name: &str) -> Result<String> {
        if self.teacher.is_some() {
            self.check_answer(&self.teacher(name)?, "teacher")?;
        } else if name != LOGITS {
            let expected = "`logits`, the only value that several teachers have a mean of";
            return Err(Refusal::new("option `teacher`", expected, format!("`{name}`"), "keep one teacher"));
        }
        Ok(name.to_string())
    }

    fn check_answer(&self, tap: &Tap, whose: &str) -> Result<()> {
        if tap.elements() == self.classes {
            return Ok(());
        }
        let (at, expected) =
            (format!("tap `{}` of the {whose}", tap.name), format!("{} logits, one a class", self.classes));
        Err(Refusal::new(at, expected, format!("{} values a sample", tap.elements()), "name its logits"))
    }

    /// The teacher's graph, for what a method copies of it: refused as [`Pair::teacher`], and of a teacher that learns.
    pub fn teacher_graph(&self) -> Result<&'a Graph> {
        if self.teacher_learns {
            let expected = "a teacher that is trained: this method copies some of its parameters once";
            let action = "choose another method, or set distill.scheme = \"offline\"";
            return Err(Refusal::new("", expected, "another replica with its first weights", action));
        }
        self.teacher_values()
    }

    /// The teacher's graph, for what values it has and of what shape.
    fn teacher_values(&self) -> Result<&'a Graph> {
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
        if ours.len() != theirs.len() && !is_stages(student) && !is_stages(teacher) {
            let expected = format!("as many taps of the teacher as of the student ({})", ours.len());
            return Err(Refusal::new("", expected, theirs.len(), "name them in pairs"));
        }
        let both = ours.len().min(theirs.len());
        ours.drain(..ours.len() - both);
        theirs.drain(..theirs.len() - both);
        Ok(ours.into_iter().zip(theirs).collect())
    }

    /// As [`Pair::taps`], of a method that reads one value of each.
    pub fn one(&self, student: &str, teacher: &str) -> Result<(Tap, Tap)> {
        let both = self.taps(student, teacher)?;
        <[_; 1]>::try_from(both).map(|[only]| only).map_err(|both| {
            let found = format!("{} of each", both.len());
            Refusal::new("", "one tap of each network", found, "name one, or `last`")
        })
    }

    /// As [`Pair::taps`], of those that `check` lets pass. Where both sides say [`STAGES`] or both [`LAST`], stages that pass
    /// beside none of the other network's are left out before the others are paired, and a note says so. What is named is
    /// there or refused.
    pub fn taps_that(
        &mut self,
        student: &str,
        teacher: &str,
        check: impl Fn(&Tap, &Tap) -> Result<()>,
    ) -> Result<Vec<(Tap, Tap)>> {
        let words = match (word(student), word(teacher)) {
            (Some((ours, pre)), Some((theirs, pre_t))) if ours == theirs && ours != MIDDLE => Some((ours, pre, pre_t)),
            _ => None,
        };
        let Some((word, pre, pre_t)) = words else {
            let taps = self.taps(student, teacher)?;
            taps.iter().try_for_each(|(s, t)| check(s, t))?;
            return Ok(taps);
        };
        let passes = |s: &Tap, t: &Tap| check(s, t).is_ok();
        let ours = self.student_taps(&format!("{STAGES}{pre}"))?;
        let theirs = listed(self.teacher_values()?, &format!("{STAGES}{pre_t}"), |name| self.teacher(name))?;
        let mut all = ours.iter().rev().flat_map(|s| theirs.iter().rev().map(move |t| (s, t)));
        let Some(refusal) = all.find_map(|(s, t)| check(s, t).err()) else {
            return self.taps(student, teacher);
        };
        let of_s = |s: &&Tap| theirs.iter().any(|t| passes(s, t));
        let of_t = |t: &&Tap| ours.iter().any(|s| passes(s, t));
        let pairs = ours.iter().rev().filter(of_s).zip(theirs.iter().rev().filter(of_t));
        let pairs = pairs.filter(|(s, t)| passes(s, t)).map(|(s, t)| (s.clone(), t.clone()));
        let mut kept: Vec<(Tap, Tap)> = if word == LAST { pairs.take(1).collect() } else { pairs.collect() };
        kept.reverse();
        let Some((s, t)) = kept.last() else {
            let action = "choose another method: no stage of these networks has it".into();
            return Err(Refusal { action, ..refusal });
        };
        let wanted = refusal.expected;
        let left_s = ours.iter().filter(|s| !of_s(s)).map(|s| format!("`{}`", s.name));
        let left_t = theirs.iter().filter(|t| !of_t(t)).map(|t| format!("the teacher's `{}`", t.name));
        let left: Vec<String> = left_s.chain(left_t).collect();
        let is_deepest = ours.last() == Some(s) && theirs.last() == Some(t);
        if word == LAST && !is_deepest {
            self.notes.push(format!("takes `{}` and the teacher's `{}`, for want of {wanted} later", s.name, t.name));
        } else if word == STAGES && !left.is_empty() {
            self.notes.push(format!("leaves out {}, for want of {wanted}", left.join(", ")));
        }
        Ok(kept)
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

/// Whether a text means all stages of a network, and names none of them.
pub fn is_stages(text: &str) -> bool {
    word(text).is_some_and(|(word, _)| word == STAGES)
}

/// Of [`STAGES`], [`LAST`] or [`MIDDLE`], which one, and what stands behind it.
fn word(text: &str) -> Option<(&str, &str)> {
    let (word, suffix) = text.split_at(text.find('.').unwrap_or(text.len()));
    ([STAGES, LAST, MIDDLE].contains(&word) && ["", PRE, SCORES].contains(&suffix)).then_some((word, suffix))
}

/// The taps that a word names: all stages, or a list.
fn listed(graph: &Graph, words: &str, tap: impl Fn(&str) -> Result<Tap>) -> Result<Vec<Tap>> {
    let Some((word, suffix)) = word(words) else {
        return words.split(',').map(|name| tap(name.trim())).collect();
    };
    let name = |i: usize| format!("stage{i}{suffix}");
    let mut stages: Vec<Tap> =
        (1..).map(name).take_while(|name| graph.find(name).is_some()).map(|name| tap(&name)).collect::<Result<_>>()?;
    if stages.is_empty() && suffix == SCORES {
        let found = format!("none in `{}`", graph.name);
        let action = "name them (`ts_transformer` has them), or choose another method";
        return Err(Refusal::new("", "scores of attention (`stage1.scores`, …) on both sides", found, action));
    }
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
    let shape = sample_shape(graph, id).map_err(|e| e.within(format!("tap `{name}` of the {whose}")))?;
    Ok(Tap { name: name.to_string(), shape })
}

/// A value's shape without the batch: at least one axis, and at least one element.
fn sample_shape(graph: &Graph, id: ValueId) -> Result<Vec<usize>> {
    let shape = &graph.value(id).shape;
    let rest: Option<Vec<usize>> = match shape.0.split_first() {
        Some((Dim::Batch, rest)) => {
            rest.iter().map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect()
        }
        _ => None,
    };
    rest.filter(|rest| !rest.is_empty() && !rest.contains(&0)).ok_or_else(|| {
        Refusal::new("", "a value [N, …] of at least one more axis, a row a sample", shape, "name another tap")
    })
}
