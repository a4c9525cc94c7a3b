//! The engine against quantized models whose results ONNX Runtime made: `golden/quant`.

use std::path::{Path, PathBuf};

use kd_runtime::engine::Engine;
use kd_runtime::graph::{ElementType, Graph, Slice, Tensor};
use kd_runtime::ops::Op;
use kd_runtime::{files, onnx};
use safetensors::{Dtype, SafeTensors};

/// How one case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every element equals the reference.
    Exact,
    /// Equal but for single steps where the reference's own kernels differ among themselves: elements, of all.
    OneStep(usize, usize),
    /// A network whose float outputs differ by this many steps of its last scale at most.
    Network(f32),
    /// ONNX Runtime ran no integer kernel either, so that bits are a matter of summation order: the largest distance
    /// from the f64 result, as a multiple of ONNX Runtime's own.
    Float(f64),
    /// Not run, and why.
    Refused(String),
    /// Wrong, and how.
    Differs(String),
}

/// What a case may differ by.
enum Bound {
    Exact,
    OneStep,
    Network,
}

/// The bound of a case, by what its graph computes: integers of convolutions, products, moves and tables are exact;
/// sums, means and softmax have ties that ONNX Runtime's own kernels round differently on x86 and ARM.
fn bound(name: &str, graph: &Graph) -> Bound {
    if name.starts_with("net_") {
        return Bound::Network;
    }
    let tie = |op: &Op| {
        matches!(op, Op::Add(_) | Op::Mul(_) | Op::AveragePool(_) | Op::GlobalAveragePool(_) | Op::Softmax(_))
    };
    if graph.nodes.iter().any(|node| tie(&node.op)) { Bound::OneStep } else { Bound::Exact }
}

/// The cases of a folder, sorted by name.
pub fn cases(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    cases.sort();
    cases
}

/// Runs one case.
pub fn run(model: &Path) -> Outcome {
    match try_run(model) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Refused(refusal.to_string()),
    }
}

fn try_run(path: &Path) -> kd_runtime::Result<Outcome> {
    let graph = onnx::read(&files::read(path)?)?.graph;
    let bytes = files::read(&path.with_extension("safetensors"))?;
    let golden = SafeTensors::deserialize(&bytes)
        .map_err(|e| kd_runtime::Refusal::new(path.display(), "a golden safetensors file", e, "fetch it again"))?;
    let mut engine = Engine::new(&graph, 1)?;
    for (i, &id) in graph.inputs.iter().enumerate() {
        let name = format!("in.{}", graph.value(id).name);
        let tensor = tensor(&golden, &name).ok_or_else(|| missing(path, &name))?;
        engine.input_mut(i).data.copy_from(tensor.view().data);
    }
    engine.run()?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let bound = bound(&name, &graph);
    let mut worst = Outcome::Exact;
    for (i, &id) in graph.outputs.iter().enumerate() {
        let name = format!("prec.{}", graph.value(id).name);
        let expected = tensor(&golden, &name).ok_or_else(|| missing(path, &name))?;
        let compared = match float_of(&golden, &graph.value(id).name, &expected) {
            Some(ideal) if !matches!(bound, Bound::Network) => compare_floats(engine.output(i).data, &expected, &ideal),
            _ => compare(&graph, &bound, engine.output(i).data, expected.data().view()),
        };
        match compared {
            Outcome::Exact => {}
            differs @ Outcome::Differs(_) => return Ok(differs),
            other if how_far(&other) > how_far(&worst) => worst = other,
            _ => {}
        }
    }
    Ok(worst)
}

/// Orders what is no difference: by the kind, of one kind by its number.
fn how_far(outcome: &Outcome) -> (u8, f64) {
    match outcome {
        Outcome::Exact => (0, 0.0),
        Outcome::OneStep(n, of) => (1, *n as f64 / (*of).max(1) as f64),
        Outcome::Float(ratio) => (2, *ratio),
        Outcome::Network(steps) => (3, f64::from(*steps)),
        Outcome::Refused(_) | Outcome::Differs(_) => (4, 0.0),
    }
}

fn missing(path: &Path, name: &str) -> kd_runtime::Refusal {
    kd_runtime::Refusal::new(
        path.display(),
        format!("a golden tensor `{name}` of a known type"),
        "none",
        "fetch it again",
    )
}

/// The f64 result of a float output for which ONNX Runtime's optimised session ran no integer kernel: its bits are
/// those of the session without any optimisation.
fn float_of(golden: &SafeTensors<'_>, name: &str, prec: &Tensor) -> Option<Vec<f64>> {
    let off = tensor(golden, &format!("off.{name}"))?;
    if prec.element() != ElementType::F32 || off != *prec {
        return None;
    }
    let view = golden.tensor(&format!("f64.{name}")).ok().filter(|view| view.dtype() == Dtype::F64)?;
    Some(view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect())
}

/// Floats may be twice as far from the f64 result as ONNX Runtime's are: sums of as many terms in another order.
fn compare_floats(found: Slice<'_>, prec: &Tensor, ideal: &[f64]) -> Outcome {
    let expected = numbers(prec.data().view());
    let found = numbers(found);
    if found == expected {
        return Outcome::Exact;
    }
    let distance = |from: &[f64]| largest(from.iter().zip(ideal).map(|(a, b)| gap(*a, *b)));
    let ratio = distance(&found) / distance(&expected);
    if found.len() == ideal.len() && ratio <= 2.0 {
        Outcome::Float(ratio)
    } else {
        Outcome::Differs(format!("{ratio:.2} times as far from the f64 result as ONNX Runtime's floats"))
    }
}

fn compare(graph: &Graph, bound: &Bound, found: Slice<'_>, expected: Slice<'_>) -> Outcome {
    if found.element() != expected.element() || found.len() != expected.len() {
        return Outcome::Differs(format!(
            "{} of {}, expected {} of {}",
            found.len(),
            found.element(),
            expected.len(),
            expected.element()
        ));
    }
    let (found, expected) = (numbers(found), numbers(expected));
    let gaps: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| gap(*a, *b)).collect();
    let largest = largest(gaps.iter().copied());
    let differing = gaps.iter().filter(|&&gap| gap != 0.0).count();
    if differing == 0 {
        return Outcome::Exact;
    }
    let told = || format!("{differing} of {} elements, by up to {largest}", gaps.len());
    match bound {
        Bound::Exact => Outcome::Differs(told()),
        Bound::OneStep if largest <= 1.0 => Outcome::OneStep(differing, gaps.len()),
        Bound::OneStep => Outcome::Differs(told()),
        Bound::Network => {
            let steps = largest / f64::from(last_scale(graph));
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64 / f64::from(last_scale(graph));
            if steps <= 2.001 && mean <= 0.1 {
                Outcome::Network(steps as f32)
            } else {
                Outcome::Differs(format!("{}; {steps:.2} steps of the last scale, {mean:.3} in the mean", told()))
            }
        }
    }
}

/// How far two numbers are apart; two that are none are equal.
fn gap(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() }
}

/// The largest of gaps. One that is no number is larger than all.
fn largest(gaps: impl Iterator<Item = f64>) -> f64 {
    gaps.fold(0.0, |a, b| if a.is_nan() || b <= a { a } else { b })
}

/// The scale that the network's last dequantization multiplies by.
fn last_scale(graph: &Graph) -> f32 {
    let scales = graph.nodes.iter().rev().filter(|node| matches!(node.op, Op::DequantizeLinear(_)));
    let mut scalars =
        scales.filter_map(|node| graph.constant(node.input(1))?.get::<f32>().filter(|s| s.len() == 1).map(|s| s[0]));
    scalars.next().unwrap_or(f32::MIN_POSITIVE)
}

fn numbers(slice: Slice<'_>) -> Vec<f64> {
    match slice {
        Slice::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Slice::I64(v) => v.iter().map(|&x| x as f64).collect(),
        Slice::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
    }
}

/// A tensor of a safetensors file, if it is there and of one of the engine's element types.
fn tensor(file: &SafeTensors<'_>, name: &str) -> Option<Tensor> {
    let view = file.tensor(name).ok()?;
    let (shape, bytes) = (view.shape(), view.data());
    let element = match view.dtype() {
        Dtype::F32 => ElementType::F32,
        Dtype::U8 => ElementType::U8,
        Dtype::I8 => ElementType::I8,
        Dtype::I32 => ElementType::I32,
        Dtype::I64 => ElementType::I64,
        _ => return None,
    };
    let data = match element {
        ElementType::F32 => words(bytes, f32::from_le_bytes),
        ElementType::I32 => words(bytes, i32::from_le_bytes),
        ElementType::I64 => words(bytes, i64::from_le_bytes),
        ElementType::U8 => words(bytes, u8::from_le_bytes),
        _ => words(bytes, i8::from_le_bytes),
    };
    Tensor::new(shape.to_vec(), data)
}

fn words<const N: usize, T: kd_runtime::graph::Element>(
    bytes: &[u8],
    convert: fn([u8; N]) -> T,
) -> kd_runtime::graph::Data {
    T::data(bytes.chunks_exact(N).map(|chunk| convert(chunk.try_into().expect("N bytes"))).collect())
}

#[cfg(test)]
mod tests {
    use kd_runtime::graph::Element;

    use super::*;

    #[test]
    fn floats_that_are_no_numbers_differ() {
        let prec = Tensor::new(vec![3], f32::data(vec![1.0, 2.0, 3.0])).unwrap();
        let ideal = [1.0, 2.0, 3.000_000_1];
        let outcome = |found: [f32; 3]| compare_floats(Slice::F32(&found), &prec, &ideal);
        assert_eq!(outcome([1.0, 2.0, 3.0]), Outcome::Exact);
        for place in 0..3 {
            let mut found = [1.0, 2.0, 3.0];
            found[place] = f32::NAN;
            assert!(matches!(outcome(found), Outcome::Differs(_)), "{place}");
        }
    }

    #[test]
    fn a_gap_that_is_no_number_is_the_largest_wherever_it_stands() {
        assert!(largest([f64::NAN, 1.0].into_iter()).is_nan() && largest([1.0, f64::NAN, 2.0].into_iter()).is_nan());
        assert_eq!(largest([1.0, 3.0, 2.0].into_iter()), 3.0);
        assert_eq!((gap(f64::INFINITY, f64::INFINITY), gap(f64::NAN, f64::NAN)), (0.0, 0.0));
        assert!(gap(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn of_several_outputs_the_worst_is_told() {
        let ascending =
            [Outcome::Exact, Outcome::OneStep(1, 9), Outcome::OneStep(2, 9), Outcome::Float(0.5), Outcome::Float(1.5)];
        for pair in ascending.windows(2) {
            assert!(how_far(&pair[0]) < how_far(&pair[1]), "{pair:?}");
        }
    }
}
