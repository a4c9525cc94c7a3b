//! Overhaul of feature distillation: what the teacher's batch norm lets through.

use std::collections::BTreeSet;

use kd_runtime::graph::{Dim, Graph, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::ab::halved;
use super::adapters::{Connector, connect, student, teacher};
use super::joint::{Joint, PairLoss};
use super::maps::sum_pairs;
use super::{Knowledge, Loss, Method, Pair, Tap, Weight};
use crate::exec::Real;
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
        where less than 1 in 1000 is negative. `weight_l` is 1 for the deepest pair, half of the next for each before it.\n\n\
        The batch norm is the last one before the teacher's tap; of a sum (a residual block) that of its first summand; joined \
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
/// Source: arXiv 1904.01866 eq. 5; the bound of -3·|scale| is the authors' code's.
pub fn margin(scale: f64, bias: f64) -> f64 {
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
/// other; 0 where a channel is never negative.
fn margins(graph: &Graph, tap: &Tap) -> Result<Vec<f32>> {
    let refused = |found: String| {
        let expected = "a value that comes from a batch norm";
        let action = "choose a teacher with batch norms, or another method";
        Refusal::new(format!("tap `{}` of the teacher", tap.name), expected, found, action)
    };
    let producers = graph.producers();
    let mut margins: Vec<f32> = Vec::new();
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
            Op::Add(_) | Op::Relu(_) | Op::Identity(_) => parts.push(node.input(0)),
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
        true => Ok(margins),
        false => Err(refused(format!("{} margins for {} channels", margins.len(), tap.shape[0]))),
    }
}

/// Whether a value is made of what ReLUs and sigmoids let through.
fn is_never_negative(graph: &Graph, producers: &[Option<usize>], id: ValueId) -> bool {
    let (mut left, mut seen) = (vec![id], BTreeSet::new());
    while let Some(id) = left.pop() {
        let Some(node) = producers[id.index()].map(|i| &graph.nodes[i]) else { return false };
        match &node.op {
            _ if !seen.insert(id) => {}
            Op::Relu(_) | Op::Sigmoid(_) => {}
            Op::Concat(_) => left.extend(node.inputs.iter().flatten()),
            Op::Slice(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::Identity(_) => {
                left.extend(node.input(0));
            }
            _ => return false,
        }
    }
    true
}

/// The method `ofd`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let graph = pair.teacher_graph()?;
    let (student, teacher) = (options.text("student"), options.text("teacher"));
    let mut taps = pair.taps_that(student, teacher, |_, t| margins(graph, t).map(drop))?;
    let margins = taps.iter().map(|(_, tap)| margins(graph, tap)).collect::<Result<Vec<_>>>()?;
    for (i, (from, to)) in taps.iter_mut().enumerate() {
        *from = connect(pair, from, to, i, Connector::NORM)?;
    }
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let (scale, pairs) = (options.number("scale"), joints.len());
    Ok(PairLoss::boxed(&taps, joints, move |compared, s, t, d| {
        let factor = scale * halved(compared.pair, pairs) / compared.batch as f64;
        partial_distance(s, t, &margins[compared.pair], compared.student.places(), factor as f32, d)
    }))
}
