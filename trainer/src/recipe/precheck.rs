//! What can be known before training: sizes, memory, whether taps exist, and whether the student can meet its budget.

use std::collections::BTreeMap;
use std::path::Path;

use kd_exporter::calibrate::{Calibration, Range};
use kd_exporter::{fold, quantize};
use kd_runtime::budget::{Budget, Figure, Line, Verdict};
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::engine::Engine;
use kd_runtime::error::Exit;
use kd_runtime::graph::{ElementType, Graph};
use kd_runtime::ops::Op;
use kd_runtime::report::text::number;
use kd_runtime::{Refusal, Result, onnx};
use serde::Serialize;

use super::cross::needs_teacher;
use super::values::suggest;
use super::{Choice, ClassWeights, Codistill, Recipe, Run, Scheme, Shards, TeacherSource, Train};
use crate::data::{Prepared, augment, feed};
use crate::exec::{Executor, Parameter, Plan};
use crate::losses::ce::Targets;
use crate::losses::pair::{LOGITS, cut, value_name};
use crate::optim::groups::{self, Group};
use crate::optim::stepper::Stepper;
use crate::schemes::terms::{Extended, Passes, Term, extend};
use crate::teacher;
use crate::zoo::{self, Site};

/// What the program itself holds: code, threads, the allocator's tables and what it keeps.
const PROCESS_BYTES: u64 = 24 << 20;

/// The largest batch that is planned to be known: kernels take memory of their own when they are.
const MOST_PLANNED: usize = 64;

/// What is known of a recipe before training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The student, then its unlike peers (without what is beside them while they are trained), its assistants and the
    /// teachers that the recipe trains.
    pub networks: Vec<Network>,
    /// The largest resident size that a run will have: while the data is read, or a network is trained beside it; none
    /// where the data is not open.
    pub peak_bytes: Option<u64>,
    /// What terms do otherwise than asked for, or cannot do here: remarks of one line.
    pub notes: Vec<String>,
    /// The budget's limits on size and memory, judged by the student's forecast; empty without a budget.
    pub budget: Vec<Line>,
}

/// What one network will cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// `student`, `replica-2`, `assistant-1`, `teacher`, `teacher-2`.
    pub name: String,
    /// Its architecture.
    pub arch: &'static str,
    /// Weights and biases.
    pub parameters: u64,
    /// Multiply-accumulates of one sample.
    pub macs: u64,
    /// Of its model.onnx.
    pub float_bytes: u64,
    /// Of its int8 model: the exporter's, made of first weights and arbitrary ranges, which do not change its size.
    pub int8_bytes: u64,
    /// Weights and activations that the engine holds to run the int8 model: the least that it needs.
    pub int8_memory_bytes: u64,
    /// What its training holds at most, beside the data: parameters, gradients, activations, the optimizer's state, its
    /// teachers, batches that are loaded, and the judging and writing down of an epoch.
    pub training_bytes: u64,
}

/// Builds the networks of a recipe for this data and forecasts their cost. `data` is what is trained on, as far as it is
/// open; `given` are the teachers that exist: without them (`--no-data`) terms that read of a teacher are not built. Refuses what cannot be built, a tap that does
/// not exist, what this machine has too few cores for or takes more than `free_bytes` ([`Exit::Lacking`]), and a student that cannot
/// meet its budget's size or memory ([`Exit::VerdictFailed`]).
pub fn precheck(
    recipe: &Recipe,
    site: &Site,
    data: Option<&Prepared>,
    given: &[&teacher::Network],
    free_bytes: Option<usize>,
) -> Result<Forecast> {
    check_threads(recipe.run.threads)?;
    // Without the data its range is taken to be known.
    let raw_max = data.map_or(Some(255.0), |data| data.description.raw_max);
    augment::build(&recipe.data.augment, &site.input, raw_max)?;
    let mut built = Vec::new();
    for (i, teacher) in recipe.teachers.iter().enumerate() {
        if let TeacherSource::Arch { arch, train } = &teacher.source {
            let name = if recipe.teachers.len() == 1 { "teacher".into() } else { format!("teacher-{}", i + 1) };
            let graph = zoo::build(arch, site, recipe.run.seed).map_err(|e| e.within(&name))?;
            built.push((name, graph, arch, train));
        }
    }
    let student = zoo::build(&recipe.student, site, recipe.run.seed).map_err(|e| e.within("student"))?;
    let mut assistants = Vec::new();
    for (i, arch) in recipe.distill.assistants.iter().enumerate() {
        let name = assistant_name(i);
        assistants.push((zoo::build(arch, site, recipe.run.seed).map_err(|e| e.within(&name))?, name, arch));
    }
    let contract = contract(site);
    let known = given.len() + built.len() == recipe.teachers.len();
    let distill = (known || !recipe.distill.terms.iter().any(needs_teacher)).then_some(&recipe.distill);
    let replicas = match recipe.distill.scheme {
        Scheme::Codistill(Codistill { replicas, .. }) => replicas,
        Scheme::Offline => 1,
    };
    let mut peers = Vec::new();
    for (i, arch) in recipe.distill.peers.iter().enumerate() {
        let name = replica_name(i + 1);
        peers.push((zoo::build(arch, site, recipe.run.seed).map_err(|e| e.within(&name))?, name, arch));
    }
    // A replica listens to networks like itself, or to its peers; the values of one of two can be read.
    let others = |me: usize| {
        let of = |i: usize| i.checked_sub(1).and_then(|i| peers.get(i)).map_or(&student, |(graph, ..)| graph);
        (0..replicas).filter(move |i| *i != me).map(of).collect::<Vec<_>>()
    };
    let only = |me: usize| (replicas == 2).then(|| (others(me)[0], &contract));
    let peer = only(0);
    let mut teacher = match (given, &built[..]) {
        ([only], []) => Some((&only.graph, &only.contract)),
        ([], [(_, only, ..)]) => Some((only, &contract)),
        _ => peer,
    };
    // What terms keep of each training sample may be as large as the data: it is told from one sample and from two.
    let of =
        |graph: &Graph, teacher, n| extend(graph, &contract, distill, Targets::default(), teacher, n, recipe.run.seed);
    let samples = data.map_or(1, |data| data.train.len());
    let extended = |graph: &Graph, teacher| -> Result<Grown> {
        let one = of(graph, teacher, 1)?;
        let more_bytes = match own_bytes(&one) {
            0 => 0,
            bytes => (own_bytes(&of(graph, teacher, 2)?) - bytes).saturating_mul(samples.saturating_sub(1)),
        };
        Ok(Grown { one, more_bytes })
    };
    let (mut extended_peers, mut notes) = (Vec::new(), Vec::new());
    let mut note = |name: &str, said: &mut Vec<String>| {
        notes.extend(said.drain(..).map(|line| format!("{name}: {line}")));
    };
    for (i, (graph, name, _)) in peers.iter().enumerate() {
        let mut peer = extended(graph, only(i + 1)).map_err(|e| e.within(name))?;
        note(name, &mut peer.one.notes);
        extended_peers.push(peer);
    }
    let mut extended_assistants = Vec::new();
    for (i, (graph, name, _)) in assistants.iter().enumerate() {
        let is_taught = i > 0 || !recipe.teachers.is_empty();
        let mut assistant = is_taught.then(|| extended(graph, teacher)).transpose().map_err(|e| e.within(name))?;
        note(name, assistant.as_mut().map_or(&mut Vec::new(), |assistant| &mut assistant.one.notes));
        extended_assistants.push(assistant);
        teacher = Some((graph, &contract));
    }
    let mut grown = extended(&student, teacher)?;
    notes.append(&mut grown.one.notes);
    let whole = &grown.one;
    notes.extend(idle_targets(recipe));
    notes.extend(summed_answers(recipe));
    if distill.is_none() {
        notes.push("without data no teacher is opened: what terms add to the student is not counted".into());
    }
    if let Some(data) = data {
        notes.extend(small_batches(recipe, &whole.terms[first_term(recipe)..], data.train.len()));
    }
    let in_term = |i: usize| format!("distill.terms.{}", i - first_term(recipe));
    for (name, teacher, ..) in &built {
        whole.terms.iter().enumerate().try_for_each(|(i, term)| {
            check_taps(teacher, name, term.loss.teacher_taps()).map_err(|e| e.within(in_term(i)))
        })?;
    }
    let deployed = cut(&whole.graph, &contract.output.name, &contract.output.name)?;
    let first = given.iter().map(|network| (&network.graph, &*network.contract.output.name));
    let first: Vec<(&Graph, &str)> = first.chain(built.iter().map(|(_, graph, ..)| (graph, LOGITS))).collect();
    // Teachers teach the first assistant, each assistant the next one, and the last one the student.
    let after = |i: usize| match i.checked_sub(1) {
        None => first.clone(),
        Some(i) => vec![(&assistants[i].0, LOGITS)],
    };
    let taught_by = match assistants.len() {
        0 => first.iter().copied().chain(others(0).into_iter().map(|graph| (graph, LOGITS))).collect(),
        n => after(n),
    };
    let passes = Passes::of(&recipe.train, distill);
    // All replicas train at once, each beside those that it listens to.
    let copies = if peers.is_empty() { replicas } else { 1 };
    let student_trained = Trained::taught(&grown, passes, taught_by);
    let mut trained = vec![Trained { is_whole: known, copies, ..student_trained }];
    for (i, peer) in extended_peers.iter().enumerate() {
        let listens_to = others(i + 1).into_iter().map(|graph| (graph, LOGITS)).collect();
        trained.push(Trained { is_whole: false, ..Trained::taught(peer, passes, listens_to) });
    }
    let here = Here { run: &recipe.run, data, free_bytes };
    let mut networks = vec![forecast(&here, "student", &recipe.student, &recipe.train, &deployed, trained)?];
    for (graph, name, arch) in &peers {
        let trained = vec![Trained::alone(graph, &recipe.train)];
        networks.push(forecast(&here, name, arch, &recipe.train, graph, trained)?);
    }
    for (i, ((graph, name, arch), extended)) in assistants.iter().zip(&extended_assistants).enumerate() {
        let trained = extended.as_ref().map_or(Trained::alone(graph, &recipe.train), |extended| Trained {
            is_whole: known,
            ..Trained::taught(extended, passes, after(i))
        });
        networks.push(forecast(&here, name, arch, &recipe.train, graph, vec![trained])?);
    }
    for (name, graph, arch, train) in &built {
        networks.push(forecast(&here, name, arch, train, graph, vec![Trained::alone(graph, train)])?);
    }
    let budget = recipe.budget.as_deref().map_or(Ok(Vec::new()), |path| judge(path, &networks[0]))?;
    let training = networks.iter().map(|network| network.training_bytes).max().unwrap_or(0);
    let peak_bytes = data.map(|data| {
        let [held, reading] = data.bytes().map(|bytes| bytes as u64);
        // What replicas answer to the test samples is compared when all are trained.
        let answers = if replicas > 1 { replicas * data.test.len() * site.classes * size_of::<f32>() } else { 0 };
        PROCESS_BYTES + reading.max(held + training.max(answers as u64))
    });
    Ok(Forecast { networks, peak_bytes, notes, budget })
}

/// A remark if what `[train]` says of the task's targets does nothing for the student.
fn idle_targets(recipe: &Recipe) -> Option<String> {
    let Train { label_smoothing, class_weights, .. } = &recipe.train;
    let smooths = (*label_smoothing > 0.0).then_some("train.label_smoothing");
    let weighs = (*class_weights != ClassWeights::Equal).then_some("train.class_weights");
    let keys: Vec<&str> = smooths.into_iter().chain(weighs).collect();
    let idle = recipe.distill.task_weight == 0.0 && !keys.is_empty();
    let why =
        "nothing for the student, since distill.task_weight is 0; the baseline and teachers that are trained have it";
    idle.then(|| format!("{}: {why}", keys.join(", ")))
}

/// `kd` whose sum over a batch (of one process) stands beside the mean that the labels have, with the weight that this makes.
fn summed_answers(recipe: &Recipe) -> Vec<String> {
    let batch = recipe.train.batch as f64;
    let of_labels = recipe.distill.task_weight > 0.0;
    let sums = |term: &super::Term| {
        let is_sum = term.method.name == "kd" && term.method.options.text("reduction") == "sum";
        is_sum && term.stage != super::Stage::Init
    };
    let note = |(i, term): (usize, &super::Term)| {
        let weight = (term.weight * batch) as f32;
        let why =
            format!("a sum over the batch counts as `batchmean` with the weight {weight}, beside the labels' mean");
        (of_labels && sums(term)).then(|| format!("distill.terms.{i}: `kd`: {why}"))
    };
    recipe.distill.terms.iter().enumerate().filter_map(note).collect()
}

/// Bytes of the arrays that terms have of their own.
fn own_bytes(extended: &Extended) -> usize {
    extended.terms.iter().flat_map(|term| term.loss.own()).map(|own| size_of_val(&own.value[..])).sum()
}

/// What assistant number `i` (from 0) is called.
pub fn assistant_name(i: usize) -> String {
    format!("assistant-{}", i + 1)
}

/// What replica number `i` (from 0) is called.
pub fn replica_name(i: usize) -> String {
    format!("replica-{}", i + 1)
}

fn check_threads(threads: usize) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if threads > cores {
        let expected = format!("at most {cores}, the cores of this machine");
        return Err(Refusal::new("run.threads", expected, threads, "use fewer threads").with_exit(Exit::Lacking));
    }
    Ok(())
}

/// The place of the recipe's first term among all: behind the task's.
fn first_term(recipe: &Recipe) -> usize {
    usize::from(recipe.distill.task_weight > 0.0)
}

/// Of which terms batches are too small to say anything, of so many training samples.
fn small_batches(recipe: &Recipe, terms: &[Term], samples: usize) -> Vec<String> {
    let seen = match recipe.distill.scheme {
        Scheme::Codistill(Codistill { replicas, shards: Shards::Disjoint, .. }) => samples / replicas,
        _ => samples,
    };
    if seen == 0 {
        return Vec::new();
    }
    let batch = recipe.train.batch.min(seen);
    // A last batch of one sample is left out.
    let last = Some(seen % batch).filter(|&last| last > 1);
    let note = |(i, term): (usize, &Term)| {
        let least = term.loss.least_batch();
        let which = match last {
            _ if batch < least => format!("has batches of {batch}"),
            Some(last) if last < least => format!("has {last} in the last batch of an epoch"),
            _ => return None,
        };
        Some(format!("distill.terms.{i}: `{}` needs {least} samples in a batch, and {which}", term.name))
    };
    terms.iter().enumerate().filter_map(note).collect()
}

/// The contract that networks made for a site will have, as far as it matters here.
fn contract(site: &Site) -> Contract {
    let description = Description {
        shape: site.input.clone(),
        layout: String::new(),
        classes: (0..site.classes).map(|class| class.to_string()).collect(),
        raw_max: None,
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    Contract::for_data(&description, "x", LOGITS, Meaning::Logits)
}

/// Where networks are trained.
struct Here<'a> {
    run: &'a Run,
    data: Option<&'a Prepared>,
    /// Memory of the device; `None` where it is not known.
    free_bytes: Option<usize>,
}

/// What a network costs: as it is kept, and as it is trained, with all that is trained beside it.
fn forecast(
    here: &Here<'_>,
    name: &str,
    arch: &Choice,
    train: &Train,
    graph: &Graph,
    trained: Vec<Trained<'_>>,
) -> Result<Network> {
    let validation = here.data.map_or(0, |data| data.validation.len());
    let needs = trained.into_iter().map(|trained| trained.needs(train, here.run, validation));
    let needs: Vec<Needs<'_>> = needs.collect::<Result<_>>().map_err(|e| e.within(name))?;
    let batch = here.data.map_or(train.batch, |data| train.batch.min(data.train.len()));
    let bytes = check_memory(&|batch| needs.iter().map(|one| one.bytes(batch)).sum(), batch, here.free_bytes)
        .map_err(|e| e.within(name))?;
    let stats = graph.stats()?;
    let int8 = int8(graph)?;
    let engine = Engine::new(&int8, 1)?;
    Ok(Network {
        name: name.into(),
        arch: arch.name,
        parameters: stats.parameters,
        macs: stats.macs,
        float_bytes: onnx::write(graph).len() as u64,
        int8_bytes: onnx::write(&int8).len() as u64,
        int8_memory_bytes: (engine.arena_bytes() + engine.weights_bytes()) as u64,
        training_bytes: bytes as u64,
    })
}

/// Refuses taps that are no values of the network.
fn check_taps(graph: &Graph, name: &str, taps: &[String]) -> Result<()> {
    let Some(tap) = taps.iter().find(|tap| graph.find(tap).is_none()) else { return Ok(()) };
    let computed = graph.nodes.iter().flat_map(|node| &node.outputs).map(|&id| graph.value(id).name.as_str());
    let action = suggest(tap, &computed.collect::<Vec<_>>());
    Err(Refusal::new("", format!("a tap of the {name}"), format!("`{tap}`"), action))
}

/// The network as the exporter will write it in int8, with ranges that stand for those of the calibration.
fn int8(graph: &Graph) -> Result<Graph> {
    let graph = fold::fold(graph)?;
    let mut ranges: BTreeMap<_, _> = graph.inputs.iter().map(|&id| (id, Range { min: -1.0, max: 1.0 })).collect();
    for node in &graph.nodes {
        let min = if matches!(node.op, Op::Relu(_)) { 0.0 } else { -1.0 };
        ranges.extend(node.outputs.iter().map(|&id| (id, Range { min, max: 1.0 })));
    }
    ranges.retain(|&id, _| graph.value(id).element == ElementType::F32);
    Ok(quantize::quantize(&graph, &Calibration { ranges, samples: 1, method: "forecast" })?.graph)
}

/// A network with its terms for one training sample.
struct Grown {
    one: Extended,
    /// Bytes that its terms' own arrays have more of with all training samples.
    more_bytes: usize,
}

/// A network as it is trained.
struct Trained<'a> {
    /// With its adapters.
    graph: &'a Graph,
    /// Values that its losses read.
    taps: Vec<String>,
    /// Arrays of its losses for one sample, and what they have more of with all.
    own: Vec<Parameter<f32>>,
    more_bytes: usize,
    passes: Passes,
    /// Who answers beside it, and the values that are read of it.
    teachers: Vec<(&'a Graph, Vec<String>)>,
    /// Whether all of its terms are there.
    is_whole: bool,
    /// How many are trained side by side.
    copies: usize,
}

/// What is known of training at any batch.
struct Needs<'a> {
    trained: Trained<'a>,
    threads: usize,
    loaders: usize,
    /// Validation samples.
    validation: usize,
    /// Elements of a sample, and of what losses read of one.
    sample: usize,
    read: usize,
    /// Bytes that do not grow with the batch, beside the plan's: what losses and the optimizer hold, copies of parameters.
    held: usize,
    /// Bytes while an epoch is written down.
    written: usize,
}

impl<'a> Trained<'a> {
    /// A network with its terms, beside these teachers (and what their outputs are called).
    fn taught(grown: &'a Grown, passes: Passes, teachers: Vec<(&'a Graph, &str)>) -> Self {
        let Grown { one: student, more_bytes } = grown;
        let taught: Vec<&String> = student.terms.iter().flat_map(|term| term.loss.teacher_taps()).collect();
        let names = |graph, output| taught.iter().map(|tap| value_name(graph, output, tap).to_string()).collect();
        Self {
            graph: &student.graph,
            taps: student.terms.iter().flat_map(|term| term.loss.student_taps().to_vec()).collect(),
            own: student.terms.iter().flat_map(|term| term.loss.own()).collect(),
            more_bytes: *more_bytes,
            passes,
            teachers: teachers.into_iter().map(|(graph, output)| (graph, names(graph, output))).collect(),
            is_whole: true,
            copies: 1,
        }
    }

    /// A network that learns from the labels.
    fn alone(graph: &'a Graph, train: &Train) -> Self {
        let passes = Passes::of(train, None);
        let (taps, own, teachers) = (Vec::new(), Vec::new(), Vec::new());
        Self { graph, taps, own, more_bytes: 0, passes, teachers, is_whole: true, copies: 1 }
    }

    /// What its training needs, seen by a plan for one sample.
    fn needs(mut self, train: &Train, run: &Run, validation: usize) -> Result<Needs<'a>> {
        let plan = Plan { batch: 1, taps: self.taps.clone(), backward: true, threads: run.threads, gpu: None };
        let mut executor = Executor::<f32>::new(self.graph, &plan)?;
        let network = executor.network_parameters();
        let read = self.taps.iter().map(|tap| Ok(executor.tap_shape(executor.tap(tap)?).iter().product::<usize>()));
        let read = read.sum::<Result<usize>>()?;
        executor.adopt(std::mem::take(&mut self.own))?;
        if self.is_whole {
            check_groups(&train.groups, executor.parameters())?;
        }
        let parameters = executor.parameters();
        let gradients: usize = parameters.iter().map(|p| size_of_val(&p.gradient[..])).sum();
        let own = &parameters[network..];
        let own_gradients: usize = own.iter().map(|p| size_of_val(&p.gradient[..])).sum();
        let own = own.iter().map(|p| size_of_val(&p.value[..])).sum::<usize>().saturating_add(self.more_bytes);
        let (split, gathers) = (usize::from(self.passes.split), usize::from(train.accumulate > 1));
        let state: usize = Stepper::new(train, &executor)?.state().iter().map(|(_, values)| size_of_val(*values)).sum();
        let teachers: usize = self.teachers.iter().map(|(graph, _)| weights(graph)).sum();
        let weights = weights(self.graph);
        let sample = self.graph.value(self.graph.inputs[0]).shape.bind(1).iter().product();
        // The network as it was given, as it was planned and as it is selected; a teacher as it was given and planned; what
        // losses hold as it is and as it is selected.
        let copies = (3 * weights + 2 * teachers).saturating_add(own.saturating_mul(2));
        let held = copies.saturating_add(own_gradients + state + gradients * (split + gathers * (1 + split)));
        // A checkpoint is all arrays, once for their hash and once for the file.
        let written = own.saturating_add(weights).saturating_mul(2).saturating_add(state).saturating_mul(2);
        let Run { threads, loaders, .. } = *run;
        Ok(Needs { trained: self, threads, loaders, validation, sample, read, held, written })
    }
}

impl Needs<'_> {
    /// Bytes of training with a batch: beyond [`MOST_PLANNED`] as they grow up to it.
    fn bytes(&self, batch: usize) -> Result<usize> {
        if batch <= MOST_PLANNED {
            return self.planned(batch);
        }
        let (half, whole) = (self.planned(MOST_PLANNED / 2)?, self.planned(MOST_PLANNED)?);
        let more = (batch - MOST_PLANNED).saturating_mul(whole.saturating_sub(half));
        Ok(whole.saturating_add(more / (MOST_PLANNED / 2)))
    }

    /// The same, as it is planned.
    fn planned(&self, batch: usize) -> Result<usize> {
        let Self { trained, threads, sample, .. } = self;
        let planned = |graph: &Graph, batch: usize, taps: &[String], backward: bool| {
            let plan = Plan { batch, taps: taps.to_vec(), backward, threads: *threads, gpu: None };
            Executor::<f32>::planned_bytes(graph, &plan, backward && trained.passes.several())
        };
        let mut learning = planned(trained.graph, batch, &trained.taps, true)?;
        for (graph, taps) in &trained.teachers {
            learning += planned(graph, batch, taps, false).map_err(|e| e.within("teacher"))?;
        }
        // What each network is fed, and of what losses read the gradient of one term and of all.
        let floats = (1 + trained.teachers.len()) * sample + 2 * self.read;
        learning += batch * floats * size_of::<f32>();
        let loaded = feed::most_batches(self.loaders) * batch * sample * size_of::<f32>();
        let asked = self.validation.min(batch);
        let judged = match asked {
            0 => 0,
            _ => planned(trained.graph, asked, &[], false)? + 2 * asked * sample * size_of::<f32>(),
        };
        let one = learning.saturating_add(self.held).saturating_add(loaded + judged.max(self.written));
        Ok(trained.copies.saturating_mul(one))
    }
}

/// Bytes of a network's initializers.
fn weights(graph: &Graph) -> usize {
    graph.initializers.values().map(|tensor| tensor.len() * size_of::<f32>()).sum()
}

/// Bytes with a batch; refused if they are more than this machine has left, naming the batch that would fit.
fn check_memory(bytes: &dyn Fn(usize) -> Result<usize>, batch: usize, available: Option<usize>) -> Result<usize> {
    let needed = bytes(batch)?;
    let Some(available) = available.filter(|&available| needed > available) else { return Ok(needed) };
    let expected = format!("training that fits the {} MiB that are free", available >> 20);
    let found = format!("{} MiB with a batch of {batch}", needed >> 20);
    let (mut fits, mut exceeds) = (0, batch);
    while exceeds - fits > 1 {
        let middle = fits.midpoint(exceeds);
        *if bytes(middle)? > available { &mut exceeds } else { &mut fits } = middle;
    }
    let action = match fits {
        0 => "use a machine with more memory: not even a batch of 1 fits".into(),
        _ => format!("lower the batch to {fits}, or use a machine with more memory"),
    };
    Err(Refusal::new("memory", expected, found, action).with_exit(Exit::Lacking))
}

/// Refuses a group that no parameter is in, and groups that leave nothing to train.
fn check_groups(groups: &[Group], parameters: &[Parameter<f32>]) -> Result<()> {
    let trained: Vec<&Parameter<f32>> = parameters.iter().filter(|p| p.role.is_trained()).collect();
    for (i, group) in groups.iter().enumerate() {
        if !trained.iter().any(|p| groups::matches(&group.pattern, &p.name)) {
            let names: Vec<&str> = trained.iter().map(|p| p.name.as_str()).collect();
            let at = format!("train.groups.{i}.match");
            let found = format!("`{}`", kd_runtime::error::Shown(&group.pattern));
            return Err(Refusal::new(at, "the name of a parameter", found, suggest(&group.pattern, &names)));
        }
    }
    if !groups.is_empty() && groups::rules(parameters, groups, true).iter().all(|rule| !rule.is_stepped) {
        let action = "leave some parameters out of the groups that are frozen";
        return Err(Refusal::new("train.groups", "a parameter that is trained", "none", action));
    }
    Ok(())
}

/// The limits that a forecast can tell of, judged; refused if one cannot be met.
fn judge(path: &Path, student: &Network) -> Result<Vec<Line>> {
    let budget = Budget::read(path)?;
    let lines: Vec<Line> = (budget.limits.iter())
        .filter_map(|limit| match limit.figure {
            Figure::SizeKib => Some(limit.judge_exact(student.int8_bytes as f64 / 1024.0)),
            Figure::MemoryMib => Some(limit.judge_exact(student.int8_memory_bytes as f64 / (1024.0 * 1024.0))),
            _ => None,
        })
        .collect();
    let missed: Vec<&Line> = lines.iter().filter(|line| line.verdict == Verdict::Fail).collect();
    if missed.is_empty() {
        return Ok(lines);
    }
    let list = |of: fn(&Line) -> f64, sign: &str| {
        let shown = missed.iter().map(|line| format!("{} {sign}{}", line.name, number(of(line))));
        shown.collect::<Vec<_>>().join(", ")
    };
    let expected = format!("a student with {}", list(|line| line.limit, "of at most "));
    let found = format!("{} at least, in int8", list(|line| line.measured.unwrap_or(f64::NAN), ""));
    let action = "make the student smaller or raise the limit";
    Err(Refusal::new(path.display(), expected, found, action).with_exit(Exit::VerdictFailed))
}

#[cfg(test)]
mod tests;
