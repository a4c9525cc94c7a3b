//! Values and gradients of the trainer against those of torch: `golden/train` (primitives) and `golden/distill` (losses).
//!
//! Each file holds cases of one primitive: tensors `caseN.NAME` and hyper-parameters as JSON. f64 cases are computed in
//! f64, f32 cases in f32. What the trainer does not have yet is listed, not skipped in silence.

mod distill;
mod features;
mod graphs;
mod losses;
mod operators;
mod optimizers;
mod relations;

use std::collections::BTreeMap;
use std::path::Path;

use kd_trainer::exec::Real;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// How a case compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Equal; the largest deviation, relative to the largest element of its tensor.
    Equal(f64),
    /// The trainer does not have it.
    NotBuilt(String),
    /// Different, or unreadable.
    Differs(String),
}

/// A tensor of a case; integers as floats (they are small).
#[derive(Clone, Debug, Default)]
pub struct Array {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Vec<f64>,
}

impl Array {
    /// The elements in the precision of the case.
    pub fn cast<T: Real>(&self) -> Vec<T> {
        self.values.iter().map(|&v| T::from_f64(v)).collect()
    }
}

/// One case.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Hyper-parameters.
    pub hyper: Value,
    tensors: BTreeMap<String, Array>,
}

/// What went wrong, on one line.
pub type Failure = String;

impl Case {
    /// A tensor that must be there.
    pub fn get(&self, name: &str) -> Result<&Array, Failure> {
        self.tensors.get(name).ok_or_else(|| format!("no tensor `{name}` in the case"))
    }

    /// A tensor that may be there.
    pub fn optional(&self, name: &str) -> Option<&Array> {
        self.tensors.get(name)
    }

    /// A hyper-parameter as text; empty if it is none.
    pub fn text(&self, key: &str) -> &str {
        self.hyper[key].as_str().unwrap_or_default()
    }

    /// A hyper-parameter as a number.
    pub fn number(&self, key: &str) -> Result<f64, Failure> {
        self.hyper[key].as_f64().ok_or_else(|| format!("no number `{key}` in the case"))
    }

    /// A hyper-parameter as sizes; empty if it is none.
    pub fn sizes(&self, key: &str) -> Vec<usize> {
        let list = self.hyper[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_u64).map(|n| n as usize).collect()
    }

    /// Whether a hyper-parameter is true (or a number other than 0).
    pub fn flag(&self, key: &str) -> bool {
        self.hyper[key].as_bool().unwrap_or_else(|| self.hyper[key].as_f64().is_some_and(|x| x != 0.0))
    }

    /// Whether the case is computed in f32.
    pub fn is_f32(&self) -> bool {
        self.text("dtype") == "f32"
    }
}

/// Compares `found` with a tensor of the case; gives the deviation relative to its largest element, an error above
/// `tolerance` (and above 1e-12 in absolute terms).
pub fn compare<T: Real>(case: &Case, name: &str, found: &[T], tolerance: f64) -> Result<f64, Failure> {
    let expected = case.get(name)?;
    if expected.values.len() != found.len() {
        return Err(format!("{name}: expected {} elements, found {}", expected.values.len(), found.len()));
    }
    let scale = expected.values.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
    let mut worst = 0.0_f64;
    for (i, (e, f)) in expected.values.iter().zip(found).enumerate() {
        let off = (e - f.to_f64()).abs();
        if off.is_nan() || off > tolerance * scale + 1e-12 {
            return Err(format!(
                "{name}[{i}]: expected {e}, found {f:?} (largest {scale:.3}, tolerance {tolerance:.0e})"
            ));
        }
        worst = worst.max(if scale > 0.0 { off / scale } else { off });
    }
    Ok(worst)
}

/// Reads the cases of a file. Distillation files list them in one JSON array, training files one by one.
pub fn read(path: &Path) -> Result<Vec<Case>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let notes = header.metadata().clone().unwrap_or_default();
    let cases: Value =
        serde_json::from_str(notes.get("cases").map_or("0", String::as_str)).map_err(|e| e.to_string())?;
    let mut read: Vec<Case> = match cases.as_array() {
        Some(list) => list.iter().map(|hyper| Case { hyper: hyper.clone(), ..Case::default() }).collect(),
        None => (0..cases.as_u64().unwrap_or(0))
            .map(|i| {
                let text = notes.get(&format!("case{i}")).map_or("null", String::as_str);
                Ok(Case { hyper: serde_json::from_str(text).map_err(|e| e.to_string())?, ..Case::default() })
            })
            .collect::<Result<_, Failure>>()?,
    };
    for (name, view) in file.tensors() {
        let (case, tensor) = name.split_once('.').ok_or_else(|| format!("tensor `{name}` of no case"))?;
        let index: usize =
            case.trim_start_matches("case").parse().map_err(|_| format!("tensor `{name}` of no case"))?;
        let case = read.get_mut(index).ok_or_else(|| format!("tensor `{name}` of no case"))?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
            other => return Err(format!("tensor `{name}` of type {other:?}")),
        };
        case.tensors.insert(tensor.to_string(), Array { shape: view.shape().to_vec(), values });
    }
    Ok(read)
}

/// Compares one case; gives the largest deviation. `Ok(None)` would be silent: what is not built says so.
type Run = fn(&Case) -> Result<Outcome, Failure>;

/// The files that this compares, and by what.
const FILES: &[(&str, Run)] = &[
    ("train/activations", operators::activation),
    ("train/adaptive_pool", operators::adaptive_pool),
    ("train/attention", graphs::attention),
    ("train/avg_pool", operators::avg_pool),
    ("train/batch_norm", operators::batch_norm),
    ("train/conv1d", operators::conv),
    ("train/conv2d", operators::conv),
    ("train/conv_transpose2d", operators::conv_transpose),
    ("train/cross_entropy", losses::cross_entropy),
    ("train/dropout", operators::dropout),
    ("train/ema", optimizers::average),
    ("train/embedding", graphs::embedding),
    ("train/grad_clip", optimizers::grad_clip),
    ("train/gru", graphs::gru),
    ("train/layer_norm", operators::layer_norm),
    ("train/linear", operators::linear),
    ("train/lstm", graphs::lstm),
    ("train/max_pool", operators::max_pool),
    ("train/optimisers", optimizers::optimizer),
    ("train/schedules", optimizers::schedule),
    ("train/softmax", operators::softmax),
    ("distill/dot", optimizers::dot),
    ("distill/ab", features::ab),
    ("distill/ab_official", features::ab_official),
    ("distill/at", features::at),
    ("distill/cosine", features::cosine),
    ("distill/fsp", features::fsp),
    ("distill/ft", features::ft),
    ("distill/hint", features::hint),
    ("distill/minilm", features::minilm),
    ("distill/nst", features::nst),
    ("distill/ofd", features::ofd),
    ("distill/reviewkd_hcl", features::reviewkd_hcl),
    ("distill/softdtw", features::softdtw),
    ("distill/tinybert", features::tinybert),
    ("distill/vid", features::vid),
];

/// A distillation loss computed in f64 and in f32.
macro_rules! both {
    ($file:literal, $loss:path) => {
        ($file, |case| distill::in_f64(case, $loss), |case| distill::in_f32(case, $loss))
    };
}

/// The files of distillation losses.
const DISTILL: &[(&str, Run, Run)] = &[
    both!("distill/byot", distill::byot),
    both!("distill/cc", relations::cc),
    both!("distill/cc_paper", relations::cc_paper),
    both!("distill/codistill", distill::codistill),
    both!("distill/crd", relations::crd),
    both!("distill/dist", distill::dist),
    both!("distill/dkd", distill::dkd),
    both!("distill/ensemble_kd", distill::ensemble_kd),
    both!("distill/kd", distill::kd),
    both!("distill/kd_total", distill::kd_total),
    both!("distill/label_smoothing", distill::label_smoothing),
    both!("distill/logit_std_kd", distill::logit_std_kd),
    both!("distill/mlkd_align", distill::mlkd),
    both!("distill/mse_logits", distill::mse_logits),
    both!("distill/nkd", distill::nkd),
    both!("distill/ofa", distill::ofa),
    both!("distill/pkt", relations::pkt),
    both!("distill/rkd", relations::rkd),
    both!("distill/rkd_a", relations::rkd_a),
    both!("distill/rkd_d", relations::rkd_d),
    both!("distill/sp", relations::sp),
    both!("distill/srrl", distill::srrl),
    both!("distill/tfkd_reg", distill::tf_kd),
    both!("distill/wsld", distill::wsld),
];

/// Compares every case of every file below `golden` (which holds `train` and `distill`); a line's name and outcome each.
pub fn run(golden: &Path) -> Vec<(String, Outcome)> {
    let mut lines = Vec::new();
    for folder in ["train", "distill"] {
        let Ok(entries) = std::fs::read_dir(golden.join(folder)) else { continue };
        let mut stems: Vec<String> = (entries.flatten().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "safetensors"))
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        stems.sort();
        for stem in stems {
            let name = format!("{folder}/{stem}");
            let cases = match read(&golden.join(format!("{name}.safetensors"))) {
                Ok(cases) => cases,
                Err(error) => {
                    lines.push((name, Outcome::Differs(error)));
                    continue;
                }
            };
            let alone = FILES.iter().filter(|row| row.0 == name).map(|row| (row.1, ""));
            let twice = DISTILL.iter().filter(|row| row.0 == name).flat_map(|row| [(row.1, ""), (row.2, " in f32")]);
            let runs: Vec<(Run, &str)> = alone.chain(twice).collect();
            if runs.is_empty() {
                lines.push((name, Outcome::NotBuilt(format!("{} cases", cases.len()))));
                continue;
            }
            for (i, case) in cases.iter().enumerate() {
                let all = runs.iter().map(|(run, suffix)| (format!("{name}/{i}{suffix}"), run(case)));
                lines.extend(all.map(|(line, outcome)| (line, outcome.unwrap_or_else(Outcome::Differs))));
            }
        }
    }
    lines
}
