//! A transformer encoder for time series.

use kd_runtime::Result;
use kd_runtime::graph::{Graph, Tensor};
use kd_runtime::ops::{activation, arith, gemm, layer_norm, softmax, transpose};

use super::Site;
use super::layers::{Conv, Net, Tail, refused, series};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `ts_transformer`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "layers", about: "blocks", kind: Kind::Count { default: 2, least: 1, most: 256 } },
    Spec { name: "width", about: "elements of a token", kind: Kind::Count { default: 64, least: 2, most: 1 << 14 } },
    Spec {
        name: "heads",
        about: "parts of a token that attend apart",
        kind: Kind::Count { default: 4, least: 1, most: 1024 },
    },
    Spec {
        name: "hidden",
        about: "units between the two linear layers of a block",
        kind: Kind::Count { default: 128, least: 1, most: 1 << 16 },
    },
    Spec {
        name: "patch",
        about: "steps that make one token",
        kind: Kind::Count { default: 8, least: 1, most: 1 << 10 },
    },
    Spec {
        name: "dropout",
        about: "probability of dropping an element of a block's two sums",
        kind: Kind::Number { default: 0.1, range: Range::BelowOne },
    },
];

/// A linear layer over the rows of `[T, C]`.
fn linear(net: &mut Net, name: &str, outputs: usize) -> Result<()> {
    let [tokens, width] = [net.tail.shape[0], net.tail.shape[1]];
    let weight = net.parameter(&format!("{name}.weight"), &[width, outputs], 0.0)?;
    let bias = net.parameter(&format!("{name}.bias"), &[outputs], 0.0)?;
    let id = net.tail.id;
    net.apply(gemm::MatMul, &[id, weight], &format!("{name}.product"), vec![tokens, outputs]);
    let id = net.tail.id;
    net.apply(arith::Add, &[id, bias], name, vec![tokens, outputs]);
    Ok(())
}

/// Layer norm of the rows of `[T, C]`.
fn norm(net: &mut Net, name: &str) -> Result<()> {
    let shape = net.tail.shape.clone();
    let [scale, bias] =
        [("scale", 1.0), ("bias", 0.0)].map(|(part, fill)| net.parameter(&format!("{name}.{part}"), &shape[1..], fill));
    let (inputs, op) = ([net.tail.id, scale?, bias?], layer_norm::LayerNormalization { axis: -1, epsilon: 1e-5 });
    net.apply(op, &inputs, name, shape);
    Ok(())
}

/// Attention of the tail's tokens to each other: NAME.query, NAME.key and NAME.value `[T, C]`, NAME.scores
/// `[heads, T, T]` before the softmax, NAME.attended `[T, C]`.
fn attention(net: &mut Net, name: &str, heads: usize) -> Result<()> {
    let (input, width) = (net.tail.clone(), net.tail.shape[1]);
    let (tokens, depth) = (input.shape[0], width / heads);
    let mut parts = Vec::new();
    for (part, perm) in [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])] {
        let part = format!("{name}.{part}");
        net.tail = input.clone();
        linear(net, &part, width)?;
        net.reshape(&format!("{part}.split"), vec![tokens, heads, depth]);
        let id = net.tail.id;
        net.apply(transpose::Transpose { perm: perm.to_vec() }, &[id], &format!("{part}.heads"), Vec::new());
        parts.push(net.tail.id);
    }
    let square = vec![heads, tokens, tokens];
    net.apply(gemm::MatMul, &[parts[0], parts[1]], &format!("{name}.products"), square.clone());
    let scale = Tensor::scalar((depth as f32).sqrt().recip());
    let (id, scale) = (net.tail.id, net.constant(&format!("{name}.scale"), scale));
    net.apply(arith::Mul, &[id, scale], &format!("{name}.scores"), square.clone());
    let id = net.tail.id;
    net.apply(softmax::Softmax { axis: -1 }, &[id], &format!("{name}.weights"), square);
    let id = net.tail.id;
    net.apply(gemm::MatMul, &[id, parts[2]], &format!("{name}.mixed"), Vec::new());
    let id = net.tail.id;
    net.apply(transpose::Transpose { perm: vec![0, 2, 1, 3] }, &[id], &format!("{name}.mixed.rows"), Vec::new());
    net.reshape(&format!("{name}.joined"), vec![tokens, width]);
    linear(net, &format!("{name}.attended"), width)
}

/// Tokens of `patch` steps by a convolution, plus their places (learned, from sine and cosine on); blocks of attention
/// and two linear layers, each behind a layer norm and added to what it was made of (Vaswani et al. 2017, arXiv
/// 1706.03762, with the norms first as Xiong et al. 2020, arXiv 2002.04745); a last layer norm, the mean over tokens, and a
/// linear layer. Taps `stage1`, … are `[C, T]`. An image `[1, H, W]` is a series of H steps with W channels.
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    // An image of one channel is read row by row.
    let rows = match site.input[..] {
        [1, height, width] => Some(vec![height, width]),
        _ => series("ts_transformer", site).map(|()| None)?,
    };
    let (width, heads) = (options.count("width"), options.count("heads"));
    if !width.is_multiple_of(heads) {
        return Err(refused("ts_transformer", format!("a width that {heads} heads divide"), width));
    }
    let mut net = Net::new("ts_transformer", site)?;
    if let Some(rows) = rows {
        net.reshape("rows", rows);
        net.swap("series");
    }
    let patch = options.count("patch");
    net.conv("tokens.conv", &Conv { bias: true, ..Conv::square(width, patch, patch) })?;
    net.swap("tokens.rows");
    let (id, shape) = (net.tail.id, net.tail.shape.clone());
    let places = net.parameter_of("places", &shape, |len| places(len, width))?;
    net.apply(arith::Add, &[id, places], "tokens", shape);
    for i in 0..options.count("layers") {
        let name = format!("stage{}", i + 1);
        let residual = |net: &mut Net, part: &str, input: &Tail| {
            net.dropout(&format!("{name}.{part}.dropout"), options.number("dropout"));
            net.add(&format!("{name}.{part}.sum"), input);
        };
        let input = net.tail.clone();
        norm(&mut net, &format!("{name}.norm1"))?;
        attention(&mut net, &name, heads)?;
        residual(&mut net, "attention", &input);
        let input = net.tail.clone();
        norm(&mut net, &format!("{name}.norm2"))?;
        linear(&mut net, &format!("{name}.hidden"), options.count("hidden"))?;
        let (id, shape) = (net.tail.id, net.tail.shape.clone());
        net.apply(activation::Gelu { tanh: false }, &[id], &format!("{name}.gelu"), shape);
        linear(&mut net, &format!("{name}.linear"), width)?;
        residual(&mut net, "linear", &input);
        net.swap(&format!("{name}.pre"));
        net.same(&name);
        net.swap(&format!("{name}.rows"));
    }
    norm(&mut net, "norm")?;
    net.swap("last");
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}

/// `sin(t / 10000^(2 i / width))` for even elements, the cosine for odd ones, so many of `[tokens, width]` (Vaswani et al.
/// §3.5).
fn places(len: usize, width: usize) -> Vec<f32> {
    let value = |t: usize, i: usize| {
        let angle = t as f64 / 10_000_f64.powf((i / 2 * 2) as f64 / width as f64);
        (if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..len).map(|at| value(at / width, at % width)).collect()
}
