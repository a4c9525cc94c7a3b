//! Overhaul of feature distillation: what the teacher's batch norm lets through.

use std::cell::RefCell;

use kd_runtime::graph::{Dim, Graph, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::ab::halved;
use super::adapters::{Connector, connect, student, teacher};
use super::joint::{Compared, Joint, OnGpu, PairLoss};
use super::maps::sum_pairs;
use super::pair::is_never_negative;
use super::{Knowledge, Loss, Method, Pair, Tap, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Kind, Options, Range, Spec};

/// The row of `ofd`.
pub static METHOD: Method = Method {
    name: "ofd",
    about: "features before the activation, negative ones only up to a margin",
    cite: "Heo et al. 2019",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "`scale · Σ_l weight_l / batch · Σ (s - m(t))²` over the elements where `s > m(t)` or `m(t) > 0`, with `m(t) = max(t, \
        margin)` and `s` the student's tap behind a 1x1 convolution and a batch norm. A channel's margin is the mean of the \
        negative part of the normal distribution that its batch norm makes, `E[x | x < 0]` of `N(bias, scale²)`, or `-3·|scale|` \
        where less than 1 in 1000 is negative; 0 of a channel that is always 0. `weight_l` is 1 for the deepest pair, half of the \
        next for each before it.\n\n\
        The batch norm is the last one before the teacher's tap; of a sum (a residual block) the summand that is a batch norm \
        itself, and where both or none are, which a note tells, that of the first summand; joined \
        channels (ShuffleNet) have those of their parts, and 0 where they are never negative. A tap without one is left out where \
        all `stages.pre` are meant, and refused where it is named; a teacher without batch norms (`mlp`, `lstm`, `gru`, \
        `ts_transformer`) cannot teach by this method. Authors' scale: 1e-3 for CIFAR, 1e-4 for ImageNet. Their code and mdistiller's keep \
        the teacher in train mode; here it never is.",
    source: "Heo, Kim, Yun, Park, Kwak, Choi 2019 (arXiv 1904.01866) eq. 2 to 5",
    weight: Weight { usual: 1.0, source: "`scale` is the authors' 1/1000", forms: &[] },
    recipe: "terms = [{ method = \"ofd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `ofd`.
pub static OPTIONS: &[Spec] = &[
    student("stages.pre"),
    teacher("stages.pre"),
    Spec {
        name: "scale",
        about: "factor of the whole term",
        kind: Kind::Number { default: 0.001, range: Range::Positive },
    },
];

/// A channel's margin, from the scale and bias of its batch norm.
///
/// Source: arXiv 1904.01866 eq. 5; the bound of -3·|scale| is the authors' code's. Of a channel that is always 0 (both are 0,
/// as pruning leaves them) it is 0.
pub fn margin(scale: f64, bias: f64) -> f64 {
    if scale == 0.0 && bias == 0.0 {
        return 0.0;
    }
    let deviation = scale.abs();
    let at = bias / deviation;
    let below = 0.5 * statrs::function::erf::erfc(at / std::f64::consts::SQRT_2);
    if below > 1e-3 {
        bias - deviation * (-at * at / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() / below
    } else {
        -3.0 * deviation
    }
}

/// `factor · Σ (s - m)²` over the elements where `s > m` or `m > 0`, with `m = max(t, margin of its channel)`.
///
/// * `student`, `teacher`: `[batch, channels, places]`; `margins`: of each channel.
/// * `d_student`: overwritten with `2 · factor · (s - m)` there, 0 elsewhere.
///
/// Source: Heo et al. 2019 (arXiv 1904.01866) eq. 2, 3.
pub fn partial_distance<T: Real>(
    student: &[T],
    teacher: &[T],
    margins: &[T],
    places: usize,
    factor: T,
    d_student: &mut [T],
) -> T {
    let slope = factor + factor;
    let planes = student.chunks_exact(places).zip(teacher.chunks_exact(places)).zip(d_student.chunks_exact_mut(places));
    let mut total = 0.0;
    for (((s, t), d), &margin) in planes.zip(margins.iter().cycle()) {
        total += sum_pairs(s, t, d, |s, t| {
            let target = if t < margin { margin } else { t };
            let off = if s <= target && target <= T::ZERO { T::ZERO } else { s - target };
            (off * off, slope * off)
        });
    }
    T::from_f64(total) * factor
}

/// The margins of a teacher's tap, one a channel: of the batch norm that it comes from, of joined channels one part behind the
/// other; 0 where a channel is never negative. Also whether a sum on the way leaves open which summand's batch norm it is.
fn margins(graph: &Graph, tap: &Tap) -> Result<(Vec<f32>, bool)> {
    let refused = |found: String| {
        let expected = "a value that comes from a batch norm";
        let action = "choose a teacher with batch norms, or another method";
        Refusal::new(format!("tap `{}` of the teacher", tap.name), expected, found, action)
    };
    let producers = graph.producers();
    let (mut margins, mut is_open): (Vec<f32>, bool) = (Vec::new(), false);
    let mut parts: Vec<Option<ValueId>> = vec![graph.find(&tap.name)];
    // Parts are joined at most as often as there are nodes: a file cannot make them more.
    let mut steps = 0;
    while let Some(id) = parts.pop() {
        steps += 1;
        let node = id.and_then(|id| Some((id, &graph.nodes[producers[id.index()]?])));
        let Some((id, node)) = node.filter(|_| steps <= graph.nodes.len()) else {
            return Err(refused("one without".into()));
        };
        match &node.op {
            Op::Relu(_) | Op::Identity(_) => parts.push(node.input(0)),
            Op::Add(_) => {
                let summands = [node.input(0), node.input(1)];
                let are_norms = summands.map(|id| is_norm(graph, &producers, id));
                is_open |= are_norms[0] == are_norms[1];
                parts.push(summands[usize::from(are_norms == [false, true])]);
            }
            Op::BatchNormalization(_) => {
                let part = |i: usize| graph.constant(node.input(i)).and_then(|tensor| tensor.get::<f32>());
                let (Some(scales), Some(biases)) = (part(1), part(2)) else {
                    return Err(refused(format!("`{}`, whose scale is computed", node.name)));
                };
                let margin = |(&scale, &bias): (&f32, &f32)| margin(f64::from(scale), f64::from(bias)) as f32;
                let found: Vec<f32> = scales.iter().zip(biases).map(margin).collect();
                if let Some(channel) = found.iter().position(|margin| !margin.is_finite()) {
                    let found = format!("`{}`, whose scale is {} at channel {channel}", node.name, scales[channel]);
                    return Err(refused(found));
                }
                margins.extend(found);
            }
            Op::Concat(concat) if concat.axis == 1 => parts.extend(node.inputs.iter().rev()),
            _ if is_never_negative(graph, &producers, id) => match graph.value(id).shape.0.get(1) {
                Some(Dim::Known(channels)) => margins.extend(vec![0.0; *channels]),
                _ => return Err(refused("one of unknown channels".into())),
            },
            other => return Err(refused(format!("one that comes from {}", other.name()))),
        }
    }
    match margins.len() == tap.shape[0] {
        true => Ok((margins, is_open)),
        false => Err(refused(format!("{} margins for {} channels", margins.len(), tap.shape[0]))),
    }
}

/// Whether a value is what a batch norm gives, under any name.
fn is_norm(graph: &Graph, producers: &[Option<usize>], mut id: Option<ValueId>) -> bool {
    while let Some(node) = id.and_then(|id| Some(&graph.nodes[producers[id.index()]?])) {
        match node.op {
            Op::BatchNormalization(_) => return true,
            Op::Identity(_) => id = node.input(0),
            _ => return false,
        }
    }
    false
}

/// The method `ofd`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let graph = pair.teacher_graph()?;
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let mut taps = pair.taps_that(student, teacher, |_, t| margins(graph, t).map(drop))?;
    let (mut all, mut open) = (Vec::new(), Vec::new());
    for (_, tap) in &taps {
        let (margins, is_open) = margins(graph, tap)?;
        all.push(margins);
        open.extend(is_open.then(|| format!("`{}`", tap.name)));
    }
    if !open.is_empty() {
        let open = open.join(", ");
        let note = "takes the margins of the first summand where both or none are batch norms: of the teacher's";
        pair.notes.push(format!("{note} {open}"));
    }
    for (i, (from, to)) in taps.iter_mut().enumerate() {
        *from = connect(pair, from, to, i, Connector::NORM)?;
    }
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let (scale, pairs) = (options.number("scale"), joints.len());
    let factor = move |compared: Compared| (scale * halved(compared.pair, pairs) / compared.batch as f64) as f32;
    let (of_gpu, sent) = (all.clone(), RefCell::<Vec<Buffer<f32>>>::default());
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let mut sent = sent.borrow_mut();
        if sent.is_empty() {
            *sent = of_gpu.iter().map(|margins| Buffer::moved(gpu, margins)).collect::<Result<_>>()?;
        }
        let margins = (sent[compared.pair].raw(), compared.student.places());
        gpu::losses::ofd::partial_distance(gpu, compared.pair > 0, sides, margins, factor(compared), given);
        Ok(())
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), move |compared, s, t, d| {
        partial_distance(s, t, &all[compared.pair], compared.student.places(), factor(compared), d)
    }))
}

#[cfg(test)]
mod tests {
    use kd_runtime::ops::arith::Add;

    use super::*;
    use crate::zoo::Site;
    use crate::zoo::layers::{Conv, Net, Tail};

    /// A sum is named in any order: PyTorch's exports begin with the block, Keras' with the shortcut.
    #[test]
    fn the_margins_of_a_sum_are_those_of_its_batch_norm() {
        let mut net = Net::new("sums", &Site { input: vec![1, 4, 4], classes: 4 }).unwrap();
        let mut parts: Vec<Tail> = Vec::new();
        for name in ["before", "block"] {
            net.conv_norm(name, &Conv::square(2, 1, 1)).unwrap();
            parts.push(net.tail.clone());
            net.relu(&format!("{name}.relu"));
            parts.push(net.tail.clone());
        }
        let [before, before_relu, block, block_relu] = &parts[..] else { unreachable!() };
        let sums = [[before_relu, block], [block, before_relu], [before, block], [before_relu, block_relu]];
        for (i, [a, b]) in sums.iter().enumerate() {
            net.apply(Add, &[a.id, b.id], &format!("sum{i}"), vec![2, 4, 4]);
        }
        let mut graph = net.into_parts().0;
        for (name, bias) in [("before.bias", 5.0), ("block.bias", -5.0)] {
            let id = graph.find(name).unwrap();
            graph.initializers.get_mut(&id).unwrap().get_mut::<f32>().unwrap().fill(bias);
        }
        let (of_before, of_block) = (margin(1.0, 5.0) as f32, margin(1.0, -5.0) as f32);
        for (i, (expected, is_open)) in
            [(of_block, false), (of_block, false), (of_before, true), (of_before, true)].into_iter().enumerate()
        {
            let tap = Tap { name: format!("sum{i}"), shape: vec![2, 4, 4] };
            assert_eq!(margins(&graph, &tap), Ok((vec![expected; 2], is_open)), "{i}");
        }
    }

    /// A value that is cut at 0 and at 6 has no negative part, as one behind a ReLU.
    #[test]
    fn a_clip_from_zero_on_is_never_negative() {
        let mut net = Net::new("clip", &Site { input: vec![2, 4, 4], classes: 4 }).unwrap();
        net.relu6("six");
        let mut graph = net.finish().unwrap();
        let tap = Tap { name: "six".into(), shape: vec![2, 4, 4] };
        assert_eq!(margins(&graph, &tap), Ok((vec![0.0; 2], false)));
        let low = graph.find("six.low").unwrap();
        graph.initializers.get_mut(&low).unwrap().get_mut::<f32>().unwrap().fill(-0.5);
        assert!(margins(&graph, &tap).is_err());
    }
}
