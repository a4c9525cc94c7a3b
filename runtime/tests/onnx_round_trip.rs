//! What is written is read back the same, up to the numbers of the values, and the same bytes are written again.

mod support;

use std::collections::BTreeMap;

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::onnx::{self, messages::field, wire::Bytes, wire::Value};
use kd_runtime::ops::recurrent::{Direction, Recurrent};
use kd_runtime::ops::{
    Op, activation, arith, batch_norm, cast, concat, conv, conv_transpose, dropout, gate, gather, gemm, gru,
    layer_norm, lstm, pad, pool, power, quantize_linear, reduce, relu, reshape, resize, shape_of, slice, softmax,
    split, table, transpose, window::AutoPad, window::Window,
};
use support::random;

/// Name, operator, inputs, outputs.
type NamedNode = (String, Op, Vec<Option<String>>, Vec<String>);

/// A graph by names: what must survive.
#[derive(Debug, PartialEq)]
struct Named {
    name: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    nodes: Vec<NamedNode>,
    values: BTreeMap<String, (ElementType, Shape)>,
    initializers: Vec<(String, Tensor)>,
}

fn named(graph: &Graph) -> Named {
    let name = |id: ValueId| graph.value(id).name.clone();
    let names = |ids: &[ValueId]| ids.iter().map(|&id| name(id)).collect();
    Named {
        name: graph.name.clone(),
        inputs: names(&graph.inputs),
        outputs: names(&graph.outputs),
        nodes: (graph.nodes.iter())
            .map(|node| {
                let inputs = node.inputs.iter().map(|id| id.map(name)).collect();
                (node.name.clone(), node.op.clone(), inputs, names(&node.outputs))
            })
            .collect(),
        values: graph.values.iter().map(|v| (v.name.clone(), (v.element, v.shape.clone()))).collect(),
        initializers: graph.initializers.iter().map(|(&id, tensor)| (name(id), tensor.clone())).collect(),
    }
}

fn assert_survives(what: &str, graph: &Graph) {
    let written = onnx::write(graph);
    let again = onnx::read(&written).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    assert_eq!(named(&again.graph), named(graph), "{what}");
    assert_eq!(again.notes, [""; 0], "{what}");
    assert!(onnx::write(&again.graph) == written, "{what}: written again, it differs");
}

fn batched(sizes: &[usize]) -> Shape {
    Shape::batched(sizes)
}

/// Every operator of the table, every element type, rank-0 and empty tensors, left-out inputs, second outputs.
fn every_operator() -> Graph {
    let mut g = Graph::new("every operator \"quoted\" \u{1f600}\n");
    let x = g.add_input("x", ElementType::F32, batched(&[2, 8, 8]));
    let raw = g.add_input("raw", ElementType::U8, batched(&[3]));
    let conv_weight = g.add_initializer("conv.w", Tensor::from_vec(&[4, 1, 3, 3], vec![0.5_f32; 36]));
    let window = Window {
        kernel: vec![3, 3],
        strides: vec![2, 1],
        pads: vec![1, 0, 1, 2],
        dilations: vec![1, 2],
        ..Window::default()
    };
    let c = g.apply(conv::Conv { window, group: 2 }, &[x, conv_weight], "conv");
    let stats: Vec<ValueId> = ["scale", "bias", "mean", "var"]
        .iter()
        .map(|n| g.add_initializer(n, Tensor::from_vec(&[4], vec![1.0_f32, 0.5, 0.25, 1.0e-30])))
        .collect();
    let norm = batch_norm::BatchNormalization { epsilon: 1e-3, momentum: 0.99 };
    let b = g.apply(norm, &[c, stats[0], stats[1], stats[2], stats[3]], "norm");
    let high = g.add_initializer("six", Tensor::scalar(6.0_f32));
    let r = g.add_node("clip node", relu::Clip, &[Some(b), None, Some(high)], &["clip"])[0];
    let r = g.apply(relu::LeakyRelu { alpha: 0.3 }, &[r], "leaky");
    let r = g.apply(relu::Relu, &[r], "relu");
    let same = Window {
        kernel: vec![2, 2],
        strides: vec![1, 1],
        auto_pad: AutoPad::SameUpper,
        ceil_mode: true,
        ..Window::default()
    };
    let pooled = g.add_node("", pool::MaxPool { window: same, storage_order: 0 }, &[Some(r)], &["max", "where"]);
    let mean = Window { kernel: vec![2, 2], strides: vec![1, 1], ..Window::default() };
    let a = g.apply(pool::AveragePool { window: mean, count_include_pad: true }, &[pooled[0]], "average");
    let all = g.apply(pool::GlobalAveragePool, &[a], "global");
    let axes = g.add_initializer("axes", Tensor::from_vec(&[2], vec![2_i64, 3]));
    let q = g.apply(reshape::Squeeze, &[all, axes], "squeezed");
    let u = g.apply(reshape::Unsqueeze, &[q, axes], "unsqueezed");
    let reduce = reduce::ReduceMean { keepdims: false, noop_with_empty_axes: false };
    let m = g.apply(reduce, &[u, axes], "reduced");
    let s = g.apply(gate::Sigmoid, &[m], "sigmoid");
    let t = g.apply(gate::Tanh, &[s], "tanh");
    let k = g.apply(concat::Concat { axis: -1 }, &[t, m], "joined");
    let weight = g.add_initializer("w", Tensor::from_vec(&[3, 8], vec![0.1_f32; 24]));
    let gemm = gemm::Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
    let logits = g.apply(gemm, &[k, weight], "logits");
    let square = g.add_initializer("square", Tensor::from_vec(&[3, 3], vec![0.1_f32; 9]));
    let p = g.apply(gemm::MatMul, &[logits, square], "product");
    let one = g.add_initializer("one", Tensor::scalar(1.0_f32));
    let p = g.apply(arith::Add, &[p, one], "added");
    let p = g.apply(arith::Sub, &[p, one], "subtracted");
    let p = g.apply(arith::Mul, &[p, one], "multiplied");
    let p = g.apply(arith::Div, &[p, one], "divided");
    let ratio = g.add_initializer("ratio", Tensor::scalar(0.1_f32));
    let p = g.add_node("", dropout::Dropout { seed: Some(-5) }, &[Some(p), Some(ratio)], &["kept", "mask"])[0];
    let p = g.apply(dropout::Identity, &[p], "same");
    let pads = g.add_initializer("pads", Tensor::from_vec(&[4], vec![0_i64, 1, 0, 1]));
    let p = g.apply(pad::Pad { mode: pad::PadMode::Reflect }, &[p, pads], "padded");
    let [from, to] =
        [("from", 0_i64), ("to", i64::MAX)].map(|(name, v)| g.add_initializer(name, Tensor::from_vec(&[1], vec![v])));
    let last = g.add_initializer("last", Tensor::from_vec(&[1], vec![-1_i32]));
    let last = g.apply(cast::Cast { to: ElementType::I64 }, &[last], "last64");
    let p = g.apply(slice::Slice, &[p, from, to, last], "sliced");
    let p = g.apply(transpose::Transpose { perm: vec![0, 1] }, &[p], "transposed");
    let index = g.add_initializer("index", Tensor::from_vec(&[2], vec![0_i64, -1]));
    let p = g.apply(gather::Gather { axis: 1 }, &[p, index], "gathered");
    let sizes = g.apply(shape_of::Shape { start: 0, end: Some(1) }, &[p], "sizes");
    let rest = g.add_initializer("rest", Tensor::from_vec(&[1], vec![2_i64]));
    let target = g.apply(concat::Concat { axis: 0 }, &[sizes, rest], "target");
    let p = g.apply(reshape::Reshape { allowzero: false }, &[p, target], "reshaped");
    let p = g.apply(reshape::Flatten { axis: 1 }, &[p], "flat");
    let scale = g.add_initializer("q.scale", Tensor::scalar(0.02_f32));
    let zero = g.add_initializer("q.zero", Tensor::scalar(-3_i8));
    let quantize = quantize_linear::QuantizeLinear { axis: 1, block_size: 0, output: None };
    let q = g.apply(quantize, &[p, scale, zero], "q");
    let dequantize = quantize_linear::DequantizeLinear { axis: 1, block_size: 0 };
    let p = g.apply(dequantize, &[q, scale, zero], "dq");
    let (p, recurrent) = later_operators(&mut g, p);
    let soft = g.apply(softmax::Softmax { axis: -1 }, &[p], "soft");
    let log = g.apply(softmax::LogSoftmax { axis: 1 }, &[p], "log soft");
    let none = g.add_initializer("none", Tensor::from_vec(&[0], Vec::<f32>::new()));
    let truths = g.add_initializer("truths", Tensor::from_vec(&[2], vec![true, false]));
    let bytes = g.apply(cast::Cast { to: ElementType::F32 }, &[raw], "bytes");
    let larger = resizing(&mut g);
    g.outputs = vec![larger, logits, recurrent, soft, log, none, truths, bytes, raw, pooled[1], x];
    g.validate().unwrap_or_else(|refusal| panic!("{refusal}"));
    g
}

/// What transformers and recurrent networks are made of, over p [N, 2].
fn later_operators(g: &mut Graph, p: ValueId) -> (ValueId, ValueId) {
    let p = g.apply(activation::Elu { alpha: 0.5 }, &[p], "elu");
    let p = g.apply(activation::Gelu { tanh: true }, &[p], "gelu");
    let p = g.apply(activation::Gelu { tanh: false }, &[p], "exact gelu");
    let p = g.apply(activation::HardSigmoid { alpha: 0.25, beta: 0.75 }, &[p], "hard sigmoid");
    let p = g.apply(activation::HardSwish, &[p], "hard swish");
    let p = g.apply(activation::Softplus, &[p], "softplus");
    let p = g.apply(power::Sqrt, &[p], "root");
    let two = g.add_initializer("two", Tensor::scalar(2_i64));
    let p = g.apply(power::Pow, &[p, two], "power");
    let p = g.apply(power::Erf, &[p], "erf");
    let scale = g.add_initializer("ln.scale", Tensor::from_vec(&[2], vec![1.0_f32, 2.0]));
    let norm = layer_norm::LayerNormalization { axis: -1, epsilon: 1e-3 };
    let p = g.add_node("ln", norm, &[Some(p), Some(scale)], &["normal", "ln.mean", "ln.inverse"])[0];
    let first = g.add_initializer("first", Tensor::from_vec(&[1], vec![0_i64]));
    let steps = g.apply(reshape::Unsqueeze, &[p, first], "steps");
    let mut layer = |op: Op, gates: usize, directions: usize, outputs: &[&str], x: ValueId| {
        let weights = |rows| Tensor::from_vec(&[directions, rows, 2], vec![0.1_f32; directions * rows * 2]);
        let w = g.add_initializer(&format!("{}.w", outputs[0]), weights(gates * 2));
        let r = g.add_initializer(&format!("{}.r", outputs[0]), weights(gates * 2));
        g.add_node("", op, &[Some(x), Some(w), Some(r)], outputs)[0]
    };
    let both = Recurrent { direction: Direction::Bidirectional, hidden_size: Some(2) };
    let back = Recurrent { direction: Direction::Reverse, hidden_size: None };
    layer(lstm::LSTM { layer: both }.into(), 4, 2, &["lstm", "lstm.h", "lstm.c"], steps);
    let recurrent = layer(gru::GRU { layer: back, linear_before_reset: true }.into(), 3, 1, &["gru", "gru.h"], steps);
    (p, recurrent)
}

/// What changes the size of images, over an input of its own.
fn resizing(g: &mut Graph) -> ValueId {
    let image = g.add_input("small image", ElementType::F32, Shape::batched(&[4, 2, 2]));
    let parts = split::Split { axis: 1, num_outputs: Some(2) };
    let half = g.add_node("halves", parts, &[Some(image)], &["first half", "second half"])[1];
    let w = g.add_initializer("up.w", Tensor::from_vec(&[2, 3, 2, 2], vec![0.1_f32; 24]));
    let window = Window { strides: vec![2, 2], ..Window::default() };
    let up = conv_transpose::ConvTranspose { window, group: 1, output_padding: vec![1, 0], output_shape: vec![] };
    let up = g.apply(up, &[half, w], "up");
    let scales = g.add_initializer("scales", Tensor::from_vec(&[2], vec![2.0_f32, 3.0]));
    let repeat = resize::Resize { axes: vec![2, -1] };
    let large = g.add_node("large", repeat, &[Some(up), None, Some(scales)], &["large"])[0];
    g.apply(pool::GlobalMaxPool, &[large], "largest")
}

#[test]
fn every_operator_survives() {
    let graph = every_operator();
    for name in table::NAMES {
        assert!(graph.nodes.iter().any(|node| node.op.name() == *name), "the graph lacks {name}");
    }
    assert_survives("every operator", &graph);
}

/// A random network of element-wise and moving operators over `[N, c, h]`, joined by additions.
fn random_network(seed: &mut u64) -> Graph {
    let mut pick = |n: usize| usize::try_from(random(seed) % n as u64).expect("small");
    let mut g = Graph::new("random");
    let shape = vec![Dim::Batch, Dim::Known(1 + pick(4)), Dim::Known(1 + pick(6))];
    let mut values = vec![g.add_input("in", ElementType::F32, Shape(shape.clone()))];
    for i in 0..1 + pick(30) {
        let x = values[pick(values.len())];
        let name = format!("v{i}");
        values.push(match pick(8) {
            0 => g.apply(relu::Relu, &[x], &name),
            1 => g.apply(gate::Tanh, &[x], &name),
            2 => g.apply(dropout::Identity, &[x], &name),
            3 => {
                let y = values[pick(values.len())];
                g.apply(arith::Add, &[x, y], &name)
            }
            4 => {
                let data = (0..pick(3)).map(|_| 0).chain([1]).map(|k: u16| f32::from(k) - 0.5).collect::<Vec<_>>();
                let low = g.add_initializer(&format!("low{i}"), Tensor::scalar(data[0]));
                g.add_node(&format!("node {i}"), relu::Clip, &[Some(x), Some(low)], &[&name])[0]
            }
            5 => g.apply(softmax::Softmax { axis: pick(3) as i64 - 1 }, &[x], &name),
            6 => {
                let sizes = g.apply(shape_of::Shape { start: 0, end: None }, &[x], &format!("shape{i}"));
                g.apply(reshape::Reshape { allowzero: false }, &[x, sizes], &name)
            }
            _ => g.apply(transpose::Transpose { perm: vec![0, 1, 2] }, &[x], &name),
        });
    }
    let last = values.len() - 1;
    g.outputs = vec![values[last], values[pick(values.len())]];
    if g.outputs[0] == g.outputs[1] {
        g.outputs.pop();
    }
    g.validate().unwrap_or_else(|refusal| panic!("{refusal}"));
    g
}

#[test]
fn random_networks_survive() {
    let mut seed = 21;
    for i in 0..200 {
        assert_survives(&format!("network {i}"), &random_network(&mut seed));
    }
}

/// The bytes of all fields of one number.
fn fields(message: &[u8], number: u32) -> Vec<&[u8]> {
    let mut fields = Bytes::whole(message).fields();
    let mut found = Vec::new();
    while let Some(field) = fields.next_field().expect("well formed") {
        if let (true, Value::Bytes(bytes)) = (field.number == number, field.value) {
            found.push(bytes.data);
        }
    }
    found
}

#[test]
fn every_value_is_shaped_and_weights_are_no_inputs() {
    let graph = every_operator();
    let file = onnx::write(&graph);
    let proto = fields(&file, field::model::GRAPH)[0];
    assert_eq!(fields(proto, field::graph::INPUT).len(), graph.inputs.len());
    assert_eq!(fields(proto, field::graph::INITIALIZER).len(), graph.initializers.len());
    let described = fields(proto, field::graph::INPUT)
        .into_iter()
        .chain(fields(proto, field::graph::OUTPUT))
        .chain(fields(proto, field::graph::VALUE_INFO));
    let names: Vec<&[u8]> = described.map(|value| fields(value, field::value_info::NAME)[0]).collect();
    for id in graph.nodes.iter().flat_map(|node| &node.outputs).chain(&graph.inputs).chain(&graph.outputs) {
        assert!(names.contains(&graph.value(*id).name.as_bytes()), "{} is not described", graph.value(*id).name);
    }
    assert_eq!(fields(&file, field::model::PRODUCER_NAME), [b"kd"]);
    assert!(file.windows(5).any(|w| w == [0x0a, 0x03, 0x12, 0x01, b'N']), "no dimension is called N");
}
