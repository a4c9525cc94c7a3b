//! The native engine against ONNX's own node tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use kd_runtime::engine::Engine;
use kd_runtime::graph::{Dim, Graph, Slice, Tensor};
use kd_runtime::{Refusal, Result, files, onnx, ops};

/// How one case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The outputs are within ONNX's tolerance.
    Passed,
    /// Not run, and why.
    Refused(String),
    /// Wrong, and how.
    Wrong(String),
}

/// One case of the suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Release of ONNX and name.
    pub name: String,
    /// The operator that it tests.
    pub operator: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// The cases whose operators are all in the table (or `Constant`, which the reader turns into an initializer).
///
/// `folder` holds `RELEASE/CASE/`; the operator of a case is found in its model.
pub fn cases(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for release in subfolders(folder) {
        for case in subfolders(&release) {
            let Ok(bytes) = std::fs::read(case.join("model.onnx")) else { continue };
            let Ok(operators) = onnx::operators(&bytes) else { continue };
            let ours = |name: &String| name == "Constant" || ops::table::NAMES.contains(&name.as_str());
            if operators.is_empty() || !operators.iter().all(ours) {
                continue;
            }
            let tail = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let operator = operators.iter().find(|name| *name != "Constant").unwrap_or(&operators[0]).clone();
            cases.push(Case { name: format!("{}/{}", tail(&release), tail(&case)), operator, folder: case });
        }
    }
    cases
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The folder of unpacked cases: `KD_NODE_TESTS`, or the archive beside the checkout unpacked under `target`.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("KD_NODE_TESTS") {
        return Some(PathBuf::from(folder));
    }
    let archive = crate::material("KD_NODE_TESTS", "data/onnx-node-tests.tar.xz")?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let unpacked = target.join("onnx-node-tests");
    if !unpacked.is_dir() {
        // Unpacked beside and renamed, so that an interrupted unpacking is not taken for a whole one.
        let part = target.join(format!("onnx-node-tests.{}.tmp", std::process::id()));
        std::fs::create_dir_all(&part).ok()?;
        let done = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(&part).status();
        if done.is_ok_and(|status| status.success()) {
            let _ = std::fs::rename(part.join("onnx-node-tests"), &unpacked);
        }
        let _ = std::fs::remove_dir_all(&part);
    }
    unpacked.is_dir().then_some(unpacked)
}

/// Runs one case: every `test_data_set_K`. A case without any is wrong: nothing of it would be compared.
pub fn run(case: &Case) -> Outcome {
    match try_run(&case.folder) {
        Ok(None) => Outcome::Passed,
        Ok(Some(wrong)) => Outcome::Wrong(wrong),
        Err(refusal) => Outcome::Refused(refusal.to_string()),
    }
}

fn try_run(folder: &Path) -> Result<Option<String>> {
    let model = files::read(&folder.join("model.onnx"))?;
    let sets = (0..).map(|k| folder.join(format!("test_data_set_{k}"))).take_while(|set| set.is_dir());
    let sets: Vec<PathBuf> = sets.collect();
    if sets.is_empty() {
        return Ok(Some("no test_data_set_0, nothing to compare with".into()));
    }
    for set in &sets {
        let (graph, inputs) = read(&model, set)?;
        if let Some(wrong) = run_set(&graph, &inputs, &tensors(set, "output")?)? {
            return Ok(Some(wrong));
        }
    }
    Ok(None)
}

/// Tensors of a data set, with their names.
type Named = Vec<(String, Tensor)>;

/// The model's graph and the inputs of a data set. Many cases feed shapes, axes and pads as inputs, which a plan has to
/// know: where the model is refused as it is, the inputs after the first are made constants.
fn read(model: &[u8], set: &Path) -> Result<(Graph, Named)> {
    let refusal = match onnx::read(model) {
        Ok(model) => return Ok((model.graph, tensors(set, "input")?)),
        Err(refusal) => refusal,
    };
    let Ok(inputs) = tensors(set, "input") else { return Err(refusal) };
    if inputs.len() < 2 {
        return Err(refusal);
    }
    let known: Vec<_> = inputs.iter().skip(1).map(|(name, tensor)| (&name[..], tensor)).collect();
    Ok((onnx::read_with(model, &known)?.graph, inputs))
}

fn run_set(graph: &Graph, inputs: &Named, outputs: &Named) -> Result<Option<String>> {
    let mut fed = Vec::new();
    for &id in &graph.inputs {
        let name = &graph.value(id).name;
        let tensor = inputs.iter().find(|(input, _)| input == name).map(|(_, tensor)| tensor);
        fed.push(tensor.ok_or_else(|| Refusal::new("case", format!("a value for `{name}`"), "none", "repair it"))?);
    }
    let batch = graph.inputs.iter().zip(&fed).find_map(|(&id, x)| {
        let at = graph.value(id).shape.0.iter().position(|dim| *dim == Dim::Batch)?;
        x.shape().get(at).copied()
    });
    let mut engine = Engine::new(graph, batch.unwrap_or(1))?;
    for (i, x) in fed.into_iter().enumerate() {
        let ty = &engine.inputs()[i];
        if ty.element != x.element() || ty.shape != x.shape() {
            let found = format!("{} {:?}", x.element(), x.shape());
            return Err(Refusal::new("input", format!("{} {:?}", ty.element, ty.shape), found, "use a fixed shape"));
        }
        engine.input_mut(i).data.copy_from(x.view().data);
    }
    engine.run()?;
    if engine.outputs().len() != outputs.len() {
        return Ok(Some(format!("{} outputs, expected {}", engine.outputs().len(), outputs.len())));
    }
    for (i, (_, expected)) in outputs.iter().enumerate() {
        let found = engine.output(i);
        if found.shape != expected.shape() {
            return Ok(Some(format!("output {i} has shape {:?}, expected {:?}", found.shape, expected.shape())));
        }
        if let Some(wrong) = compare(found.data, expected.data().view()) {
            return Ok(Some(format!("output {i}: {wrong}")));
        }
    }
    Ok(None)
}

/// The tensors `KIND_0.pb`, `KIND_1.pb`, … of a data set.
fn tensors(set: &Path, kind: &str) -> Result<Named> {
    let paths = (0..).map(|i| set.join(format!("{kind}_{i}.pb"))).take_while(|path| path.is_file());
    paths.map(|path| onnx::read_tensor(&files::read(&path)?)).collect()
}

/// ONNX's own tolerance for these tests: relative 1e-3 and absolute 1e-7 (here 1e-6, for sums in another order).
fn compare(found: Slice<'_>, expected: Slice<'_>) -> Option<String> {
    match (found, expected) {
        (Slice::F32(a), Slice::F32(b)) => {
            let near =
                |(x, y): (&f32, &f32)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-6 + 1e-3 * y.abs();
            let at = a.iter().zip(b).position(|pair| !near(pair))?;
            Some(format!("element {at} is {}, expected {}", a[at], b[at]))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{} elements of {} differ from {} of {}", a.len(), a.element(), b.len(), b.element())),
    }
}

/// What a case may be refused for: a piece of the refusal, and the reason in words.
const REASONS: &[(&str, &str)] = &[
    ("elements of f32", "element types that are not kd's"),
    ("a cast to f32", "element types that are not kd's"),
    ("output_dtype u8 or i8", "element types that are not kd's"),
    ("expected layout 0", "batch-first recurrent layers"),
    ("without sequence_lens", "sequences of several lengths"),
    ("without peepholes", "peepholes"),
    ("f32 as input 0", "element types that are not kd's"),
    ("as input 1, found", "element types that are not kd's"),
    ("one exponent, if it is an integer", "integer exponents of several elements"),
    ("a scale of shape", "a scale broadcast over the normalized axes"),
    ("upsampling to the nearest element", "resizing other than upsampling by whole numbers"),
    ("an optional", "optional values"),
    ("training_mode", "training mode"),
    ("expected opset 7 to", "opsets before 7"),
    // A size of 0 on the first axis is read as the batch, as exporters mean it.
    ("found [3, 4, 0]", "an input without elements"),
    ("whose sum is 61, found [0, 0, 0]", "an input without elements"),
];

/// The reason for a refusal in words; `None` if it is none that holds.
pub fn reason(refusal: &str) -> Option<&'static str> {
    REASONS.iter().find(|(piece, _)| refusal.contains(piece)).map(|(_, reason)| *reason)
}

/// Counts per operator: passed, refused, wrong.
pub type Counts = BTreeMap<String, [usize; 3]>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_case_without_a_data_set_does_not_pass() {
        let scratch = Scratch::new("node-test").unwrap();
        let folder = scratch.path().to_path_buf();
        std::fs::write(folder.join("model.onnx"), "").unwrap();
        let outcome = run(&Case { name: "empty".into(), operator: "Add".into(), folder });
        assert_eq!(outcome, Outcome::Wrong("no test_data_set_0, nothing to compare with".into()));
    }
}
