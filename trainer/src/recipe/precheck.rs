//! What can be known before training: sizes, memory, whether taps exist, and whether the student can meet its budget.

use std::collections::BTreeMap;
use std::path::Path;

use kd_exporter::calibrate::{Calibration, Range};
use kd_exporter::{fold, quantize};
use kd_runtime::backend::available_bytes;
use kd_runtime::budget::{Budget, Figure, Line, Verdict};
use kd_runtime::engine::Engine;
use kd_runtime::error::Exit;
use kd_runtime::graph::{ElementType, Graph};
use kd_runtime::ops::Op;
use kd_runtime::report::text::number;
use kd_runtime::{Refusal, Result, onnx};
use serde::Serialize;

use super::values::suggest;
use super::{Choice, Recipe, TeacherSource, Train};
use crate::data::augment;
use crate::exec::{Executor, Plan};
use crate::losses::Loss;
use crate::losses::table::METHODS;
use crate::optim::table::OPTIMIZERS;
use crate::zoo::{self, Site};

/// What is known of a recipe before training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The student, then the teachers that the recipe trains.
    pub networks: Vec<Network>,
    /// The budget's limits on size and memory, judged by the student's forecast; empty without a budget.
    pub budget: Vec<Line>,
}

/// What one network will cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// `student`, `teacher`, `teacher-2`.
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
    /// Parameters, gradients, activations and the optimizer's state while it is trained.
    pub training_bytes: u64,
}

/// Builds the networks of a recipe for this data and forecasts their cost. Refuses what cannot be built, a tap that does
/// not exist, what this machine has too few cores or too little memory for ([`Exit::Lacking`]), and a student that cannot
/// meet its budget's size or memory ([`Exit::VerdictFailed`]).
pub fn precheck(recipe: &Recipe, site: &Site) -> Result<Forecast> {
    check_threads(recipe.run.threads)?;
    augment::build(&recipe.data.augment, &site.input).map_err(|e| e.within("data.augment"))?;
    let terms: Vec<Box<dyn Loss>> = (recipe.distill.terms.iter())
        .filter_map(|term| METHODS.iter().find(|row| row.name == term.method.name).map(|row| (row, term)))
        .map(|(row, term)| (row.build)(&term.method.options))
        .collect();
    let mut networks = Vec::new();
    let taps = |of: fn(&dyn Loss) -> &[String]| terms.iter().map(|term| of(&**term)).collect::<Vec<_>>();
    networks.push(forecast(recipe, "student", &recipe.student, &recipe.train, site, &taps(|t| t.student_taps()))?);
    for (i, teacher) in recipe.teachers.iter().enumerate() {
        if let TeacherSource::Arch { arch, train } = &teacher.source {
            let name = if recipe.teachers.len() == 1 { "teacher".into() } else { format!("teacher-{}", i + 1) };
            networks.push(forecast(recipe, &name, arch, train, site, &taps(|t| t.teacher_taps()))?);
        }
    }
    let budget = recipe.budget.as_deref().map_or(Ok(Vec::new()), |path| judge(path, &networks[0]))?;
    Ok(Forecast { networks, budget })
}

fn check_threads(threads: usize) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if threads > cores {
        let expected = format!("at most {cores}, the cores of this machine");
        return Err(Refusal::new("run.threads", expected, threads, "use fewer threads").with_exit(Exit::Lacking));
    }
    Ok(())
}

fn forecast(
    recipe: &Recipe,
    name: &str,
    arch: &Choice,
    train: &Train,
    site: &Site,
    taps: &[&[String]],
) -> Result<Network> {
    let graph = zoo::build(arch, site, recipe.run.seed).map_err(|e| e.within(name))?;
    for (i, taps) in taps.iter().enumerate() {
        check_taps(&graph, name, taps).map_err(|e| e.within(format!("distill.terms.{i}")))?;
    }
    let seen = if name == "student" { taps.iter().flat_map(|taps| taps.to_vec()).collect() } else { Vec::new() };
    let training_bytes = training_bytes(&graph, seen, train, recipe.run.threads).map_err(|e| e.within(name))? as u64;
    let stats = graph.stats()?;
    let int8 = int8(&graph)?;
    let engine = Engine::new(&int8, 1)?;
    Ok(Network {
        name: name.into(),
        arch: arch.name,
        parameters: stats.parameters,
        macs: stats.macs,
        float_bytes: onnx::write(&graph).len() as u64,
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

/// Bytes of training a network; refused if they are more than this machine has left.
fn training_bytes(graph: &Graph, taps: Vec<String>, train: &Train, threads: usize) -> Result<usize> {
    let planned = |batch| Executor::<f32>::new(graph, &Plan { batch, taps: taps.clone(), backward: true, threads });
    let executor = planned(1)?;
    let row = OPTIMIZERS.iter().find(|row| row.name == train.optimizer.name);
    let state: usize = row.map_or(0, |row| {
        let optimizer = (row.build)(&train.optimizer.options, executor.parameters(), train.decay_norm_and_bias);
        optimizer.state().iter().map(|(_, values)| size_of_val(*values)).sum()
    });
    // Buffers grow with the batch, parameters do not: two small plans tell what a large one would take.
    let one = executor.buffer_bytes();
    let each = planned(2)?.buffer_bytes().saturating_sub(one);
    let needed = each.saturating_mul(train.batch - 1).saturating_add(one + state);
    match available_bytes() {
        Some(available) if needed > available => {
            let expected = format!("training that fits the {} MiB that are free", available >> 20);
            let found = format!("{} MiB with a batch of {}", needed >> 20, train.batch);
            let action = "lower the batch, or use a machine with more memory";
            Err(Refusal::new("memory", expected, found, action).with_exit(Exit::Lacking))
        }
        _ => Ok(needed),
    }
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
            let forecast = precheck(&recipe, &site).expect("a forecast").networks[0].clone();
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
}
