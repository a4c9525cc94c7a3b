//! What can be known before training: sizes, memory, whether taps exist, and whether the student can meet its budget.

use std::collections::BTreeMap;
use std::path::Path;

use kd_exporter::calibrate::{Calibration, Range};
use kd_exporter::{fold, quantize};
use kd_runtime::backend::available_bytes;
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
use super::{Choice, Codistill, Recipe, Scheme, TeacherSource, Train};
use crate::data::augment;
use crate::exec::{Executor, Parameter, Plan};
use crate::losses::ce::Targets;
use crate::losses::pair::{LOGITS, cut, value_name};
use crate::optim::groups::{self, Group};
use crate::optim::stepper::Stepper;
use crate::schemes::terms::{Extended, Passes, extend};
use crate::teacher;
use crate::zoo::{self, Site};

/// What is known of a recipe before training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The student, then its assistants (without what is beside them while they are trained) and the teachers that the recipe
    /// trains.
    pub networks: Vec<Network>,
    /// The budget's limits on size and memory, judged by the student's forecast; empty without a budget.
    pub budget: Vec<Line>,
}

/// What one network will cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// `student`, `assistant-1`, `teacher`, `teacher-2`.
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
    /// Parameters, gradients, activations and the optimizer's state while it is trained, and its teachers beside it.
    pub training_bytes: u64,
}

/// Builds the networks of a recipe for this data and forecasts their cost. `given` are the teachers that exist: without
/// them (`--no-data`) terms that read of a teacher are not built. Refuses what cannot be built, a tap that does
/// not exist, what this machine has too few cores or too little memory for ([`Exit::Lacking`]), and a student that cannot
/// meet its budget's size or memory ([`Exit::VerdictFailed`]).
pub fn precheck(recipe: &Recipe, site: &Site, given: &[&teacher::Network]) -> Result<Forecast> {
    check_threads(recipe.run.threads)?;
    augment::build(&recipe.data.augment, &site.input).map_err(|e| e.within("data.augment"))?;
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
    // A replica listens to networks like itself.
    let two = matches!(recipe.distill.scheme, Scheme::Codistill(Codistill { replicas: 2, .. }));
    let peer = two.then_some((&student, &contract));
    let mut teacher = match (given, &built[..]) {
        ([only], []) => Some((&only.graph, &only.contract)),
        ([], [(_, only, ..)]) => Some((only, &contract)),
        _ => peer,
    };
    let extended =
        |graph: &Graph, teacher| extend(graph, &contract, distill, Targets::default(), teacher, 1, recipe.run.seed);
    for (i, (graph, name, _)) in assistants.iter().enumerate() {
        if i > 0 || !recipe.teachers.is_empty() {
            extended(graph, teacher).map_err(|e| e.within(name))?;
        }
        teacher = Some((graph, &contract));
    }
    let Extended { graph, terms, .. } = extended(&student, teacher)?;
    let taught: Vec<&[String]> = terms.iter().map(|term| term.loss.teacher_taps()).collect();
    for (name, teacher, ..) in &built {
        taught.iter().enumerate().try_for_each(|(i, taps)| {
            check_taps(teacher, name, taps).map_err(|e| e.within(format!("distill.terms.{}", i - first_term(recipe))))
        })?;
    }
    let deployed = cut(&graph, &contract.output.name, &contract.output.name)?;
    let taught_by = given.iter().map(|network| (&network.graph, &*network.contract.output.name));
    // All replicas train at once, each beside those that it listens to.
    let copies = match recipe.distill.scheme {
        Scheme::Codistill(Codistill { replicas, .. }) => replicas,
        Scheme::Offline => 1,
    };
    let taught_by = taught_by.chain((1..copies).map(|_| (&student, LOGITS)));
    let taught_by = taught_by.chain(assistants.last().map(|(graph, ..)| (graph, LOGITS)));
    let taught_by = taught_by.chain(built.iter().map(|(_, graph, ..)| (graph, LOGITS)));
    let taught: Vec<&String> = taught.into_iter().flatten().collect();
    let names = |graph, output| taught.iter().map(|tap| value_name(graph, output, tap).to_string()).collect();
    let trained = Trained {
        graph: &graph,
        taps: terms.iter().flat_map(|term| term.loss.student_taps().to_vec()).collect(),
        own: terms.iter().flat_map(|term| term.loss.own()).collect(),
        passes: Passes::of(&recipe.train, distill),
        teachers: taught_by.map(|(graph, output)| (graph, names(graph, output))).collect(),
        is_whole: known,
        copies,
    };
    let mut networks = vec![forecast(recipe, "student", &recipe.student, &recipe.train, &deployed, trained)?];
    for (graph, name, arch) in &assistants {
        let trained = Trained::alone(graph, &recipe.train);
        networks.push(forecast(recipe, name, arch, &recipe.train, graph, trained)?);
    }
    for (name, graph, arch, train) in &built {
        networks.push(forecast(recipe, name, arch, train, graph, Trained::alone(graph, train))?);
    }
    let budget = recipe.budget.as_deref().map_or(Ok(Vec::new()), |path| judge(path, &networks[0]))?;
    Ok(Forecast { networks, budget })
}

/// What assistant number `i` (from 0) is called.
pub fn assistant_name(i: usize) -> String {
    format!("assistant-{}", i + 1)
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

/// What a network costs: as it is kept, and as it is trained.
fn forecast(
    recipe: &Recipe,
    name: &str,
    arch: &Choice,
    train: &Train,
    graph: &Graph,
    trained: Trained<'_>,
) -> Result<Network> {
    let needs = trained.needs(train, recipe.run.threads).map_err(|e| e.within(name))?;
    let training_bytes = needs.check(train.batch, available_bytes()).map_err(|e| e.within(name))? as u64;
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
        training_bytes,
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

/// A network as it is trained.
struct Trained<'a> {
    /// With its adapters.
    graph: &'a Graph,
    /// Values that its losses read.
    taps: Vec<String>,
    /// Arrays of its losses.
    own: Vec<Parameter<f32>>,
    passes: Passes,
    /// Who answers beside it, and the values that are read of it.
    teachers: Vec<(&'a Graph, Vec<String>)>,
    /// Whether all of its terms are there.
    is_whole: bool,
    /// How many are trained side by side.
    copies: usize,
}

/// Bytes of training: with a batch of one sample, and of each further one.
#[derive(Clone, Copy, Debug)]
struct Needs {
    one: usize,
    each: usize,
}

impl<'a> Trained<'a> {
    /// A network that learns from the labels.
    fn alone(graph: &'a Graph, train: &Train) -> Self {
        let passes = Passes::of(train, None);
        Self { graph, taps: Vec::new(), own: Vec::new(), passes, teachers: Vec::new(), is_whole: true, copies: 1 }
    }

    /// Bytes of training. Buffers grow with the batch, parameters do not: two small plans, one after the other, tell what a
    /// large one would take.
    fn needs(self, train: &Train, threads: usize) -> Result<Needs> {
        let buffers = |batch| -> Result<(Executor<f32>, usize)> {
            let plan = Plan { batch, taps: self.taps.clone(), backward: true, threads };
            let executor = match self.passes.several() {
                true => Executor::for_several_passes(self.graph, &plan)?,
                false => Executor::new(self.graph, &plan)?,
            };
            let mut bytes = executor.buffer_bytes();
            for (graph, taps) in &self.teachers {
                let plan = Plan { batch, taps: taps.clone(), backward: false, threads };
                bytes += Executor::<f32>::new(graph, &plan).map_err(|e| e.within("teacher"))?.buffer_bytes();
            }
            Ok((executor, bytes))
        };
        let (one, parameters) = {
            let (mut executor, bytes) = buffers(1)?;
            let network = executor.buffer_bytes();
            executor.adopt(self.own);
            if self.is_whole {
                check_groups(&train.groups, executor.parameters())?;
            }
            let gradients: usize = executor.parameters().iter().map(|p| size_of_val(&p.gradient[..])).sum();
            let (split, gathers) = (usize::from(self.passes.split), usize::from(train.accumulate > 1));
            let state =
                Stepper::new(train, &executor).state().iter().map(|(_, values)| size_of_val(*values)).sum::<usize>();
            (bytes, state + gradients * (split + gathers * (1 + split)) + executor.buffer_bytes() - network)
        };
        let each = buffers(2)?.1.saturating_sub(one);
        Ok(Needs { one: self.copies * (one + parameters), each: self.copies * each })
    }
}

impl Needs {
    /// Bytes with a batch; refused if they are more than this machine has left, naming the batch that would fit.
    fn check(self, batch: usize, available: Option<usize>) -> Result<usize> {
        let needed = self.each.saturating_mul(batch - 1).saturating_add(self.one);
        let Some(available) = available.filter(|&available| needed > available) else { return Ok(needed) };
        let expected = format!("training that fits the {} MiB that are free", available >> 20);
        let found = format!("{} MiB with a batch of {batch}", needed >> 20);
        let action = match available.checked_sub(self.one) {
            Some(left) => {
                format!("lower the batch to {}, or use a machine with more memory", 1 + left / self.each.max(1))
            }
            None => "use a machine with more memory: not even a batch of 1 fits".into(),
        };
        Err(Refusal::new("memory", expected, found, action).with_exit(Exit::Lacking))
    }
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
mod tests {
    use kd_exporter::calibrate;

    use super::*;
    use crate::data;
    use crate::recipe::parse::parse;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn the_forecast_of_bytes_is_what_the_exporter_writes_of_other_weights_and_real_ranges() {
        for arch in ["cnn", "mlp", "resnet8", "cnn\"\nhead = \"all"] {
            let text = format!("[data]\nformat = \"digits\"\n[student]\narch = \"{arch}\"\n");
            let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
            let data = data::prepare(&recipe).expect("digits");
            let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
            let forecast = precheck(&recipe, &site, &[]).expect("a forecast").networks[0].clone();
            let mut graph = zoo::build(&recipe.student, &site, 7).expect("a network");
            let mut rng = Rng::new(1, Purpose::Shuffle, 0, 0);
            for tensor in graph.initializers.values_mut().filter(|tensor| tensor.element() == ElementType::F32) {
                let shape = tensor.shape().to_vec();
                let values: Vec<f32> = (0..tensor.len()).map(|_| 0.1 + rng.below(1000) as f32 / 1000.0).collect();
                *tensor = kd_runtime::graph::Tensor::from_vec(&shape, values);
            }
            let folded = fold::fold(&graph).expect("folded");
            let digits = kd_runtime::data::Source::parse("digits").and_then(|source| source.open()).expect("digits");
            let calibration = calibrate::calibrate(&folded, &data.contract, &*digits, "minmax", 16).expect("ranges");
            let int8 = quantize::quantize(&folded, &calibration).expect("quantized").graph;
            let written = onnx::write(&int8).len() as u64;
            let engine = Engine::new(&int8, 1).expect("planned");
            let memory = (engine.arena_bytes() + engine.weights_bytes()) as u64;
            assert_eq!((written, memory), (forecast.int8_bytes, forecast.int8_memory_bytes), "{arch}");
        }
    }
    #[test]
    fn too_large_a_batch_is_refused_with_the_one_that_fits() {
        let needs = Needs { one: 1 << 20, each: 1000 };
        assert_eq!(needs.check(1 << 20, None), Ok((1 << 20) + 1000 * ((1 << 20) - 1)));
        let free = 3 << 20;
        let refusal = needs.check(5000, Some(free)).expect_err("too much");
        let expected = "memory: expected training that fits the 3 MiB that are free, found 5 MiB with a batch of 5000; lower \
                        the batch to 2098, or use a machine with more memory";
        assert_eq!((refusal.to_string().as_str(), refusal.exit), (expected, Exit::Lacking));
        assert!(needs.check(2098, Some(free)).is_ok() && needs.check(2099, Some(free)).is_err());
        let none = needs.check(1, Some(1000)).expect_err("too much").to_string();
        assert!(none.ends_with("use a machine with more memory: not even a batch of 1 fits"), "{none}");
    }

    #[test]
    fn what_training_needs_grows_with_what_is_switched_on() {
        let bytes = |more: &str| {
            let text = format!(
                "[data]\nformat = \"digits\"\n[teacher]\narch = \"cnn\"\n[student]\narch = \"cnn\"\n[distill]\n\
                 terms = [{{ method = \"kd\" }}]\n{more}"
            );
            let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
            let networks =
                precheck(&recipe, &Site { input: vec![1, 8, 8], classes: 10 }, &[]).expect("a forecast").networks;
            [networks[0].training_bytes, networks[1].training_bytes]
        };
        let [student, teacher] = bytes("");
        let larger = [
            "[train]\noptimizer = { kind = \"dot\" }",
            "[train]\nema = 0.9",
            "[train]\naccumulate = 2",
            "[train]\nbatch = 65",
            "diagnose = true",
        ];
        for more in larger {
            let [found, alone] = bytes(more);
            assert!(found > student, "{more}: {found}, {student}");
            assert_eq!(alone == teacher, more == "diagnose = true", "{more}");
        }
        assert!(student > teacher, "the teacher answers beside it");
    }
}
