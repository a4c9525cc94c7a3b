//! Small networks around what works on sequences: recurrent layers, normalization of vectors.

use kd_runtime::graph::{ElementType, ValueId};
use kd_runtime::ops::recurrent::{Direction, Recurrent};
use kd_runtime::ops::{self, Op};

use super::{Case, Net, case};

const STEPS: usize = 3;
const FEATURES: usize = 2;
const HIDDEN: usize = 3;

/// Whether there are biases, whether initial states, and which outputs are read.
struct Form {
    biases: bool,
    initial: bool,
    outputs: &'static [usize],
}

/// Batch first, `[N, …]`, as executors want outputs.
pub fn batch_first(net: &mut Net, x: ValueId, perm: &[usize], name: &str) -> ValueId {
    net.graph.apply(ops::transpose::Transpose { perm: perm.to_vec() }, &[x], name)
}

/// A recurrent node over a stem; its outputs that are read are joined to one row a sample.
fn layer(net: &mut Net, op: Op, gates: usize, states: usize, directions: usize, form: &Form) -> ValueId {
    let x = net.stem(&[STEPS, FEATURES]);
    let x = batch_first(net, x, &[1, 0, 2], "time_first");
    let mut inputs = vec![
        Some(x),
        Some(net.parameter(&[directions, gates * HIDDEN, FEATURES])),
        Some(net.parameter(&[directions, gates * HIDDEN, HIDDEN])),
        form.biases.then(|| net.parameter(&[directions, 2 * gates * HIDDEN])),
        None,
    ];
    for i in 0..if form.initial { states } else { 0 } {
        let state = net.stem(&[directions, HIDDEN]);
        inputs.push(Some(batch_first(net, state, &[1, 0, 2], &format!("initial{i}"))));
    }
    let names = ["y", "h", "c"];
    let outputs = net.graph.add_node("layer", op, &inputs, &names[..states + 1]);
    let mut parts = Vec::new();
    for &k in form.outputs {
        let perm: &[usize] = if k == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
        let part = batch_first(net, outputs[k], perm, &format!("{}.batch", names[k]));
        parts.push(net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[part], &format!("{}.flat", names[k])));
    }
    net.graph.apply(ops::concat::Concat { axis: 1 }, &parts, "joined")
}

fn recurrent(direction: Direction) -> Recurrent {
    Recurrent { direction, hidden_size: Some(HIDDEN) }
}

fn lstm(about: &'static str, direction: Direction, form: &Form) -> Case {
    case("LSTM", about, |net| {
        let op = ops::lstm::LSTM { layer: recurrent(direction) };
        layer(net, op.into(), ops::lstm::GATES, 2, direction.reversed().len(), form)
    })
}

fn gru(about: &'static str, direction: Direction, linear_before_reset: bool, form: &Form) -> Case {
    case("GRU", about, |net| {
        let op = ops::gru::GRU { layer: recurrent(direction), linear_before_reset };
        layer(net, op.into(), ops::gru::GATES, 1, direction.reversed().len(), form)
    })
}

fn layer_norm(about: &'static str, sizes: &'static [usize], axis: i64, bias: bool) -> Case {
    case("LayerNormalization", about, |net| {
        let from = if axis < 0 { sizes.len() as i64 + axis } else { axis - 1 } as usize;
        let mut inputs = vec![net.stem(sizes), net.between(&sizes[from..], 0.5, 1.5)];
        if bias {
            inputs.push(net.parameter(&sizes[from..]));
        }
        net.graph.apply(ops::layer_norm::LayerNormalization { axis, epsilon: 1e-3 }, &inputs, "y")
    })
}

fn gathers() -> Vec<Case> {
    vec![
        case("Gather", "columns, one twice", |net| {
            let x = net.stem(&[4, 2]);
            let indices = net.ints(&[2, 0, -2]);
            net.graph.apply(ops::gather::Gather { axis: 1 }, &[x, indices], "y")
        }),
        case("Gather", "rows of a table by computed indices", |net| {
            let (factor, input) = (net.scalar(2.4), net.input);
            let ids = net.graph.apply(ops::arith::Mul, &[input, factor], "wide");
            let ids = net.graph.apply(ops::arith::Add, &[ids, factor], "positive");
            let ids = net.graph.apply(ops::cast::Cast { to: ElementType::I64 }, &[ids], "ids");
            let table = net.parameter(&[5, 4]);
            net.graph.apply(ops::gather::Gather { axis: 0 }, &[table, ids], "y")
        }),
    ]
}

/// Parts of a stem of 6; the product of those named, the last parts first.
fn split(about: &'static str, op: ops::split::Split, sizes: Option<&'static [i64]>, read: &'static [usize]) -> Case {
    case("Split", about, |net| {
        let mut inputs = vec![Some(net.stem(&[6, 2]))];
        inputs.extend(sizes.map(|sizes| Some(net.ints(sizes))));
        let names = ["a", "b", "c"];
        let parts = net.graph.add_node("split", op, &inputs, &names);
        let mut read = read.iter().rev().map(|&k| parts[k]);
        let first = read.next().expect("a part that is read");
        let gate = |net: &mut Net, x, name: &str| net.graph.apply(ops::gate::Tanh, &[x], name);
        let mut joined = vec![gate(net, first, "first")];
        for (i, part) in read.enumerate() {
            joined.push(gate(net, part, &format!("part{i}")));
        }
        net.graph.apply(ops::concat::Concat { axis: 1 }, &joined, "y")
    })
}

fn splits() -> Vec<Case> {
    let op = |num_outputs| ops::split::Split { axis: 1, num_outputs };
    vec![
        split("three of one size", op(Some(3)), None, &[0, 1, 2]),
        split("sizes that differ, one without elements", op(None), Some(&[1, 0, 5]), &[0, 2]),
        split("the first alone", op(Some(3)), None, &[0]),
        split("the last alone", op(None), Some(&[1, 2, 3]), &[2]),
    ]
}

/// Self-attention of two heads: products, a softmax of scaled scores, one value read three times.
fn attention() -> Case {
    case("Softmax", "of attention", |net| {
        let (steps, heads, size) = (3, 2, 2);
        let x = net.stem(&[steps, heads * size]);
        let w = net.parameter(&[heads * size, 3 * heads * size]);
        let all = net.graph.apply(ops::gemm::MatMul, &[x, w], "qkv");
        let split = ops::split::Split { axis: 2, num_outputs: Some(3) };
        let parts = net.graph.add_node("split", split, &[Some(all)], &["q", "k", "v"]);
        let head = |net: &mut Net, i: usize, perm: &[usize]| {
            let shape = net.ints(&[0, steps as i64, heads as i64, size as i64]);
            let op = ops::reshape::Reshape { allowzero: false };
            let part = net.graph.apply(op, &[parts[i], shape], &format!("heads{i}"));
            batch_first(net, part, perm, &format!("head{i}"))
        };
        let (q, k) = (head(net, 0, &[0, 2, 1, 3]), head(net, 1, &[0, 2, 3, 1]));
        let v = head(net, 2, &[0, 2, 1, 3]);
        let scores = net.graph.apply(ops::gemm::MatMul, &[q, k], "scores");
        let root = net.scalar(2.0);
        let scores = net.graph.apply(ops::arith::Div, &[scores, root], "scaled");
        let shares = net.graph.apply(ops::softmax::Softmax { axis: -1 }, &[scores], "shares");
        net.graph.apply(ops::gemm::MatMul, &[shares, v], "y")
    })
}

/// The cases of the table.
pub fn cases() -> Vec<Case> {
    use Direction::{Bidirectional, Forward, Reverse};
    let form = |biases, initial, outputs| Form { biases, initial, outputs };
    let mut cases = gathers();
    cases.extend(splits());
    cases.extend([
        lstm("all states", Forward, &form(true, false, &[0])),
        lstm("no biases, initial states, all outputs", Forward, &form(false, true, &[0, 1, 2])),
        lstm("reversed, the last state alone", Reverse, &form(true, false, &[1])),
        lstm("both directions, all outputs", Bidirectional, &form(true, true, &[0, 1, 2])),
        gru("product before reset, all states", Forward, true, &form(true, false, &[0])),
        gru("product before reset, both directions, all outputs", Bidirectional, true, &form(true, true, &[0, 1])),
        gru("reset before product, reversed", Reverse, false, &form(true, true, &[0, 1])),
        gru("reset before product, no biases, the last state alone", Forward, false, &form(false, false, &[1])),
        gru("product before reset, no biases", Forward, true, &form(false, true, &[0])),
        attention(),
        layer_norm("last axis", &[3, 5], -1, true),
        layer_norm("no bias", &[7], -1, false),
        layer_norm("two axes", &[2, 3, 4], 2, true),
    ]);
    cases
}
