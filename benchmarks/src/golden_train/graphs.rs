//! Networks of several nodes: their weights have torch's layout, and the graph itself brings them into ONNX's, so that
//! gradients come back in torch's.

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::recurrent::{Direction, Recurrent};
use kd_runtime::ops::{self, Op};
use kd_trainer::exec::{Executor, Mode, Plan};

use super::{Array, Case, Failure, Outcome, compare};

/// A graph whose input is the identity matrix of the batch.
struct Net<'a> {
    case: &'a Case,
    graph: Graph,
    identity: ValueId,
    n: usize,
    made: usize,
}

impl<'a> Net<'a> {
    fn new(case: &'a Case, n: usize) -> Self {
        let mut graph = Graph::new("network");
        let identity = graph.add_input("identity", ElementType::F32, Shape(vec![Dim::Batch, Dim::Known(n)]));
        Self { case, graph, identity, n, made: 0 }
    }

    fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.made += 1;
        self.graph.apply(op, inputs, &format!("value{}", self.made))
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        self.made += 1;
        let tensor = Tensor::from_vec(&[values.len()], values.to_vec());
        self.graph.add_initializer(&format!("ints{}", self.made), tensor)
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.made += 1;
        self.graph.add_initializer(&format!("scalar{}", self.made), Tensor::scalar(value))
    }

    /// A tensor of the case as an initializer of its name.
    fn parameter(&mut self, name: &str) -> Result<ValueId, Failure> {
        let zeros = Tensor::zeros(ElementType::F32, &self.case.get(name)?.shape);
        Ok(self.graph.add_initializer(name, zeros))
    }

    /// A tensor of the case with its batch first, made of a parameter by a product with the identity, which is exact.
    fn batched(&mut self, name: &str) -> Result<ValueId, Failure> {
        let shape = &self.case.get(name)?.shape;
        let rest = shape.get(1..).ok_or_else(|| format!("{name} is a scalar"))?.to_vec();
        let zeros = Tensor::zeros(ElementType::F32, &[self.n, rest.iter().product()]);
        let own = self.graph.add_initializer(name, zeros);
        let rows = self.apply(ops::gemm::MatMul, &[self.identity, own]);
        Ok(self.reshape(rows, &rest))
    }

    fn reshape(&mut self, x: ValueId, rest: &[usize]) -> ValueId {
        let sizes: Vec<i64> = std::iter::once(0).chain(rest.iter().map(|&size| size as i64)).collect();
        let sizes = self.ints(&sizes);
        self.apply(ops::reshape::Reshape { allowzero: false }, &[x, sizes])
    }

    fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        self.apply(ops::transpose::Transpose { perm: perm.to_vec() }, &[x])
    }

    fn slice(&mut self, x: ValueId, axis: i64, from: usize, to: usize) -> ValueId {
        let inputs = [x, self.ints(&[from as i64]), self.ints(&[to as i64]), self.ints(&[axis])];
        self.apply(ops::slice::Slice, &inputs)
    }

    /// Runs the network; compares values and then the gradients of all parameters that the case has one of.
    fn check(self, outputs: &[(ValueId, &str, Option<&str>)], tolerance: f64) -> Result<Outcome, Failure> {
        let n = self.n;
        let identity: Vec<f64> = (0..n * n).map(|i| if i.is_multiple_of(n + 1) { 1.0 } else { 0.0 }).collect();
        self.check_on(&identity, outputs, tolerance)
    }

    /// The same for another input than the identity.
    fn check_on(
        self,
        input: &[f64],
        outputs: &[(ValueId, &str, Option<&str>)],
        tolerance: f64,
    ) -> Result<Outcome, Failure> {
        let told = |refusal: kd_runtime::Refusal| refusal.to_string();
        let Self { case, mut graph, n, .. } = self;
        graph.outputs = outputs.iter().map(|(id, ..)| *id).collect();
        graph.validate().map_err(told)?;
        let plan = Plan { batch: n, taps: Vec::new(), backward: true, threads: 2, gpu: None };
        let mut executor = Executor::<f64>::new(&graph, &plan).map_err(told)?;
        for parameter in executor.parameters_mut() {
            // What the case does not name is a constant of the network.
            if let Some(array) = case.optional(&parameter.name) {
                parameter.value = array.values.clone().into();
            }
        }
        executor.forward(input, n, Mode::Train { seed: 0 }).map_err(told)?;
        let mut worst = 0.0_f64;
        let mut gradients: Vec<(ValueId, &[f64])> = Vec::new();
        for &(id, name, d_name) in outputs {
            worst = worst.max(compare(case, name, executor.value(id), tolerance)?);
            if let Some(d_name) = d_name {
                gradients.push((id, &case.get(d_name)?.values));
            }
        }
        executor.backward(&gradients).map_err(told)?;
        for parameter in executor.parameters() {
            let name = format!("d{}", parameter.name);
            if case.optional(&name).is_some() {
                worst = worst.max(compare(case, &name, &parameter.gradient, tolerance)?);
            }
        }
        Ok(Outcome::Equal(worst))
    }
}

/// An array with its first two axes exchanged.
fn swapped(array: &Array) -> Result<Array, Failure> {
    let [a, b, ref rest @ ..] = array.shape[..] else { return Err("expected two axes to exchange".into()) };
    let len: usize = rest.iter().product();
    let at = |i: usize, j: usize| &array.values[(i * b + j) * len..][..len];
    let values = (0..b).flat_map(|j| (0..a).flat_map(move |i| at(i, j))).copied().collect();
    Ok(Array { shape: [&[b, a], rest].concat(), values })
}

/// The rows of gates of a parameter in ONNX's order.
fn gates(net: &mut Net<'_>, name: &str, order: &[usize], hidden: usize) -> Result<ValueId, Failure> {
    let all = net.parameter(name)?;
    let parts: Vec<ValueId> = order.iter().map(|&gate| net.slice(all, 0, gate * hidden, (gate + 1) * hidden)).collect();
    Ok(net.apply(ops::concat::Concat { axis: 0 }, &parts))
}

/// `order` says which of torch's gates is each of ONNX's.
fn recurrent(case: &Case, order: &[usize], states: usize, op: impl Fn(Recurrent) -> Op) -> Result<Outcome, Failure> {
    let mut case = case.clone();
    for name in ["h0", "c0", "hn", "cn", "dh0", "dc0", "dhn", "dcn"] {
        if let Some(array) = case.tensors.get_mut(name) {
            *array = swapped(array)?;
        }
    }
    let &[n, steps, _] = &case.get("x")?.shape[..] else { return Err("expected x [N, T, I]".into()) };
    let hidden = case.get("w_hh")?.shape.get(1).copied().ok_or("expected w_hh [G H, H]")?;
    let suffixes: &[&str] = if case.flag("bidirectional") { &["", "_r"] } else { &[""] };
    let mut net = Net::new(&case, n);
    let x = net.batched("x")?;
    let x = net.transpose(x, &[1, 0, 2]);
    let zero = net.ints(&[0]);
    let mut weights: [Vec<ValueId>; 3] = Default::default();
    for suffix in suffixes {
        let w = gates(&mut net, &format!("w_ih{suffix}"), order, hidden)?;
        let r = gates(&mut net, &format!("w_hh{suffix}"), order, hidden)?;
        let biases = [
            gates(&mut net, &format!("b_ih{suffix}"), order, hidden)?,
            gates(&mut net, &format!("b_hh{suffix}"), order, hidden)?,
        ];
        let b = net.apply(ops::concat::Concat { axis: 0 }, &biases);
        for (list, value) in weights.iter_mut().zip([w, r, b]) {
            list.push(net.apply(ops::reshape::Unsqueeze, &[value, zero]));
        }
    }
    let weights = weights.map(|list| net.apply(ops::concat::Concat { axis: 0 }, &list));
    let mut inputs = vec![Some(x)];
    inputs.extend(weights.map(Some));
    inputs.push(None);
    for name in &["h0", "c0"][..states] {
        let state = net.batched(name)?;
        inputs.push(Some(net.transpose(state, &[1, 0, 2])));
    }
    let direction = if suffixes.len() == 2 { Direction::Bidirectional } else { Direction::Forward };
    let op = op(Recurrent { direction, hidden_size: Some(hidden) });
    let outputs = net.graph.add_node("layer", op, &inputs, &["y", "hn", "cn"][..states + 1]);
    let y = net.transpose(outputs[0], &[2, 0, 1, 3]);
    let y = net.reshape(y, &[steps, suffixes.len() * hidden]);
    let mut found = vec![(y, "y", Some("dy"))];
    for (k, names) in [("hn", "dhn"), ("cn", "dcn")].into_iter().enumerate().take(states) {
        found.push((net.transpose(outputs[k + 1], &[1, 0, 2]), names.0, Some(names.1)));
    }
    net.check(&found, 1e-10)
}

pub fn lstm(case: &Case) -> Result<Outcome, Failure> {
    recurrent(case, &[0, 3, 1, 2], 2, |layer| ops::lstm::LSTM { layer }.into())
}

pub fn gru(case: &Case) -> Result<Outcome, Failure> {
    recurrent(case, &[1, 0, 2], 1, |layer| ops::gru::GRU { layer, linear_before_reset: true }.into())
}

/// `x σ(x)`, of two operators.
pub fn silu(case: &Case) -> Result<Outcome, Failure> {
    let mut net = Net::new(case, case.get("x")?.values.len());
    let x = net.batched("x")?;
    let gate = net.apply(ops::gate::Sigmoid, &[x]);
    let y = net.apply(ops::arith::Mul, &[x, gate]);
    net.check(&[(y, "y", Some("dy"))], if case.is_f32() { 2e-6 } else { 1e-10 })
}

/// Rows of a table: the ids are the network's input. ONNX has no padding row; its gradient is left out.
pub fn embedding(case: &Case) -> Result<Outcome, Failure> {
    let mut case = case.clone();
    let ids = case.get("ids")?.clone();
    let &[n, len] = &ids.shape[..] else { return Err("expected ids [N, T]".into()) };
    if let Some(row) = case.hyper["padding_idx"].as_u64() {
        let is_padding: Vec<bool> = ids.values.iter().map(|&id| id == row as f64).collect();
        let d_y = case.tensors.get_mut("dy").ok_or("no tensor `dy`")?;
        let width = d_y.values.len() / is_padding.len();
        let rows = d_y.values.chunks_exact_mut(width).zip(is_padding);
        rows.filter(|(_, padding)| *padding).for_each(|(row, _)| row.fill(0.0));
    }
    let mut net = Net::new(&case, len);
    net.n = n;
    let table = net.parameter("w")?;
    let picked = net.apply(ops::cast::Cast { to: ElementType::I64 }, &[net.identity]);
    let y = net.apply(ops::gather::Gather { axis: 0 }, &[table, picked]);
    net.check_on(&ids.values, &[(y, "y", Some("dy"))], 1e-10)
}

/// Where the windows of an axis of n elements that becomes one of o begin and end.
fn windows(n: usize, o: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..o).map(move |i| (i * n / o, ((i + 1) * n).div_ceil(o)))
}

/// Largest elements of windows that differ, each cut out and pooled, joined axis by axis from the last.
pub fn adaptive_max(case: &Case) -> Result<Outcome, Failure> {
    let shape = &case.get("x")?.shape;
    let mut net = Net::new(case, shape[0]);
    let x = net.batched("x")?;
    let sizes = case.sizes("output");
    let axes: Vec<(i64, usize, usize)> =
        sizes.iter().enumerate().map(|(i, &o)| (2 + i as i64, shape[2 + i], o)).collect();
    let y = largest(&mut net, x, &axes);
    net.check(&[(y, "y", Some("dy"))], 1e-10)
}

/// The largest elements of the windows of these axes: number, elements, windows.
fn largest(net: &mut Net<'_>, x: ValueId, axes: &[(i64, usize, usize)]) -> ValueId {
    let [(axis, n, o), rest @ ..] = axes else { return net.apply(ops::pool::GlobalMaxPool, &[x]) };
    let parts: Vec<ValueId> = windows(*n, *o)
        .map(|(from, to)| {
            let window = net.slice(x, *axis, from, to);
            largest(net, window, rest)
        })
        .collect();
    net.apply(ops::concat::Concat { axis: *axis }, &parts)
}

/// Means of windows that differ, as products with the windows' weights: one for the rows, one for the columns.
pub fn adaptive_average(case: &Case) -> Result<Outcome, Failure> {
    let shape = case.get("x")?.shape.clone();
    let mut net = Net::new(case, shape[0]);
    let mut y = net.batched("x")?;
    let weights = |n: usize, o: usize| {
        let mut weights = vec![0.0_f32; n * o];
        for (i, (from, to)) in windows(n, o).enumerate() {
            (from..to).for_each(|j| weights[j * o + i] = 1.0 / (to - from) as f32);
        }
        Tensor::from_vec(&[n, o], weights)
    };
    for (axis, &o) in case.sizes("output").iter().enumerate().rev() {
        let weights = net.graph.add_initializer(&format!("windows{axis}"), weights(shape[2 + axis], o));
        if axis + 3 == shape.len() {
            y = net.apply(ops::gemm::MatMul, &[y, weights]);
        } else {
            let rows = net.transpose(weights, &[1, 0]);
            y = net.apply(ops::gemm::MatMul, &[rows, y]);
        }
    }
    // The weights are f32: 1/3 is off by 3e-8.
    net.check(&[(y, "y", Some("dy"))], 1e-7)
}

/// What a masked score is given: e^-1e9 is 0.
const MASKED: f64 = -1e9;

/// Multi-head attention of products, transposes and a softmax.
pub fn attention(case: &Case) -> Result<Outcome, Failure> {
    let mut case = case.clone();
    if case.text("mask") == "padding" {
        // 1 where ignored: added to the scores.
        let mask = case.tensors.get_mut("mask").ok_or("no tensor `mask`")?;
        mask.values.iter_mut().for_each(|v| *v *= MASKED);
    }
    let &[n, steps, width] = &case.get("x")?.shape[..] else { return Err("expected x [N, T, E]".into()) };
    let heads = case.number("heads")? as usize;
    let size = width / heads;
    let mut net = Net::new(&case, n);
    let x = net.batched("x")?;
    let linear = |net: &mut Net<'_>, x, w: &str, b: &str| {
        let (w, b) = (net.parameter(w)?, net.parameter(b)?);
        let w = net.transpose(w, &[1, 0]);
        let product = net.apply(ops::gemm::MatMul, &[x, w]);
        Ok::<_, Failure>(net.apply(ops::arith::Add, &[product, b]))
    };
    let all = linear(&mut net, x, "in_w", "in_b")?;
    let part = |net: &mut Net<'_>, k: usize, perm: &[usize]| {
        let part = net.slice(all, 2, k * width, (k + 1) * width);
        let part = net.reshape(part, &[steps, heads, size]);
        net.transpose(part, perm)
    };
    let (q, k) = (part(&mut net, 0, &[0, 2, 1, 3]), part(&mut net, 1, &[0, 2, 3, 1]));
    let v = part(&mut net, 2, &[0, 2, 1, 3]);
    let scores = net.apply(ops::gemm::MatMul, &[q, k]);
    let root = net.scalar((size as f32).sqrt());
    let mut scores = net.apply(ops::arith::Div, &[scores, root]);
    match case.text("mask") {
        "causal" => {
            let mask = net.parameter("mask")?;
            scores = net.apply(ops::arith::Add, &[scores, mask]);
        }
        "padding" => {
            let mask = net.batched("mask")?;
            let mask = net.reshape(mask, &[1, 1, steps]);
            scores = net.apply(ops::arith::Add, &[scores, mask]);
        }
        _ => {}
    }
    let probabilities = net.apply(ops::softmax::Softmax { axis: -1 }, &[scores]);
    let mixed = net.apply(ops::gemm::MatMul, &[probabilities, v]);
    let mixed = net.transpose(mixed, &[0, 2, 1, 3]);
    let mixed = net.reshape(mixed, &[steps, width]);
    let y = linear(&mut net, mixed, "out_w", "out_b")?;
    // √2 is an f32 in the graph, off by 1.7e-8.
    let tolerance = if size == 4 { 1e-10 } else { 1e-7 };
    net.check(&[(y, "y", Some("dy")), (probabilities, "probs", None)], tolerance)
}
