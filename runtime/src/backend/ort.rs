//! `ort`: ONNX Runtime, loaded at run time, always in its exact mode. Without `session.x64quantprecision` its default
//! kernels of u8 by s8 saturate silently on x86 without VNNI.

use std::path::Path;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, TensorElementType, ValueType};

use super::{Backend, Options, check_input, library};
use crate::error::{Exit, Refusal, Result};
use crate::graph::{ElementType, Slice, Tensor, TensorView};
use crate::ops::TensorType;

struct OnnxRuntime {
    session: Session,
    input_names: Vec<String>,
    inputs: Vec<TensorType>,
    output_names: Vec<String>,
    fed: Vec<Option<DynValue>>,
    computed: Vec<DynValue>,
}

/// Loads a model into a session.
pub(super) fn open(model: &[u8], batch: usize, options: &Options) -> Result<Box<dyn Backend>> {
    let environment = environment(options.ort_lib.as_deref())?;
    let session = session(&environment, model, options.threads).map_err(|e| refuse("load the model", &e))?;
    let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|outlet| outlet.name().to_string()).collect();
    let (input_names, output_names): (Vec<String>, _) = (names(session.inputs()), names(session.outputs()));
    let inputs = session.inputs().iter().map(|outlet| input_type(outlet, batch)).collect::<Result<Vec<_>>>()?;
    let fed = inputs.iter().map(|_| None).collect();
    Ok(Box::new(OnnxRuntime { session, input_names, inputs, output_names, fed, computed: Vec::new() }))
}

/// The process's one environment; the library that was loaded first stays.
fn environment(flag: Option<&Path>) -> Result<Environment> {
    static LOADED: OnceLock<Result<Environment>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let path = library::find(flag)?;
        let lacking = |found: String| {
            let action = "take version 1.17 or newer, or name another with --ort-lib";
            Refusal::new(path.display(), "ONNX Runtime's library", found, action).with_exit(Exit::Lacking)
        };
        let builder = ort::init_from(&path).map_err(|e| lacking(e.to_string()))?;
        builder.with_name("kd").with_telemetry(false).build().map_err(|e| lacking(e.to_string()))
    });
    loaded.clone()
}

fn session(environment: &Environment, model: &[u8], threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_precise_qmm()?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_log_level(LogLevel::Fatal)?
        .commit_from_memory(model)
}

fn input_type(outlet: &ort::value::Outlet, batch: usize) -> Result<TensorType> {
    let refuse = |expected: &str, found: String| {
        Err(Refusal::new(format!("input `{}`", outlet.name()), expected, found, "give the model fixed sizes"))
    };
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return refuse("a tensor", outlet.dtype().to_string());
    };
    let Some(element) = element_of(*ty) else { return refuse("f32, u8, i8, i32, i64 or bool", ty.to_string()) };
    let sizes: Option<Vec<usize>> = (shape.iter().enumerate())
        .map(|(i, &size)| if i == 0 && size < 0 { Some(batch) } else { usize::try_from(size).ok() })
        .collect();
    match sizes {
        Some(shape) => Ok(TensorType { element, shape }),
        None => refuse("no open size but the first", format!("{:?}", &shape[..])),
    }
}

fn element_of(ty: TensorElementType) -> Option<ElementType> {
    Some(match ty {
        TensorElementType::Float32 => ElementType::F32,
        TensorElementType::Uint8 => ElementType::U8,
        TensorElementType::Int8 => ElementType::I8,
        TensorElementType::Int32 => ElementType::I32,
        TensorElementType::Int64 => ElementType::I64,
        TensorElementType::Bool => ElementType::Bool,
        _ => return None,
    })
}

fn refuse(doing: &str, error: &ort::Error) -> Refusal {
    let found = format!("`{}`", error.message().lines().next().unwrap_or_default());
    Refusal::new("backend ort", format!("ONNX Runtime to {doing}"), found, "try --backend native, or repair the model")
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        "ort"
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
        macro_rules! value {
            ($v:expr) => {
                ort::value::Tensor::from_array((x.shape.to_vec(), $v.to_vec())).map(|tensor| tensor.into_dyn())
            };
        }
        let value = match x.data {
            Slice::F32(v) => value!(v),
            Slice::U8(v) => value!(v),
            Slice::I8(v) => value!(v),
            Slice::I32(v) => value!(v),
            Slice::I64(v) => value!(v),
            Slice::Bool(v) => value!(v),
        };
        let value = value.map_err(|e| refuse("take the input", &e))?;
        if let Some(slot) = self.fed.get_mut(i) {
            *slot = Some(value);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.fed.len());
        for (name, value) in self.input_names.iter().zip(&self.fed) {
            let value = value.as_ref().ok_or_else(|| {
                Refusal::new(format!("input `{name}`"), "to be fed before a run", "nothing", "feed every input")
            })?;
            inputs.push((name.as_str(), ort::session::SessionInputValue::from(value)));
        }
        let outputs = self.session.run(inputs).map_err(|e| refuse("run the model", &e))?;
        self.computed.clear();
        self.computed.extend(outputs.into_iter().map(|(_, value)| value));
        Ok(())
    }

    fn output(&self, i: usize) -> Result<Tensor> {
        let none = || Refusal::new(format!("output {i}"), "a tensor", "none", "run the model first");
        let value = self.computed.get(i).ok_or_else(none)?;
        let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(none()) };
        macro_rules! tensor {
            ($t:ty) => {{
                let (shape, data) = value.try_extract_tensor::<$t>().map_err(|e| refuse("give its output", &e))?;
                let shape: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
                Tensor::from_vec(&shape, data.to_vec())
            }};
        }
        Ok(match element_of(*ty) {
            Some(ElementType::F32) => tensor!(f32),
            Some(ElementType::U8) => tensor!(u8),
            Some(ElementType::I8) => tensor!(i8),
            Some(ElementType::I32) => tensor!(i32),
            Some(ElementType::I64) => tensor!(i64),
            Some(ElementType::Bool) => tensor!(bool),
            None => return Err(none()),
        })
    }

    fn counts_allocations(&self) -> bool {
        false
    }
}
