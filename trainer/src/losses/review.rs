//! Knowledge review: each stage of the student, with what deeper ones know, beside the teacher's.

use std::cell::RefCell;

use kd_runtime::ops;
use kd_runtime::{Refusal, Result};

use super::adapters::{Connector, indices, layer, meet, student, teacher};
use super::joint::{Joint, OnGpu, PairLoss};
use super::maps::{Map, average_pool, average_pool_back};
use super::{Knowledge, Loss, Method, Pair, Tap, Weight};
use crate::exec::Real;
use crate::gpu;
use crate::gpu::losses::joint::Kept;
use crate::options::{Options, Spec};
use crate::zoo::layers::{Conv, Net, Tail};

/// The row of `review`.
pub static METHOD: Method = Method {
    name: "review",
    about: "knowledge review: deeper stages fused into shallower ones, compared at several scales",
    cite: "Chen et al. 2021",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "Of each pair `(mse(s, t) + ½·mse₄ + ¼·mse₂ + ⅛·mse₁) / (1 + ½ + ¼ + ⅛)`, with `mseₙ` after averaging both to n places \
        along each axis; sizes that the maps do not exceed are left out, in the divisor too. Summed over the pairs.\n\n\
        `s` is made from the deepest stage up: a 1x1 convolution with batch norm to as many channels as the student's deepest \
        stage has (at most 512); from the second on, two attention maps (a 1x1 convolution with bias of both, sigmoid) mix it \
        with the deeper one, whose places are repeated to its size; a 3x3 convolution with batch norm gives the teacher's \
        channels. The authors warm its weight up over 20 epochs (`schedule`).\n\n\
        Where the student's maps are larger or smaller than the teacher's, the larger ones are averaged; the authors' code \
        repeats the smaller ones.",
    source: "Chen, Liu, Zhao, Jia 2021 (arXiv 2104.09044) §3.2, 3.3; their code's `hcl`",
    weight: Weight { usual: 5.0, source: "the authors' for CIFAR", forms: &[] },
    recipe: "terms = [{ method = \"review\", schedule = { kind = \"constant\", warmup_epochs = 3.0, warmup_start = 0.0 } }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `review`.
pub static OPTIONS: &[Spec] = &[student("stages"), teacher("stages")];

/// The most channels of what is fused.
const MOST_CHANNELS: usize = 512;

/// What maps are averaged to, from the largest, which is themselves, and the weight of each.
pub fn levels(map: Map) -> Vec<(Map, f64)> {
    let longest = map.height.max(map.width);
    let smaller = [4, 2, 1].into_iter().filter(|&level| level < longest);
    let smaller = smaller.map(|level| map.resized(level.min(map.height), level.min(map.width)));
    std::iter::once(map).chain(smaller).enumerate().map(|(i, to)| (to, 0.5_f64.powi(i as i32))).collect()
}

/// Mean squared differences at full size and averaged to 4, 2 and 1 places along each axis, weighted 1, ½, ¼, ⅛, divided by
/// the sum of the weights used.
///
/// * `student`, `teacher`: `[batch, channels, height, width]` as `map` says.
/// * `d_student`: overwritten.
///
/// Source: Chen et al. 2021 (arXiv 2104.09044) §3.3 and the authors' code; series are averaged along time.
pub fn hierarchical<T: Real>(student: &[T], teacher: &[T], map: Map, d_student: &mut [T]) -> T {
    let off: Vec<T> = student.iter().zip(teacher).map(|(&s, &t)| s - t).collect();
    let mean_square = |off: &[T]| off.iter().map(|off| off.to_f64() * off.to_f64()).sum::<f64>() / off.len() as f64;
    let levels = levels(map);
    let divisor: f64 = levels.iter().map(|(_, weight)| weight).sum();
    let mut total = mean_square(&off);
    let rate = T::from_f64(2.0 / off.len() as f64 / divisor);
    d_student.iter_mut().zip(&off).for_each(|(d, &off)| *d = off * rate);
    let mut back = vec![T::ZERO; off.len()];
    for (to, weight) in levels.into_iter().skip(1) {
        let mut pooled = vec![T::ZERO; off.len() / map.places() * to.places()];
        average_pool(&off, map, to, &mut pooled);
        total += weight * mean_square(&pooled);
        let rate = T::from_f64(2.0 * weight / pooled.len() as f64 / divisor);
        pooled.iter_mut().for_each(|off| *off *= rate);
        average_pool_back(&pooled, map, to, &mut back);
        d_student.iter_mut().zip(&back).for_each(|(d, &back)| *d += back);
    }
    T::from_f64(total / divisor)
}

/// Repeats every place `times` times along an axis of the sample, and keeps the first `most`.
fn repeat(net: &mut Net, name: &str, axis: usize, times: usize, most: usize) {
    let mut shape = net.tail.shape.clone();
    let split = [&shape[..=axis], &[1], &shape[axis + 1..]].concat();
    let at = axis as i64 + 2;
    let axes = indices(net, &format!("{name}.axes"), &[at]);
    let id = net.tail.id;
    net.apply(ops::reshape::Unsqueeze, &[id, axes], &format!("{name}.split"), split.clone());
    let id = net.tail.id;
    let copies = [&split[..=axis], &[times], &split[axis + 2..]].concat();
    net.apply(ops::concat::Concat { axis: at }, &vec![id; times], &format!("{name}.copies"), copies);
    shape[axis] *= times;
    let target: Vec<i64> = std::iter::once(0).chain(shape.iter().map(|&n| n as i64)).collect();
    let target = indices(net, &format!("{name}.shape"), &target);
    let id = net.tail.id;
    net.apply(ops::reshape::Reshape { allowzero: false }, &[id, target], &format!("{name}.joined"), shape.clone());
    if shape[axis] > most {
        shape[axis] = most;
        let [starts, ends, axes] = [("starts", 0), ("ends", most), ("axis", axis + 1)]
            .map(|(part, n)| indices(net, &format!("{name}.{part}"), &[n as i64]));
        let id = net.tail.id;
        net.apply(ops::slice::Slice, &[id, starts, ends, axes], name, shape);
    }
}

/// Mixes the tail with the fused value of the next deeper stage, as two attention maps say.
fn fuse(net: &mut Net, name: &str, deeper: Tail) -> Result<()> {
    let own = net.tail.clone();
    net.tail = deeper;
    if net.tail.shape.len() != own.shape.len() {
        let found = format!("{:?} and {:?}", own.shape, net.tail.shape);
        return Err(Refusal::new("review", "student taps of one number of axes", found, "name taps of one kind"));
    }
    for axis in 1..own.shape.len() {
        let (size, most) = (net.tail.shape[axis], own.shape[axis]);
        if size < most {
            repeat(net, &format!("{name}.repeated{axis}"), axis, most.div_ceil(size), most);
        }
    }
    meet(net, &format!("{name}.deeper"), &own.shape)?;
    if net.tail.shape != own.shape {
        let found = format!("{:?} before {:?}", own.shape, net.tail.shape);
        return Err(Refusal::new("review", "student maps that do not grow with depth", found, "name other taps"));
    }
    let deeper = net.tail.clone();
    net.concat(&format!("{name}.both"), &[own.clone(), deeper.clone()]);
    net.conv(&format!("{name}.attention"), &Conv { bias: true, ..Conv::square(2, 1, 1) })?;
    let (id, shape) = (net.tail.id, net.tail.shape.clone());
    net.apply(ops::gate::Sigmoid, &[id], &format!("{name}.gates"), shape);
    let gates = net.tail.clone();
    let mut products = Vec::new();
    for (i, value) in [&own, &deeper].into_iter().enumerate() {
        net.tail = gates.clone();
        net.channels(&format!("{name}.gate{i}"), i, i + 1);
        let gate = net.tail.id;
        net.apply(ops::arith::Mul, &[value.id, gate], &format!("{name}.gated{i}"), value.shape.clone());
        products.push(net.tail.clone());
    }
    net.add(&format!("{name}.fused"), &products[0]);
    Ok(())
}

/// The method `review`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let mut taps = pair.taps(options.text("student"), options.text("teacher"))?;
    let channels = taps.last().map_or(1, |(deepest, _)| deepest.shape[0].min(MOST_CHANNELS));
    let mut deeper: Option<Tap> = None;
    for (i, (from, to)) in taps.iter_mut().enumerate().rev() {
        let fused = pair.adapt(from, |net, prefix| {
            let name = format!("{prefix}.{i}");
            if net.tail.shape.len() == 1 {
                meet(net, &name, &[channels, 1])?;
            }
            layer(net, &name, channels, Connector::NORM)?;
            match deeper.as_ref().and_then(|tap| Some((net.find(&tap.name)?, tap.shape.clone()))) {
                Some((id, shape)) => fuse(net, &name, Tail { id, shape }),
                None => Ok(()),
            }
        })?;
        *from = pair.adapt(&fused, |net, prefix| {
            layer(net, &format!("{prefix}.{i}.out"), to.shape[0], Connector { kernel: 3, ..Connector::NORM })
        })?;
        deeper = Some(fused);
    }
    let joints = taps.iter().map(|(s, t)| Joint::common(s, t, false)).collect::<Result<Vec<_>>>()?;
    let kept = RefCell::<Kept>::default();
    let on_gpu: OnGpu = Box::new(move |compared, gpu, sides, given| {
        let mut kept = kept.borrow_mut();
        gpu::losses::review::hierarchical(gpu, compared.pair > 0, sides, compared.student, &mut kept, given)
    });
    Ok(PairLoss::boxed(&taps, joints, Some(on_gpu), |compared, s, t, d| hierarchical(s, t, compared.student, d)))
}
