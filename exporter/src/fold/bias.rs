//! A constant that is added to each output channel of a Conv or Gemm becomes its bias.

use kd_runtime::Result;
use kd_runtime::graph::Tensor;
use kd_runtime::ops::Op;

use super::Fold;

pub(super) fn rewrite(fold: &mut Fold, node: usize) -> Result<bool> {
    if !matches!(fold.op(node), Op::Add(_)) || fold.graph.nodes[node].inputs.len() != 2 {
        return Ok(false);
    }
    let Some(which) = (0..2).find(|&i| fold.floats(node, 1 - i).is_some()) else { return Ok(false) };
    let Some(source) = fold.only_source(node, which) else { return Ok(false) };
    let Some(channels) = channels(fold, source) else { return Ok(false) };
    let rank = fold.rank(fold.graph.nodes[source].outputs[0]);
    let Some(added) = fold.floats(node, 1 - which).and_then(|t| per_channel(t, channels, rank)) else {
        return Ok(false);
    };
    if fold.rank(fold.graph.nodes[node].outputs[0]) != rank {
        return Ok(false);
    }
    let mut bias = vec![0.0; channels];
    if fold.graph.nodes[source].input(2).is_some() {
        let Some(present) = present(fold, source, channels) else { return Ok(false) };
        bias.copy_from_slice(present);
    }
    bias.iter_mut().zip(&added).for_each(|(b, a)| *b += a);
    let name = fold.graph.value(fold.graph.nodes[source].outputs[0]).name.clone();
    let bias = fold.constant(&format!("{name}.bias"), Tensor::from_vec(&[channels], bias));
    let mut inputs = fold.graph.nodes[source].inputs.clone();
    inputs.resize(3, None);
    inputs[2] = Some(bias);
    let op = fold.op(source).clone();
    fold.replace(source, op, inputs);
    fold.take_over(source, node);
    Ok(true)
}

/// The bias that a Conv or Gemm has, a number for each output channel; `None` if it is something else.
pub(super) fn present(fold: &Fold, node: usize, channels: usize) -> Option<&[f32]> {
    let tensor = fold.floats(node, 2)?;
    let [before @ .., columns] = tensor.shape() else { return None };
    (*columns == channels && before.iter().all(|&n| n == 1)).then(|| tensor.get::<f32>()).flatten()
}

/// Output channels of a Conv, or of a Gemm that adds its bias as it is, with constant weights.
pub(super) fn channels(fold: &Fold, node: usize) -> Option<usize> {
    let w = fold.floats(node, 1)?;
    match fold.op(node) {
        Op::Conv(_) => w.shape().first().copied(),
        Op::Gemm(gemm) if gemm.alpha == 1.0 && gemm.beta == 1.0 && !gemm.trans_a => {
            w.shape().get(usize::from(!gemm.trans_b)).copied()
        }
        _ => None,
    }
}

/// The numbers of each channel (axis 1 of `rank`) that a tensor is when it is added; `None` if it is something else.
fn per_channel(tensor: &Tensor, channels: usize, rank: usize) -> Option<Vec<f32>> {
    let values = tensor.get::<f32>()?;
    if values.len() == 1 && tensor.shape().len() <= rank {
        return Some(vec![values[0]; channels]);
    }
    let from_end = rank - 2;
    let shape = tensor.shape();
    let axis = shape.len().checked_sub(1 + from_end)?;
    let others_are_one = shape.iter().enumerate().all(|(i, &n)| i == axis || n == 1);
    (shape.len() <= rank && others_are_one && shape[axis] == channels).then(|| values.to_vec())
}
