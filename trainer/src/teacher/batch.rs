//! Networks that were exported for one sample at a time.

use std::borrow::Cow;

use kd_runtime::graph::{Dim, Graph, Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use crate::exec::random::Stream;
use crate::exec::{Executor, Mode, Plan};

/// Samples that are compared with the same samples alone.
const COMPARED: usize = 3;

/// The graph for any number of samples: itself if its first size is the batch already. Else its one input `[1, …]`
/// becomes `[N, …]`, and a `Reshape` to `[1, …]` of what depends on it keeps its first size instead. That is the same
/// network only if no operator mixes samples, so it is run: a few samples together must give what each gives alone.
pub fn open(graph: &Graph) -> Result<Cow<'_, Graph>> {
    let [input] = graph.inputs[..] else { return Ok(Cow::Borrowed(graph)) };
    match graph.value(input).shape.0.first() {
        Some(Dim::Known(1)) => {}
        _ => return Ok(Cow::Borrowed(graph)),
    }
    let mut opened = graph.clone();
    opened.values[input.index()].shape.0[0] = Dim::Batch;
    open_reshapes(&mut opened);
    let refuse = |found: String| {
        Refusal::new(
            format!("network input `{}`", graph.value(input).name),
            "a batch of any size [N, …], or of 1 where samples do not meet",
            found,
            "export the model with a symbolic batch",
        )
    };
    opened.validate().map_err(|e| refuse(format!("a batch of 1 that cannot be opened ({e})")))?;
    if !samples_are_apart(&opened).map_err(|e| refuse(format!("a batch of 1 that cannot be opened ({e})")))? {
        return Err(refuse("operators that mix samples".into()));
    }
    Ok(Cow::Owned(opened))
}

/// Sets the first size of the target of every `Reshape` from 1 to 0 (keep), where what it reshapes begins with 1 and
/// depends on the input.
fn open_reshapes(graph: &mut Graph) {
    let mut depends = vec![false; graph.values.len()];
    graph.inputs.iter().for_each(|id| depends[id.index()] = true);
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        if !node.inputs.iter().flatten().any(|id| depends[id.index()]) {
            continue;
        }
        node.outputs.iter().for_each(|id| depends[id.index()] = true);
        let keeps_zero = matches!(&node.op, Op::Reshape(reshape) if !reshape.allowzero);
        let begins_with_batch = |id: ValueId| {
            depends[id.index()] && matches!(graph.value(id).shape.0.first(), Some(Dim::Known(1) | Dim::Batch))
        };
        if !keeps_zero || !node.input(0).is_some_and(begins_with_batch) {
            continue;
        }
        let Some(target) = graph.constant(node.input(1)).and_then(Tensor::get::<i64>) else { continue };
        if let [1, rest @ ..] = target {
            let target: Vec<i64> = [0].iter().chain(rest).copied().collect();
            let name = graph.fresh_name("kept_batch");
            let id = graph.add_initializer(&name, Tensor::from_vec(&[target.len()], target));
            depends.push(false);
            graph.nodes[i].inputs[1] = Some(id);
        }
    }
}

/// Runs a few samples together and alone.
fn samples_are_apart(graph: &Graph) -> Result<bool> {
    let plan = |batch| Plan { batch, taps: Vec::new(), backward: false, threads: 1, gpu: None };
    let mut together = Executor::<f32>::new(graph, &plan(COMPARED))?;
    let mut alone = Executor::<f32>::new(graph, &plan(1))?;
    let input = graph.inputs[0];
    let elements: usize = graph.value(input).shape.bind(1).iter().product();
    let noise = Stream::new(1, 0);
    let x: Vec<f32> = (0..COMPARED * elements).map(|i| noise.uniform(i)).collect();
    together.forward(&x, COMPARED, Mode::Eval)?;
    for (i, sample) in x.chunks_exact(elements).enumerate() {
        alone.forward(sample, 1, Mode::Eval)?;
        for &output in &graph.outputs {
            let one = alone.value(output);
            let same = &together.value(output)[i * one.len()..][..one.len()];
            let largest = one.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            // Kernels may sum in another order for another batch: far below 1e-4 of the largest output.
            if one.iter().zip(same).any(|(a, b)| (a - b).abs() > 1e-4 * largest) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
