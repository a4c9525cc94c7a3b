//! Teachers that exist: the student of another run, or any ONNX file with a contract.

use std::io::Write;
use std::path::Path;

use kd_runtime::cli::Precision;
use kd_runtime::cli::target::Target;
use kd_runtime::contract::{self, Contract, Meaning};
use kd_runtime::graph::{Dim, Graph, Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::ops::gather::Gather;
use kd_runtime::{Refusal, Result};

use super::{CacheWish, Network, batch};
use crate::data::{Prepared, RawBatch, scale};
use crate::exec::{Executor, Mode, Plan};
use crate::recipe::{Recipe, Teacher, TeacherSource};

/// Training samples from which it is told whether a network gives probabilities.
const SEEN: usize = 64;
/// How far from 1 a row of probabilities may sum: f32 rounding over thousands of classes.
const SUM_TOLERANCE: f32 = 1e-3;

/// Opens a teacher that exists, and checks that it fits the data. Where there is no contract, prints a template on
/// standard output. Not for one that the recipe trains first ([`TeacherSource::Arch`]): that one is refused.
pub fn open(teacher: &Teacher, recipe: &Recipe, data: &Prepared) -> Result<Network> {
    let (name, path, contract) = match &teacher.source {
        TeacherSource::Run(folder) => (format!("run {}", folder.display()), folder, None),
        TeacherSource::Onnx { path, contract } => (format!("onnx {}", path.display()), path, contract.as_deref()),
        TeacherSource::Arch { arch, .. } => {
            let found = format!("architecture `{}`", arch.name);
            return Err(Refusal::new("teacher", "a run or an ONNX file", found, "train it first"));
        }
    };
    let shares: f64 = recipe.teachers.iter().map(|teacher| teacher.weight).sum();
    let weight = teacher.weight / shares;
    let cache = teacher.cache;
    read(path, contract, data, &mut std::io::stdout()).map(|network| Network { name, weight, cache, ..network })
}

/// Reads a model and checks it against its contract and the data; a template of a missing contract goes to `out`.
pub(super) fn read(path: &Path, contract: Option<&Path>, data: &Prepared, out: &mut dyn Write) -> Result<Network> {
    let target = Target::open(path, path.is_dir().then_some(Precision::Float), contract)?;
    let mut graph = target.graph?;
    let at = target.path.display();
    let Some(mut contract) = target.contract else {
        return Err(contract::missing(&target.path, &graph, "a teacher", out));
    };
    contract.check_model(&graph).map_err(|e| e.within(&at))?;
    let mut notes = target.notes;
    if reorder(&mut graph, &mut contract, &data.description.classes) {
        graph.validate().map_err(|e| e.within(&at))?;
        contract.check_model(&graph).map_err(|e| e.within(&at))?;
        notes.push("has its classes in another order than the data: its answers are brought into the data's".into());
    }
    contract.check_data(&data.description).map_err(|e| e.within(&at))?;
    if contract.output.meaning == Meaning::Embedding {
        let found = "an embedding";
        return Err(Refusal::new(at, "a teacher that gives logits or probabilities", found, "choose another teacher"));
    }
    let opened = batch::open(&graph).map_err(|e| e.within(&at))?.into_owned();
    if opened != graph {
        notes.push("takes one sample at a time: its batch was opened, its samples stay apart".into());
    }
    let (name, sha256) = (at.to_string(), target.sha256);
    let mut network = Network { name, graph: opened, contract, sha256, weight: 1.0, cache: CacheWish::OFF, notes };
    if network.contract.output.meaning == Meaning::Logits && gives_probabilities(&network, data)? {
        network.contract.output.meaning = Meaning::Probabilities;
        network.notes.push("gives probabilities, not logits (its rows sum to 1): their logarithm is taken".into());
    }
    Ok(network)
}

/// Brings the answers of a network that has these classes in another order into this one; says whether it had. All that is
/// made of its scores, their own name among it, is in this order then.
fn reorder(graph: &mut Graph, contract: &mut Contract, classes: &[String]) -> bool {
    let theirs = &contract.output.classes;
    let place = |class: &String| theirs.iter().position(|other| other == class).map(|place| place as i64);
    let Some(places) = classes.iter().map(place).collect::<Option<Vec<i64>>>() else { return false };
    if theirs.len() != places.len() || theirs == classes {
        return false;
    }
    let scores = graph.find(&contract.output.name).map(|output| scores(graph, output));
    let Some((scores, axis)) = scores.and_then(|id| Some((id, class_axis(graph, id, classes.len())?))) else {
        return false;
    };
    let producer = graph.producers()[scores.index()];
    let name = graph.value(scores).name.clone();
    graph.values[scores.index()].name = graph.fresh_name(&format!("{name}.own"));
    let known = graph.fresh_name("order of the classes");
    let order = graph.add_initializer(&known, Tensor::from_vec(&[places.len()], places));
    let new = graph.add_node(&name, Gather { axis }, &[Some(scores), Some(order)], &[&name])[0];
    // It stands behind what makes the scores, before what is made of them.
    let node = graph.nodes.pop().expect("the node that was added");
    let from = producer.map_or(0, |producer| producer + 1);
    for node in &mut graph.nodes[from..] {
        node.inputs.iter_mut().filter(|input| **input == Some(scores)).for_each(|input| *input = Some(new));
    }
    graph.nodes.insert(from, node);
    graph.outputs.iter_mut().filter(|output| **output == scores).for_each(|output| *output = new);
    contract.output.classes = classes.to_vec();
    true
}

/// What an output is a softmax of, or the same numbers in another shape.
fn scores(graph: &Graph, output: ValueId) -> ValueId {
    let producers = graph.producers();
    let mut scores = output;
    while let Some(node) = producers[scores.index()].map(|i| &graph.nodes[i]) {
        let is_same = match node.op {
            Op::Softmax(_) | Op::LogSoftmax(_) | Op::Identity(_) => true,
            Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => {
                node.input(0).is_some_and(|x| class_axis(graph, x, elements(graph, scores)).is_some())
            }
            _ => false,
        };
        match node.input(0).filter(|_| is_same) {
            Some(before) => scores = before,
            None => break,
        }
    }
    scores
}

/// Elements of a value for each sample; 0 where that is not known.
fn elements(graph: &Graph, id: ValueId) -> usize {
    let known = |dim: &Dim| if let Dim::Known(n) = dim { *n } else { 0 };
    graph.value(id).shape.0.iter().skip(1).map(known).product()
}

/// The axis of a value that so many classes lie along, all others behind the first being of size 1.
fn class_axis(graph: &Graph, id: ValueId, classes: usize) -> Option<i64> {
    let along = graph.value(id).shape.0.iter().skip(1).position(|dim| *dim == Dim::Known(classes))?;
    (classes > 1 && elements(graph, id) == classes).then_some(along as i64 + 1)
}

/// Whether every row of the output for the first training samples is one of probabilities.
fn gives_probabilities(network: &Network, data: &Prepared) -> Result<bool> {
    let Network { graph, contract, .. } = network;
    let places = 0..data.train.len().min(SEEN);
    // One at a time: what it takes is not forecast yet.
    let plan = Plan { batch: 1, taps: Vec::new(), backward: false, threads: 1, gpu: None };
    let mut executor = Executor::<f32>::new(graph, &plan)?;
    let output = executor.tap(&contract.output.name)?;
    let (mut raw, mut x) = (RawBatch::default(), Vec::new());
    for place in places {
        data.train.gather(&[place], &mut raw);
        scale(contract, &raw.values, &mut x);
        executor.forward(&x, 1, Mode::Eval)?;
        let row = executor.value(output);
        let sum: f32 = row.iter().sum();
        // What is not a number is no probability.
        let is_one = row.iter().all(|p| *p >= 0.0) && (sum - 1.0).abs() <= SUM_TOLERANCE;
        if !is_one {
            return Ok(false);
        }
    }
    Ok(true)
}
