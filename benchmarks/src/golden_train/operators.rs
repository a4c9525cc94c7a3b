//! Operators: value and gradients of a network of one operator, for given inputs and a given gradient of the output.

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor};
use kd_runtime::ops::{self, Op, window::Window};
use kd_trainer::exec::{Executor, Mode, Plan, Real};
use kd_trainer::ops::dropout as drop;

use super::{Array, Case, Failure, Outcome, compare};

/// What the network gave.
pub struct Found<T> {
    pub y: Vec<T>,
    pub gradients: Vec<Vec<T>>,
    /// Running statistics after the pass.
    running: Option<[Vec<T>; 2]>,
}

/// Runs an operator in the executor: `inputs` are float arrays with gradients, then come f32 scalars that are constants.
/// The first input is made of a parameter by a product with the identity, which is exact, so that it has a gradient and
/// the batch is its first size.
pub fn run<T: Real>(op: &Op, inputs: &[&Array], scalars: &[f32], d_y: &Array, mode: Mode) -> Result<Found<T>, Failure> {
    let told = |refusal: kd_runtime::Refusal| refusal.to_string();
    let &n = inputs[0].shape.first().ok_or("a first input without a batch")?;
    let mut graph = Graph::new("one operator");
    let identity = graph.add_input("identity", ElementType::F32, Shape(vec![Dim::Batch, Dim::Known(n)]));
    let mut ids = Vec::new();
    for (i, array) in inputs.iter().enumerate() {
        let name = i.to_string();
        // So has the second factor of a product whose matrices are those of the batch.
        let as_first = array.shape.len() == inputs[0].shape.len() && array.shape[0] == n;
        let of_batch = i == 0 || (matches!(op, Op::MatMul(_)) && array.shape.len() > 2 && as_first);
        if !of_batch {
            ids.push(graph.add_initializer(&name, Tensor::zeros(ElementType::F32, &array.shape)));
            continue;
        }
        let rest = &array.shape[1..];
        let own = graph.add_initializer(&name, Tensor::zeros(ElementType::F32, &[n, rest.iter().product()]));
        let rows = graph.apply(ops::gemm::MatMul, &[identity, own], &format!("rows{i}"));
        let sizes: Vec<i64> = std::iter::once(0).chain(rest.iter().map(|&size| size as i64)).collect();
        let sizes = graph.add_initializer(&format!("sizes{i}"), Tensor::from_vec(&[sizes.len()], sizes));
        ids.push(graph.apply(ops::reshape::Reshape { allowzero: false }, &[rows, sizes], &format!("x{i}")));
    }
    ids.extend(
        scalars.iter().enumerate().map(|(i, &v)| graph.add_initializer(&format!("scalar{i}"), Tensor::scalar(v))),
    );
    let y = graph.apply(op.clone(), &ids, "y");
    graph.outputs = vec![y];
    graph.validate().map_err(told)?;
    let plan = Plan { batch: n, taps: Vec::new(), backward: true, threads: 2, gpu: None };
    let mut executor = Executor::<T>::new(&graph, &plan).map_err(told)?;
    for (i, array) in inputs.iter().enumerate() {
        let parameter = executor.parameters_mut().iter_mut().find(|p| p.name == i.to_string());
        parameter.ok_or_else(|| format!("input {i} is no parameter"))?.value = array.cast().into();
    }
    let one = |i: usize| if i.is_multiple_of(n + 1) { T::ONE } else { T::ZERO };
    let identity: Vec<T> = (0..n * n).map(one).collect();
    executor.forward(&identity, n, mode).map_err(told)?;
    let tap = executor.tap("y").map_err(told)?;
    let y = executor.value(tap).to_vec();
    executor.backward(&[(tap, &d_y.cast::<T>())]).map_err(told)?;
    let parameter = |i: usize| executor.parameters().iter().find(|p| p.name == i.to_string());
    let value = |i: usize| parameter(i).map(|p| p.value.to_vec());
    let running = if matches!(op, Op::BatchNormalization(_)) { value(3).zip(value(4)) } else { None };
    let gradient =
        |i: usize| parameter(i).map(|p| p.gradient.to_vec()).ok_or_else(|| format!("input {i} is no parameter"));
    let gradients = (0..inputs.len()).map(gradient).collect::<Result<_, _>>()?;
    Ok(Found { y, gradients, running: running.map(|(mean, var)| [mean, var]) })
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
        check_as::<f32>(case, &run(&op, inputs, scalars, case.get("dy")?, mode)?, gradients, tolerance.max(2e-6))
    } else {
        check_as::<f64>(case, &run(&op, inputs, scalars, case.get("dy")?, mode)?, gradients, tolerance)
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

pub fn conv_transpose(case: &Case) -> Result<Outcome, Failure> {
    let op = ops::conv_transpose::ConvTranspose {
        window: window(case),
        group: case.number("groups")? as usize,
        output_padding: case.sizes("output_padding"),
        output_shape: Vec::new(),
    };
    check(case, op, &[case.get("x")?, case.get("w")?, case.get("bias")?], &[], &["dx", "dw", "dbias"], EXACT)
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

pub fn layer_norm(case: &Case) -> Result<Outcome, Failure> {
    let axes = case.sizes("normalized_shape");
    // Epsilon is an f32 attribute: 1e-5 is off by 2.5e-8 of it, of which its part of the variance is left.
    let op = ops::layer_norm::LayerNormalization { axis: -(axes.len() as i64), epsilon: case.number("eps")? as f32 };
    let ones = Array { values: vec![1.0; axes.iter().product()], shape: axes };
    let inputs: Vec<&Array> = match (case.optional("gamma"), case.optional("beta")) {
        (Some(gamma), Some(beta)) => vec![case.get("x")?, gamma, beta],
        _ => vec![case.get("x")?, &ones],
    };
    let names: &[&str] = if inputs.len() == 3 { &["dx", "dgamma", "dbeta"] } else { &["dx"] };
    check(case, op, &inputs, &[], names, 1e-9)
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
    let whole = case.sizes("output").iter().all(|&n| n == 1);
    match (case.text("kind"), whole) {
        ("avg", true) => check(case, ops::pool::GlobalAveragePool, &[case.get("x")?], &[], &["dx"], EXACT),
        ("max", true) => check(case, ops::pool::GlobalMaxPool, &[case.get("x")?], &[], &["dx"], EXACT),
        ("avg", false) => super::graphs::adaptive_average(case),
        ("max", false) => super::graphs::adaptive_max(case),
        (other, _) => Err(format!("unknown kind `{other}`")),
    }
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
        "elu" => (ops::activation::Elu { alpha: 1.0 }.into(), EXACT),
        "gelu" => (ops::activation::Gelu { tanh: false }.into(), EXACT),
        "gelu_tanh" => (ops::activation::Gelu { tanh: true }.into(), EXACT),
        // Alpha is an f32 attribute: 1/6 is off by 5e-9.
        "hardsigmoid" => (ops::activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }.into(), 1e-7),
        "hardswish" => (ops::activation::HardSwish.into(), EXACT),
        "silu" => return super::graphs::silu(case),
        "softplus" => (ops::activation::Softplus.into(), EXACT),
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
