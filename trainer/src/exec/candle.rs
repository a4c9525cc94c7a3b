//! candle at the edges: parameters as candle tensors for safetensors checkpoints, and small losses written in candle.
//!
//! Of candle 0.11.1's gradients only some are right: 1-D convolution, max-pool, the fused softmax and layer norm are
//! wrong or missing without a word. A composed loss uses element-wise operators, sums, means, `matmul` of contiguous
//! matrices, `log_softmax` and alike, and is checked by central differences; a missing gradient is an error here.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use kd_runtime::{Refusal, Result};

use super::Parameter;

fn refused(at: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(at, "tensors that candle takes", error, "check the file")
}

/// The parameters as tensors, by name; statistics too.
pub fn to_tensors(parameters: &[Parameter<f32>]) -> Result<HashMap<String, Tensor>> {
    (parameters.iter())
        .map(|p| {
            let tensor = Tensor::from_slice(&p.value, p.shape.as_slice(), &Device::Cpu);
            Ok((p.name.clone(), tensor.map_err(|error| refused(&p.name, error))?))
        })
        .collect()
}

/// Takes the parameters' values from tensors of the same names and shapes; all or none.
pub fn from_tensors(parameters: &mut [Parameter<f32>], tensors: &HashMap<String, Tensor>) -> Result<()> {
    let mut values = Vec::with_capacity(parameters.len());
    for p in parameters.iter() {
        let at = format!("parameter `{}`", p.name);
        let action = "use the checkpoint of this network";
        let tensor = tensors.get(&p.name);
        let tensor = tensor.ok_or_else(|| Refusal::new(&at, "a tensor of its name", "none", action))?;
        if tensor.dims() != p.shape || tensor.dtype() != DType::F32 {
            let found = format!("{:?} {:?}", tensor.dtype(), tensor.dims());
            return Err(Refusal::new(&at, format!("f32 {:?}", p.shape), found, action));
        }
        values.push(tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|error| refused(&at, error))?);
    }
    parameters.iter_mut().zip(values).for_each(|(p, value)| p.value.copy_from_slice(&value));
    Ok(())
}

/// Writes the parameters as safetensors. The caller renames: this writes `path` itself.
pub fn save(parameters: &[Parameter<f32>], path: &Path) -> Result<()> {
    let tensors = to_tensors(parameters)?;
    candle_core::safetensors::save(&tensors, path).map_err(|error| refused(&path.display().to_string(), error))
}

/// Reads the parameters from a safetensors file that [`save`] wrote.
pub fn load(parameters: &mut [Parameter<f32>], path: &Path) -> Result<()> {
    let at = path.display().to_string();
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).map_err(|error| refused(&at, error))?;
    from_tensors(parameters, &tensors).map_err(|refusal| refusal.within(at))
}

/// A tap for a composed loss: its elements and shape, batch included.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The shape.
    pub shape: &'a [usize],
}

/// Value and gradients (by the student's taps) of a loss written with candle tensors; nothing flows into the teacher's.
/// An error if the loss is no scalar or a student's tap has no gradient.
pub fn composed(
    student: &[Tap<'_>],
    teacher: &[Tap<'_>],
    d_student: &mut [&mut [f32]],
    loss: impl FnOnce(&[Tensor], &[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<f32> {
    let at = "composed loss";
    let wrap = |error: candle_core::Error| refused(at, error);
    let tensor = |tap: &Tap<'_>| Tensor::from_slice(tap.data, tap.shape, &Device::Cpu);
    let vars = student.iter().map(|tap| Var::from_tensor(&tensor(tap)?)).collect::<candle_core::Result<Vec<_>>>();
    let vars = vars.map_err(wrap)?;
    let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let fixed = teacher.iter().map(tensor).collect::<candle_core::Result<Vec<_>>>().map_err(wrap)?;
    let value = loss(&inputs, &fixed).map_err(wrap)?;
    let gradients = value.backward().map_err(wrap)?;
    for (i, (var, d)) in vars.iter().zip(d_student.iter_mut()).enumerate() {
        let gradient = gradients.get(var).ok_or_else(|| {
            let action = "use operators whose gradient candle has";
            Refusal::new(at, format!("a gradient of student tap {i}"), "none", action)
        })?;
        let found = gradient.flatten_all().and_then(|g| g.to_vec1::<f32>()).map_err(wrap)?;
        if found.len() != d.len() {
            return Err(Refusal::new(at, format!("{} floats", d.len()), found.len(), "give the tap's own shape"));
        }
        d.copy_from_slice(&found);
    }
    value.to_scalar::<f32>().map_err(wrap)
}
