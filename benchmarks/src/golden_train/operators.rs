//! Operators: value and gradients of a kernel for given inputs and a given gradient of the output.

use std::sync::Mutex;

use kd_runtime::graph::{ElementType, Tensor};
use kd_runtime::ops::{self, Input, Op, window::Window};
use kd_trainer::exec::{Mode, Parameter, Real, Role};
use kd_trainer::ops::{Context, Gradient, Inputs, Place, Port, Scratch, Site, dropout as drop, table};

use super::{Array, Case, Failure, Outcome, compare};

/// What a kernel gave.
struct Found<T> {
    y: Vec<T>,
    gradients: Vec<Vec<T>>,
    /// Running statistics after the pass, if it moved them.
    running: Option<[Vec<T>; 2]>,
}

/// Runs the kernel of an operator: `inputs` are float arrays with gradients, then come f32 scalars that are constants.
fn kernel<T: Real>(op: &Op, inputs: &[&Array], scalars: &[f32], d_y: &Array, mode: Mode) -> Result<Found<T>, Failure> {
    let told = |error: ops::OpError| format!("expected {}, found {}", error.expected, error.found);
    let constants: Vec<Tensor> = scalars.iter().map(|&v| Tensor::scalar(v)).collect();
    let statistic = |i: usize| i >= 3 && matches!(op, Op::BatchNormalization(_));
    let arrays = inputs.iter().map(|a| (&a.shape[..], None));
    let fixed = constants.iter().map(|t| (t.shape(), Some(t)));
    let known: Vec<Option<Input<'_>>> = (arrays.clone().chain(fixed.clone()))
        .map(|(shape, value)| Some(Input { element: ElementType::F32, shape, value }))
        .collect();
    let types = op.infer(&known).map_err(told)?;
    let ports: Vec<Option<Port<'_>>> = (arrays.chain(fixed).enumerate())
        .map(|(i, (shape, value))| Some(Port { shape, value, wanted: value.is_none() && !statistic(i) }))
        .collect();
    let site = Site { inputs: &ports, output: &types[0].shape };
    let mut kernel = table::build::<T>(op, &site).ok_or("no kernel")?.map_err(told)?;
    let parameters: Vec<Parameter<T>> = (inputs.iter())
        .map(|array| Parameter {
            name: String::new(),
            shape: array.shape.clone(),
            role: Role::Weight,
            value: array.cast(),
            gradient: Vec::new(),
        })
        .collect();
    let places: Vec<Place> = (0..parameters.len()).map(Place::Parameter).collect();
    let x = Inputs { places: &places, x: &[], parameters: &parameters, constants: &[], buffers: &[] };
    let size = kernel.scratch();
    let mut scratch = Scratch { shared: vec![T::ZERO; size.shared], lanes: vec![Mutex::new(vec![T::ZERO; size.lane])] };
    let mut context = Context { mode, node: 0, scratch: &mut scratch };
    let mut y = vec![T::ZERO; types[0].shape.iter().product()];
    if y.len() != d_y.values.len() {
        return Err(format!("expected {} outputs, found {}", d_y.values.len(), y.len()));
    }
    kernel.forward(&x, &mut y, &mut context);
    let running = kernel.statistics().map(|(mean, var, momentum)| {
        let moved = |old: &[T], batch: &[T]| -> Vec<T> {
            old.iter().zip(batch).map(|(&o, &b)| o * momentum + b * (T::ONE - momentum)).collect()
        };
        [moved(x.get(3), mean), moved(x.get(4), var)]
    });
    let mut gradients: Vec<Gradient<T>> = (ports.iter().zip(known))
        .map(|(port, input)| {
            let len = input.map_or(0, |input| input.shape.iter().product());
            let wanted = port.is_some_and(|port| port.wanted);
            // NaN shows what is not overwritten.
            Gradient { buffer: vec![T::from_f64(f64::NAN); len], len, wanted, add: false }
        })
        .collect();
    kernel.backward(&x, &y, &d_y.cast::<T>(), &mut gradients, &mut context);
    Ok(Found { y, gradients: gradients.into_iter().map(|g| g.buffer).collect(), running })
}

/// Runs a case in its precision: y, then the named gradients of the arrays in order.
fn check(
    case: &Case,
    op: impl Into<Op>,
    inputs: &[&Array],
    scalars: &[f32],
    gradients: &[&str],
    tolerance: f64,
) -> Result<Outcome, Failure> {
    let op = op.into();
    let mode = if case.text("mode") == "eval" { Mode::Eval } else { Mode::Train { seed: 0 } };
    if case.is_f32() {
        check_as::<f32>(case, &kernel(&op, inputs, scalars, case.get("dy")?, mode)?, gradients, tolerance.max(2e-6))
    } else {
        check_as::<f64>(case, &kernel(&op, inputs, scalars, case.get("dy")?, mode)?, gradients, tolerance)
    }
}

fn check_as<T: Real>(case: &Case, found: &Found<T>, names: &[&str], tolerance: f64) -> Result<Outcome, Failure> {
    let mut worst = compare(case, "y", &found.y, tolerance)?;
    for (name, gradient) in names.iter().zip(&found.gradients) {
        worst = worst.max(compare(case, name, gradient, tolerance)?);
    }
    if let Some([mean, var]) = &found.running {
        // The momentum is an f32 attribute: 0.9 is off by 2.4e-8.
        worst = worst.max(compare(case, "running_mean_after", mean, 1e-6)?);
        worst = worst.max(compare(case, "running_var_after", var, 1e-6)?);
    }
    Ok(Outcome::Equal(worst))
}

/// What the README asks of f64.
const EXACT: f64 = 1e-10;

fn window(case: &Case) -> Window {
    Window {
        kernel: case.sizes("kernel"),
        strides: case.sizes("stride"),
        pads: case.sizes("pads"),
        dilations: case.sizes("dilation"),
        ceil_mode: case.flag("ceil_mode"),
        ..Window::default()
    }
}

pub fn conv(case: &Case) -> Result<Outcome, Failure> {
    let op = ops::conv::Conv { window: window(case), group: case.number("groups")? as usize };
    let mut inputs = vec![case.get("x")?, case.get("w")?];
    inputs.extend(case.optional("bias"));
    check(case, op, &inputs, &[], &["dx", "dw", "dbias"], EXACT)
}

pub fn batch_norm(case: &Case) -> Result<Outcome, Failure> {
    let momentum = 1.0 - case.number("momentum")?;
    let op = ops::batch_norm::BatchNormalization { epsilon: case.number("eps")? as f32, momentum: momentum as f32 };
    let names = ["x", "gamma", "beta", "running_mean_before", "running_var_before"];
    let inputs = names.iter().map(|name| case.get(name)).collect::<Result<Vec<_>, _>>()?;
    // Gradients cancel in f32: the README allows 1e-4.
    let tolerance = if case.is_f32() { 1e-4 } else { EXACT };
    check(case, op, &inputs, &[], &["dx", "dgamma", "dbeta"], tolerance)
}

pub fn max_pool(case: &Case) -> Result<Outcome, Failure> {
    let op = ops::pool::MaxPool { window: window(case), storage_order: 0 };
    check(case, op, &[case.get("x")?], &[], &["dx"], EXACT)
}

pub fn avg_pool(case: &Case) -> Result<Outcome, Failure> {
    let op = ops::pool::AveragePool { window: window(case), count_include_pad: case.flag("count_include_pad") };
    check(case, op, &[case.get("x")?], &[], &["dx"], EXACT)
}

pub fn adaptive_pool(case: &Case) -> Result<Outcome, Failure> {
    if case.text("kind") != "avg" || case.sizes("output").iter().any(|&n| n != 1) {
        return Ok(Outcome::NotBuilt("adaptive pooling other than the mean of everything".into()));
    }
    check(case, ops::pool::GlobalAveragePool, &[case.get("x")?], &[], &["dx"], EXACT)
}

pub fn linear(case: &Case) -> Result<Outcome, Failure> {
    if case.text("mode") == "matmul" {
        return check(case, ops::gemm::MatMul, &[case.get("a")?, case.get("b")?], &[], &["da", "db"], EXACT);
    }
    // A linear layer over the last axis: its rows are those of a matrix.
    let x = case.get("x")?;
    let columns = x.shape.last().copied().unwrap_or(1);
    let rows = Array { shape: vec![x.values.len() / columns, columns], values: x.values.clone() };
    let mut inputs = vec![&rows, case.get("w")?];
    inputs.extend(case.optional("bias"));
    let op = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    check(case, op, &inputs, &[], &["dx", "dw", "dbias"], EXACT)
}

pub fn softmax(case: &Case) -> Result<Outcome, Failure> {
    let axis = case.number("axis")? as i64;
    let op: Op = match case.text("kind") {
        "softmax" => ops::softmax::Softmax { axis }.into(),
        "log_softmax" => ops::softmax::LogSoftmax { axis }.into(),
        other => return Err(format!("unknown kind `{other}`")),
    };
    check(case, op, &[case.get("x")?], &[], &["dx"], EXACT)
}

pub fn activation(case: &Case) -> Result<Outcome, Failure> {
    let (op, tolerance): (Op, f64) = match case.text("kind") {
        "relu" => (ops::relu::Relu.into(), EXACT),
        "sigmoid" => (ops::gate::Sigmoid.into(), EXACT),
        "tanh" => (ops::gate::Tanh.into(), EXACT),
        // Alpha is an f32 attribute: 0.01 is off by 2.2e-8.
        "leaky_relu" => (ops::relu::LeakyRelu { alpha: 0.01 }.into(), 1e-8),
        "relu6" => return relu6(case),
        other => return Ok(Outcome::NotBuilt(other.to_string())),
    };
    check(case, op, &[case.get("x")?], &[], &["dx"], tolerance)
}

/// `Clip` from 0 to 6. At its bounds it has the gradient of torch's `clamp` (1), this file that of `relu6` (0): those
/// elements are taken out of the comparison by giving them no gradient.
fn relu6(case: &Case) -> Result<Outcome, Failure> {
    let mut case = case.clone();
    let at_bound: Vec<bool> = case.get("x")?.values.iter().map(|&x| x == 0.0 || x == 6.0).collect();
    let d_y = case.tensors.get_mut("dy").ok_or("no tensor `dy`")?;
    d_y.values.iter_mut().zip(at_bound).filter(|(_, bound)| *bound).for_each(|(d, _)| *d = 0.0);
    check(&case, ops::relu::Clip, &[case.get("x")?], &[0.0, 6.0], &["dx"], EXACT)
}

pub fn dropout(case: &Case) -> Result<Outcome, Failure> {
    let ratio = case.number("p")? as f32;
    let mask = case.get("mask")?;
    let apply = |name: &str| {
        let mut values: Vec<f64> = case.get(name)?.cast();
        drop::apply(&mut values, ratio, |i| mask.values[i] != 0.0);
        Ok::<_, Failure>(values)
    };
    // The ratio is an f32: 0.9 is off by 2.4e-8, ten times that in 1 / (1 - ratio).
    let worst = compare(case, "y", &apply("x")?, 1e-6)?;
    Ok(Outcome::Equal(worst.max(compare(case, "dx", &apply("dy")?, 1e-6)?)))
}
