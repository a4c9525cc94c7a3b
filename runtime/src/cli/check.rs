//! `kd-bench check`: seeded random inputs through every backend that is present; native's outputs against theirs.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::args::{Check, Format};
use super::target::Target;
use super::usage;
use crate::backend::{BACKENDS, Backend, Options, open};
use crate::budget::Verdict;
use crate::error::{Exit, Refusal, Result, Shown};
use crate::graph::{ElementType, Graph, Tensor, ValueId};
use crate::measure::inputs::Random;
use crate::report::{json, text};

/// Float models: largest difference relative to the largest output; some hundred roundings of 2^-24 in another order.
const FLOAT: f64 = 1e-4;

/// Int8 models, in steps of the last scale: largest and mean difference. Ties that round differently flip a step now
/// and then, and later layers carry it on.
const STEPS: f64 = 2.0;
const MEAN_STEPS: f64 = 0.1;

/// A difference of exactly so many steps is one of floats: it may be a rounding above.
const SLACK: f64 = 1.0 + 1e-5;

/// Int8 models that go on in float after their last scale: no step to count in.
const MIXED: f64 = 0.02;

/// What is compared for one output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    /// Relative to the largest, with this tolerance.
    Relative(f64),
    /// In steps of this size.
    Steps(f64),
}

/// One output of one backend beside native's.
#[derive(Debug, Serialize)]
struct Comparison {
    backend: &'static str,
    output: String,
    largest_difference: f64,
    mean_difference: f64,
    /// Samples whose largest output is another, though native's stands out by more than the tolerance.
    other_class: u64,
    unit: &'static str,
    tolerance: f64,
    verdict: Verdict,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct Checked {
    schema: &'static str,
    model: String,
    sha256: String,
    inputs: u32,
    seed: u64,
    comparisons: Vec<Comparison>,
    skipped: Vec<String>,
    verdict: Verdict,
}

pub(super) fn run(args: &Check) -> Result<ExitCode> {
    let target = Target::open(&args.model, args.precision, None)?;
    let graph = target.graph.as_ref().map_err(Clone::clone)?;
    let options = Options { threads: 1, ort_lib: args.ort_lib.clone() };
    let mut native = open("native", &target.bytes, 1, &options).map_err(|e| e.within(target.path.display()))?;
    let measures: Vec<Measure> = graph.outputs.iter().map(|&id| measure_of(graph, id)).collect();
    let mut comparisons = Vec::new();
    let mut skipped = Vec::new();
    for row in BACKENDS.iter().filter(|row| row.name != "native") {
        let compared = open(row.name, &target.bytes, 1, &options)
            .and_then(|mut other| compare(args, graph, &measures, &mut *native, &mut *other));
        match compared {
            Ok(rows) => comparisons.extend(rows),
            Err(why) => skipped.push(format!("{}: {why}", row.name)),
        }
    }
    if comparisons.is_empty() {
        let action = "install ONNX Runtime's library or build kd-bench with --features ort";
        let at = target.path.display();
        let refusal = Refusal::new(at, "a second backend to compare with", skipped.join("; "), action);
        return Err(refusal.with_exit(Exit::Lacking));
    }
    let failed = comparisons.iter().any(|row| row.verdict == Verdict::Fail);
    let checked = Checked {
        schema: "kd.backends/1",
        model: target.path.display().to_string(),
        sha256: target.sha256.clone(),
        inputs: args.inputs,
        seed: args.seed,
        comparisons,
        skipped,
        verdict: if failed { Verdict::Fail } else { Verdict::Pass },
    };
    usage::print(&match args.format {
        Format::Text => render(&checked),
        Format::Json => json::pretty(&checked),
    })?;
    Ok(usage::status(Some(checked.verdict)))
}

/// Runs both on the same inputs and measures each output.
fn compare(
    args: &Check,
    graph: &Graph,
    measures: &[Measure],
    native: &mut dyn Backend,
    other: &mut dyn Backend,
) -> Result<Vec<Comparison>> {
    if native.inputs() != other.inputs() {
        let expected = format!("inputs {:?}", native.inputs());
        let found = format!("{:?}", other.inputs());
        return Err(Refusal::new(other.name(), expected, found, "report it with the model"));
    }
    let mut random = Random::new(args.seed);
    let mut sums: Vec<Sums> = measures.iter().map(|_| Sums::default()).collect();
    for _ in 0..args.inputs {
        for (i, ty) in native.inputs().to_vec().iter().enumerate() {
            let range = graph.inputs.get(i).map_or((-1.0, 1.0), |&id| range_of(graph, id));
            let x = random.tensor(ty, range);
            native.feed(i, x.view())?;
            other.feed(i, x.view())?;
        }
        native.run()?;
        other.run()?;
        for (i, sums) in sums.iter_mut().enumerate() {
            let margin = if let Some(Measure::Steps(step)) = measures.get(i) { STEPS * step } else { 0.0 };
            sums.add(&native.output(i)?, &other.output(i)?, margin)?;
        }
    }
    let names = native.output_names().to_vec();
    Ok((names.into_iter().zip(measures).zip(&sums))
        .map(|((output, &measure), sums)| sums.conclude(other.name(), output, measure))
        .collect())
}

/// Differences of one output over all inputs.
#[derive(Debug, Default)]
struct Sums {
    largest: f64,
    sum: f64,
    n: u64,
    largest_output: f64,
    other_class: u64,
}

impl Sums {
    fn add(&mut self, ours: &Tensor, theirs: &Tensor, margin: f64) -> Result<()> {
        if ours.element() != theirs.element() || ours.shape() != theirs.shape() {
            let expected = format!("{} {:?}", ours.element(), ours.shape());
            let found = format!("{} {:?}", theirs.element(), theirs.shape());
            return Err(Refusal::new("output", expected, found, "report it with the model"));
        }
        let (ours_f, theirs_f) = (numbers(ours), numbers(theirs));
        for (&a, &b) in ours_f.iter().zip(&theirs_f) {
            let difference = match (a.is_nan(), b.is_nan()) {
                (true, true) => 0.0,
                (false, false) if a == b => 0.0,
                (false, false) => (a - b).abs(),
                _ => f64::INFINITY,
            };
            self.largest = self.largest.max(difference);
            self.sum += difference;
            self.n += 1;
            self.largest_output = self.largest_output.max(a.abs());
        }
        let classes = ours.shape().last().copied().unwrap_or(0);
        if ours.shape().len() == 2 && classes > 1 {
            for (a, b) in ours_f.chunks_exact(classes).zip(theirs_f.chunks_exact(classes)) {
                self.other_class += u64::from(stands_out(a, margin).is_some_and(|i| b.iter().any(|&x| x > b[i])));
            }
        }
        Ok(())
    }

    fn conclude(&self, backend: &'static str, output: String, measure: Measure) -> Comparison {
        let mean = self.sum / self.n.max(1) as f64;
        let (unit, scale, tolerance) = match measure {
            Measure::Relative(tolerance) if self.largest_output > 0.0 => ("relative", self.largest_output, tolerance),
            Measure::Relative(tolerance) => ("relative", 1.0, tolerance),
            Measure::Steps(step) => ("steps", step, STEPS),
        };
        let within = self.largest <= scale * tolerance * SLACK;
        let steps = matches!(measure, Measure::Steps(_));
        let fine = within && (!steps || (mean <= scale * MEAN_STEPS * SLACK && self.other_class == 0));
        Comparison {
            backend,
            output,
            largest_difference: self.largest / scale,
            mean_difference: mean / scale,
            other_class: self.other_class,
            unit,
            tolerance,
            verdict: if fine { Verdict::Pass } else { Verdict::Fail },
        }
    }
}

/// The place of the largest, if it is above the second by more than `margin`.
fn stands_out(row: &[f64], margin: f64) -> Option<usize> {
    let best = (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best })?;
    row.iter().enumerate().all(|(i, &x)| i == best || row[best] - x > margin).then_some(best)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    use crate::graph::Slice;
    match tensor.view().data {
        Slice::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I64(v) => v.iter().map(|&x| x as f64).collect(),
        Slice::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
    }
}

/// How an output is compared: by the step of the scale that it was last rounded to, if there is one.
fn measure_of(graph: &Graph, output: ValueId) -> Measure {
    if matches!(graph.value(output).element, ElementType::U8 | ElementType::I8) {
        return Measure::Steps(1.0);
    }
    if !graph.nodes.iter().any(|node| node.op.def().is_quantization()) {
        return Measure::Relative(FLOAT);
    }
    let producers = graph.producers();
    let mut id = output;
    let mut factor = 1.0;
    while let Some(node) = producers.get(id.index()).copied().flatten().and_then(|i| graph.nodes.get(i)) {
        match node.op.name() {
            "DequantizeLinear" => {
                let scale = graph.constant(node.input(1)).and_then(|scale| scale.get::<f32>());
                if let Some(&[scale]) = scale {
                    return Measure::Steps(factor * f64::from(scale));
                }
                break;
            }
            // |dp| <= p (1 - p) (|dz| + |dz'|) <= 2 / 4 of the largest change of an input.
            "Softmax" => factor *= 0.5,
            // d log p = dz - sum(p dz).
            "LogSoftmax" => factor *= 2.0,
            _ if node.op.def().is_alias() => {}
            _ => break,
        }
        let Some(next) = node.input(0) else { break };
        id = next;
    }
    Measure::Relative(MIXED)
}

/// The range of random values for an input: that of its quantization, or -1..1.
fn range_of(graph: &Graph, input: ValueId) -> (f32, f32) {
    let quantize = graph.nodes.iter().find(|node| node.op.name() == "QuantizeLinear" && node.input(0) == Some(input));
    let range = quantize.and_then(|node| {
        let &[scale] = graph.constant(node.input(1))?.get::<f32>()? else { return None };
        let zero_point = graph.constant(node.input(2));
        let (low, high, zero) = match zero_point.map(|zero| (zero.get::<u8>(), zero.get::<i8>())) {
            Some((_, Some(&[zero]))) => (-128.0, 127.0, f32::from(zero)),
            Some((Some(&[zero]), _)) => (0.0, 255.0, f32::from(zero)),
            _ => (0.0, 255.0, 0.0),
        };
        Some(((low - zero) * scale, (high - zero) * scale))
    });
    range.unwrap_or((-1.0, 1.0))
}

fn render(checked: &Checked) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(out, "model   {}", Shown(&checked.model));
    let _ = writeln!(out, "sha256  {}", checked.sha256);
    let _ = writeln!(out, "inputs  {} random, seed {}\n", text::grouped(u64::from(checked.inputs)), checked.seed);
    for row in &checked.comparisons {
        let (output, unit) = (Shown(&row.output), row.unit);
        let (largest, tolerance) = (text::number(row.largest_difference), text::number(row.tolerance));
        let _ = write!(out, "{} `{output}`: largest difference {largest} {unit}", row.backend);
        let _ = write!(out, ", mean {}, tolerance {tolerance}", text::number(row.mean_difference));
        let _ = writeln!(out, ", {} with another class: {}", row.other_class, row.verdict.word());
    }
    for why in &checked.skipped {
        let _ = writeln!(out, "not compared: {}", Shown(why));
    }
    let _ = writeln!(out, "\nverdict: {}", checked.verdict.word());
    out
}
