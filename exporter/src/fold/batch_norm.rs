//! Batch norm as inference has it is one factor and one addend a channel: into the Conv or Gemm before it, else a
//! convolution of its own, one tap a channel, which runtimes run in integers.

use kd_runtime::Result;
use kd_runtime::graph::Tensor;
use kd_runtime::ops::{Op, conv::Conv, window::Window};

use super::{Fold, bias};

/// Factor and addend of each channel, in f64: `y = factor * x + addend`.
fn line(fold: &Fold, node: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let Op::BatchNormalization(op) = fold.op(node) else { return None };
    let part = |i: usize| fold.floats(node, i).and_then(|t| t.get::<f32>());
    let (scale, bias, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let factors: Vec<f64> =
        (scale.iter().zip(var)).map(|(&s, &v)| f64::from(s) / (f64::from(v) + f64::from(op.epsilon)).sqrt()).collect();
    let addends = factors.iter().zip(bias).zip(mean).map(|((f, &b), &m)| f64::from(b) - f * f64::from(m)).collect();
    factors.iter().all(|f| f.is_finite()).then_some((factors, addends))
}

/// Into the weights of the node before it: w' = w · factor, b' = b · factor + addend, rounded once.
pub(super) fn fold(fold: &mut Fold, node: usize) -> Result<bool> {
    let Some((factors, addends)) = line(fold, node) else { return Ok(false) };
    let Some(source) = fold.only_source(node, 0) else { return Ok(false) };
    let Some(channels) = bias::channels(fold, source).filter(|&c| c == factors.len()) else { return Ok(false) };
    let Some(w) = fold.floats(source, 1) else { return Ok(false) };
    let columns = matches!(fold.op(source), Op::Gemm(gemm) if !gemm.trans_b);
    let of_channel = w.len() / channels.max(1);
    let factor = |i: usize| factors[if columns { i % channels } else { i / of_channel }];
    let values = w.get::<f32>().unwrap_or(&[]).iter().enumerate().map(|(i, &v)| (f64::from(v) * factor(i)) as f32);
    let weights = Tensor::from_vec(w.shape(), values.collect::<Vec<f32>>());
    let present = match fold.graph.nodes[source].input(2) {
        None => vec![0.0; channels],
        Some(_) => match bias::present(fold, source, channels) {
            Some(values) => values.to_vec(),
            None => return Ok(false),
        },
    };
    let biases = present.iter().zip(factors.iter().zip(&addends)).map(|(&b, (f, a))| (f64::from(b) * f + a) as f32);
    let biases = Tensor::from_vec(&[channels], biases.collect::<Vec<f32>>());
    let name = fold.graph.nodes[source].input(1).map(|id| fold.graph.value(id).name.clone()).unwrap_or_default();
    let weights = fold.constant(&format!("{name}.folded"), weights);
    let biases = fold.constant(&format!("{name}.folded.bias"), biases);
    let mut inputs = fold.graph.nodes[source].inputs.clone();
    inputs.resize(3, None);
    (inputs[1], inputs[2]) = (Some(weights), Some(biases));
    let op = fold.op(source).clone();
    fold.replace(source, op, inputs);
    fold.take_over(source, node);
    Ok(true)
}

/// One that no weights come before, on images or series: a convolution of one tap and one group a channel.
pub(super) fn to_conv(fold: &mut Fold, node: usize) -> Result<bool> {
    let Some((factors, addends)) = line(fold, node) else { return Ok(false) };
    let Some(x) = fold.graph.nodes[node].input(0) else { return Ok(false) };
    let rank = fold.rank(x);
    if !(3..=4).contains(&rank) {
        return Ok(false);
    }
    let floats = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let channels = factors.len();
    let shape: Vec<usize> = [channels, 1].into_iter().chain(std::iter::repeat_n(1, rank - 2)).collect();
    let name = fold.graph.value(fold.graph.nodes[node].outputs[0]).name.clone();
    let w = fold.constant(&format!("{name}.factor"), Tensor::from_vec(&shape, floats(factors)));
    let b = fold.constant(&format!("{name}.addend"), Tensor::from_vec(&[channels], floats(addends)));
    fold.replace(node, Conv { window: Window::default(), group: channels }, vec![Some(x), Some(w), Some(b)]);
    Ok(true)
}
