//! `candle`: candle-onnx, which walks the file's nodes on every run; float models only, since it knows no Q/DQ.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device};
use candle_onnx::onnx::{GraphProto, ModelProto, tensor_shape_proto::dimension, type_proto};
use prost::Message;

use super::{Backend, Options, check_input};
use crate::error::{Refusal, Result};
use crate::graph::{ElementType, Slice, Tensor, TensorView};
use crate::onnx::messages::element_type;
use crate::ops::TensorType;

struct Candle {
    model: ModelProto,
    input_names: Vec<String>,
    inputs: Vec<TensorType>,
    output_names: Vec<String>,
    fed: HashMap<String, candle_core::Tensor>,
    computed: HashMap<String, candle_core::Tensor>,
}

/// Parses a model. Whether candle-onnx knows its operators shows in the first run.
pub(super) fn open(model: &[u8], batch: usize, options: &Options) -> Result<Box<dyn Backend>> {
    if options.threads != 1 {
        return Err(Refusal::new("--threads", "1 with candle", options.threads, "leave --threads out"));
    }
    let model = ModelProto::decode(model)
        .map_err(|e| Refusal::new("backend candle", "an ONNX model", e, "repair the model"))?;
    let graph = model.graph.as_ref();
    let graph = graph.ok_or_else(|| Refusal::new("backend candle", "a graph", "none", "repair the model"))?;
    if let Some(node) =
        graph.node.iter().find(|node| node.op_type.contains("QuantizeLinear") || node.op_type.starts_with("QLinear"))
    {
        let found = format!("node `{}` ({})", node.name, node.op_type);
        let action = "give it the float model, or use --backend native";
        return Err(Refusal::new("backend candle", "a float model: candle-onnx knows no Q/DQ", found, action));
    }
    let (input_names, inputs) = inputs_of(graph, batch)?;
    let output_names = graph.output.iter().map(|output| output.name.clone()).collect();
    let (fed, computed) = (HashMap::new(), HashMap::new());
    Ok(Box::new(Candle { model, input_names, inputs, output_names, fed, computed }))
}

fn inputs_of(graph: &GraphProto, batch: usize) -> Result<(Vec<String>, Vec<TensorType>)> {
    let constants: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut names = Vec::new();
    let mut types = Vec::new();
    for input in graph.input.iter().filter(|input| !constants.contains(input.name.as_str())) {
        let refuse = |expected: &str| {
            Refusal::new(format!("input `{}`", input.name), expected, "another", "give the model fixed sizes")
        };
        let Some(type_proto::Value::TensorType(ty)) = input.r#type.as_ref().and_then(|ty| ty.value.as_ref()) else {
            return Err(refuse("a tensor"));
        };
        let element = element_type(i64::from(ty.elem_type)).ok_or_else(|| refuse("f32, u8, i32 or i64"))?;
        let dims = ty.shape.as_ref().map(|shape| &shape.dim[..]).unwrap_or_default();
        let shape: Option<Vec<usize>> = (dims.iter().enumerate())
            .map(|(i, dim)| match dim.value {
                Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
                _ => (i == 0).then_some(batch),
            })
            .collect();
        names.push(input.name.clone());
        types.push(TensorType { element, shape: shape.ok_or_else(|| refuse("no open size but the first"))? });
    }
    Ok((names, types))
}

fn refuse(error: &candle_core::Error) -> Refusal {
    let text = error.to_string();
    // The name of the operator is enough; candle-onnx shows the whole node after it.
    let first = text.lines().next().unwrap_or_default().split(" for op NodeProto").next().unwrap_or_default();
    Refusal::new(
        "backend candle",
        "a model that candle-onnx can run",
        format!("`{first}`"),
        "use --backend native or ort",
    )
}

impl Backend for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn input_names(&self) -> &[String] {
        &self.input_names
    }

    fn inputs(&self) -> &[TensorType] {
        &self.inputs
    }

    fn output_names(&self) -> &[String] {
        &self.output_names
    }

    fn feed(&mut self, i: usize, x: TensorView<'_>) -> Result<()> {
        check_input(&self.inputs, i, x)?;
        let (shape, device) = (x.shape, &Device::Cpu);
        let tensor = match x.data {
            Slice::F32(v) => candle_core::Tensor::from_slice(v, shape, device),
            Slice::U8(v) => candle_core::Tensor::from_slice(v, shape, device),
            Slice::I32(v) => candle_core::Tensor::from_slice(v, shape, device),
            Slice::I64(v) => candle_core::Tensor::from_slice(v, shape, device),
            Slice::I8(_) | Slice::Bool(_) => {
                let at = format!("input {i}");
                return Err(Refusal::new(at, "f32, u8, i32 or i64 with candle", x.element(), "use --backend native"));
            }
        };
        let name = self.input_names.get(i).cloned().unwrap_or_default();
        self.fed.insert(name, tensor.map_err(|e| refuse(&e))?);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let fed = self.fed.clone();
        // candle-onnx indexes into attributes and shapes without checks, so a model it does not expect may panic.
        let result = quietly(|| candle_onnx::simple_eval(&self.model, fed));
        self.computed = result
            .map_err(|panic| {
                Refusal::new("backend candle", "a model that candle-onnx can run", panic, "use --backend native or ort")
            })?
            .map_err(|e| refuse(&e))?;
        Ok(())
    }

    fn output(&self, i: usize) -> Result<Tensor> {
        let none = || Refusal::new(format!("output {i}"), "a tensor", "none", "run the model first");
        let tensor = self.output_names.get(i).and_then(|name| self.computed.get(name)).ok_or_else(none)?;
        let shape = tensor.dims().to_vec();
        let flat = tensor.flatten_all().map_err(|e| refuse(&e))?;
        macro_rules! tensor {
            ($t:ty) => {
                Tensor::from_vec(&shape, flat.to_vec1::<$t>().map_err(|e| refuse(&e))?)
            };
        }
        Ok(match tensor.dtype() {
            DType::F32 => tensor!(f32),
            DType::U8 => tensor!(u8),
            DType::I32 => tensor!(i32),
            DType::I64 => tensor!(i64),
            other => {
                return Err(Refusal::new(
                    format!("output {i}"),
                    ElementType::F32,
                    format!("{other:?}"),
                    "use --backend native",
                ));
            }
        })
    }
}

/// Runs `f` and turns a panic into its message, printing nothing.
fn quietly<T>(f: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(f));
    std::panic::set_hook(hook);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("a panic: `{}`", text.unwrap_or("no message").lines().next().unwrap_or_default())
    })
}
