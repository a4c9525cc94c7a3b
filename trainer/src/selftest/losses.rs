//! The losses that a GPU computes, beside the host.

use std::collections::BTreeMap;

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::{Line, bound, contract, worst};
use crate::data::UNLABELLED;
use crate::exec::cases::noise;
use crate::gpu::Gpu;
use crate::gpu::losses::{Given, SUMS, Seen, count_right, targets};
use crate::losses::ce::{self, Targets};
use crate::losses::table::METHODS;
use crate::losses::{Batch, Loss, Pair};
use crate::ops::kernels::buffer::Buffer;
use crate::options::{Options, Setting};
use crate::recipe::Choice;
use crate::teacher::largest;
use crate::zoo::table::ARCHS;
use crate::zoo::{self, Site};

/// Classes and samples: more than a group has threads, and fewer; pairs for one group, and for several.
const SIZES: [(usize, usize); 2] = [(300, 6), (5, 40)];

/// Options that differ from those that hold when left out.
type Tried = Vec<(&'static str, Setting)>;

/// A network, what it is fed, and the options that are tried of a method.
type Tries = (&'static str, &'static [usize], fn(&str) -> Vec<Tried>);

const NETWORKS: [Tries; 2] = [("resnet8", &[3, 8, 8], of_images), ("ts_transformer", &[3, 40], of_series)];

fn of_images(method: &str) -> Vec<Tried> {
    std::iter::once(vec![]).chain(tried(method)).collect()
}

/// Of those whose taps are tokens, or scores of attention.
fn of_series(method: &str) -> Vec<Tried> {
    let tokens = |names: &str, more: Tried| {
        let [student, teacher] = ["student", "teacher"].map(|side| (side, Setting::Text(names.into())));
        vec![[vec![("tokens", Setting::Flag(true)), student, teacher], more].concat()]
    };
    match method {
        "attention_relation" => tokens(
            "stage2.query, stage2.key, stage2.value",
            vec![("relation", Setting::Text("attention_and_values".into())), ("heads", Setting::Count(4))],
        ),
        "cosine" | "tat" => tokens("stage2.value", vec![]),
        "soft_dtw" => tokens("stage2.value", vec![("longest", Setting::Count(3))]),
        "tinybert_attention" => vec![vec![]],
        "tinybert_hidden" => tokens("stage1.value, stage2.value", vec![]),
        _ => vec![],
    }
}

/// Options that are tried besides those that hold when left out.
fn tried(method: &str) -> Vec<Tried> {
    let number = |name, x| vec![(name, Setting::Number(x))];
    let text = |name, text: &str| vec![(name, Setting::Text(text.into()))];
    let flag = |name, is| vec![(name, Setting::Flag(is))];
    let count = |name, n| vec![(name, Setting::Count(n))];
    let taps = |student, teacher| [text("student", student), text("teacher", teacher)].concat();
    match method {
        "ce" => {
            vec![number("label_smoothing", 0.1), [number("label_smoothing", 0.9), text("spread", "others")].concat()]
        }
        "kd" => vec![
            flag("standardize", true),
            [flag("tau2", false), text("reduction", "sum")].concat(),
            [number("temperature", 1.0), text("reduction", "mean")].concat(),
        ],
        "codistill" => ["kl", "mse_probabilities", "mse_logits"].map(|psi| text("psi", psi)).into(),
        "byot" => ["paper", "seed_literal", "masked"].map(|form| text("form", form)).into(),
        "rkd_d" => vec![
            flag("l2norm", true),
            [text("mu", "nonzero"), text("reduction", "sum")].concat(),
            [text("mu", "all"), text("zero", "clamp"), text("reduction", "mean_distinct")].concat(),
        ],
        "rkd_a" => vec![flag("l2norm", true), text("reduction", "sum"), text("reduction", "mean_distinct")],
        "mse_logits" => vec![flag("center", true), text("reduction", "batchmean")],
        "bce" => vec![
            [number("label_smoothing", 0.1), text("reduction", "batchmean")].concat(),
            [number("label_smoothing", 0.1), text("share", "whole")].concat(),
        ],
        "cs_kd" => vec![number("temperature", 1.0)],
        "dist" => vec![
            [number("temperature", 4.0), number("beta", 2.0), number("gamma", 0.5)].concat(),
            [number("temperature", 0.7), flag("tau2", false), number("gamma", 0.0)].concat(),
        ],
        "dkd" => vec![
            [number("temperature", 1.0), number("alpha", 0.5)].concat(),
            [number("alpha", 3.0), number("beta", 1.0)].concat(),
        ],
        "mlkd" => vec![[number("temperature", 0.7), vec![("others", Setting::Counts(vec![]))]].concat()],
        "nkd" => vec![[number("temperature", 3.0), number("gamma", 0.5)].concat(), number("gamma", 0.0)],
        "ofa" => vec![[number("exponent", 1.4), number("temperature", 2.0)].concat(), number("exponent", 0.5)],
        "tf_kd" => vec![
            [number("correct", 0.6), number("temperature", 0.5), text("reduction", "batchmean")].concat(),
            text("reduction", "sum"),
        ],
        "wsld" => vec![number("temperature", 1.0), number("temperature", 8.0)],
        "ab" => vec![
            text("reduction", "mean"),
            text("layer_weights", "flat"),
            // Of other sizes: the larger map is averaged. So below.
            taps("stage2.pre", "stage1.pre"),
        ],
        "at" => vec![
            [taps("stage1", "stage3"), count("power", 3)].concat(),
            [taps("stage3", "stage1"), count("power", 1), text("form", "paper")].concat(),
        ],
        "attention_relation" => vec![
            [taps("stage1", "stage2"), count("heads", 4), count("longest", 9)].concat(),
            [
                taps("stage1, stage1.pre, stage2", "stage1, stage1.pre, stage2"),
                text("relation", "attention_and_values"),
            ]
            .concat(),
        ],
        "cc" => vec![[number("gamma", 0.8), count("order", 4)].concat()],
        "cosine" => vec![taps("stages", "stages"), taps("stage2", "stage1")],
        "fsp" => vec![text("form", "paper"), taps("stage1.pre, stage1", "stage1.pre, stage1")],
        "nst" => vec![taps("stage1", "stage3")],
        "ofd" => vec![number("scale", 0.5)],
        "pkt" => vec![taps("stage1", "stage2")],
        "review" => vec![taps("stage2, stage3", "stage1, stage2")],
        "soft_dtw" => vec![
            [taps("stage1", "stage2"), count("longest", 3)].concat(),
            [number("gamma", 5.0), flag("divergence", false), flag("normalize", false)].concat(),
        ],
        "sp" => vec![taps("stage2", "stage3")],
        "srrl" => vec![[number("feature", 0.5), number("answer", 5.0)].concat()],
        "tat" => vec![[taps("stage1", "stage2"), text("form", "paper")].concat()],
        "tinybert_attention" => vec![[taps("stage1, stage2", "stage1, stage2"), number("floor", -1.0)].concat()],
        "tinybert_hidden" => vec![taps("stage2", "stage1")],
        "fitnets" => vec![
            text("distance", "absolute"),
            text("distance", "smooth_l1"),
            [text("distance", "huber"), number("delta", 0.3)].concat(),
            text("reduction", "half_batch"),
            taps("stage2", "stage1"),
        ],
        _ => vec![],
    }
}

/// A line for each loss that has kernels.
pub fn losses(gpu: &Gpu) -> Result<Vec<Line>> {
    let mut lines: BTreeMap<&'static str, Line> = BTreeMap::new();
    for ((classes, samples), (arch, input, tried)) in SIZES.into_iter().flat_map(|size| NETWORKS.map(|of| (size, of))) {
        let site = Site { input: input.to_vec(), classes };
        let network = |seed| {
            let arch = ARCHS.iter().find(|row| row.name == arch).expect("a row's name");
            zoo::build(&Choice { name: arch.name, options: Options::defaults(arch.options) }, &site, seed)
        };
        let (student, teacher, contract) = (network(1)?, network(2)?, contract(&site));
        for method in METHODS {
            for options in tried(method.name) {
                let (about, is_usual) = (format!("{options:?}"), options.is_empty());
                let defaults = Options::defaults(method.options);
                let options = options.into_iter().fold(defaults, |all, (name, setting)| all.with(name, setting));
                let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 2 * samples, 1);
                pair.begin_term(0);
                let loss = match (method.build)(&options, &mut pair) {
                    Ok(loss) => loss,
                    // Some need other networks.
                    Err(_) if is_usual => continue,
                    Err(refusal) => return Err(refusal),
                };
                if loss.on_gpu().is_some() {
                    let line = lines.entry(method.name).or_insert_with(|| line(method.name));
                    let networks = [&pair.into_parts().0, &teacher];
                    compare(loss, &about, networks, (classes, samples), method.needs_labels, gpu, line)?;
                }
            }
        }
        let weights = noise(3, classes).into_iter().map(|x| (x + 1.5) as f32).collect();
        let task = ce::task(&contract.output.name, Targets { smoothing: 0.1, weights });
        let line = lines.entry("ce").or_insert_with(|| line("ce"));
        compare(task, "weights of the classes", [&student, &teacher], (classes, samples), false, gpu, line)?;
    }
    let mut right = line("right answers");
    count(gpu, &mut right)?;
    Ok(lines.into_values().chain([right]).collect())
}

/// The count of right answers, some of whose logits are equal, beside the host.
fn count(gpu: &Gpu, line: &mut Line) -> Result<()> {
    for classes in [1, 5] {
        let rows = 600;
        let logits: Vec<f32> = noise(4, rows * classes).into_iter().map(|x| (2.0 * x).round() as f32).collect();
        let labels: Vec<usize> = (0..rows).map(|i| if i % 7 == 0 { UNLABELLED } else { i % classes }).collect();
        let batch = Batch { size: rows, labels: &labels, mixed: &[], places: &[], progress: 0.0 };
        let (sent, targets) = (Buffer::moved(gpu, &logits)?, Buffer::moved(gpu, &targets(&batch))?);
        let mut found = Buffer::on(gpu, 1)?;
        count_right(gpu, sent.raw(), targets.raw(), found.raw_mut());
        let expected = logits.chunks_exact(classes).zip(&labels).filter(|(row, label)| largest(row) == **label).count();
        let found = found[0];
        gpu.wait()?;
        line.cases += 1;
        if found != expected as f32 {
            line.failed.push(format!("right answers: {found} of {classes} classes, expected {expected}"));
        }
    }
    Ok(())
}

fn line(op: &'static str) -> Line {
    Line { op, on: "gpu", ..Line::default() }
}

/// Value and gradients of a loss on the GPU, twice, and on the host, of noise in its taps; the first two samples are equal, the
/// third is 0, and the fifth has no label, unless the loss needs all.
fn compare(
    mut loss: Box<dyn Loss>,
    about: &str,
    [student, teacher]: [&Graph; 2],
    (classes, samples): (usize, usize),
    needs_labels: bool,
    gpu: &Gpu,
    line: &mut Line,
) -> Result<()> {
    line.cases += 1;
    // Larger products would leave their softmax in a single place, and of the differences of probabilities only
    // rounding.
    let most = if line.op == "attention_relation" { 1.0 } else { 3.0 };
    let mut labels: Vec<usize> = (0..samples).map(|i| 7 * i % classes).collect();
    if !needs_labels {
        labels[4] = UNLABELLED;
    }
    let mixed: Vec<(usize, f32)> = (0..samples).map(|i| (i % classes, 1.0 - 0.1 * (i % 10) as f32)).collect();
    let places: Vec<usize> = (0..samples).collect();
    for mixed in [&[][..], &mixed] {
        let batch = Batch { size: samples, labels: &labels, mixed, places: &places, progress: 0.0 };
        let values = |graph: &Graph, names: &[String], seed: u64| -> Vec<Vec<f32>> {
            let tap = |(i, name): (usize, &String)| {
                let id = graph.find(name).expect("a tap of this network");
                let n = graph.value(id).shape.bind(samples).iter().product();
                let mut values: Vec<f32> = noise(seed + i as u64, n).into_iter().map(|x| most * x as f32).collect();
                let row = n / samples;
                values.copy_within(..row, row);
                values[2 * row..3 * row].fill(0.0);
                values
            };
            names.iter().enumerate().map(tap).collect()
        };
        let (ours, theirs) = (values(student, loss.student_taps(), 10), values(teacher, loss.teacher_taps(), 20));
        let (ours, theirs): (Vec<&[f32]>, Vec<&[f32]>) =
            (ours.iter().map(|x| &x[..]).collect(), theirs.iter().map(|x| &x[..]).collect());
        let mut expected: Vec<Vec<f32>> = ours.iter().map(|x| vec![0.0; x.len()]).collect();
        let mut d: Vec<&mut [f32]> = expected.iter_mut().map(|d| &mut d[..]).collect();
        let value = loss.value(&batch, &ours, &theirs, &mut d, &mut [])?;
        expected.push(vec![value]);
        let [found, again] =
            [on_gpu(&*loss, &batch, &ours, &theirs, gpu)?, on_gpu(&*loss, &batch, &ours, &theirs, gpu)?];
        if found != again {
            line.failed.push(format!("{} ({about}): other bits the second time", line.op));
        }
        for (expected, found) in expected.iter().zip(&found) {
            let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
            let worst = worst(expected.iter().zip(found).map(|(a, b)| f64::from((a - b).abs() / scale)));
            line.worst = line.worst.max(worst);
            if worst.is_nan() || worst > bound(gpu.precision()) || found.len() != expected.len() {
                line.failed.push(format!("{} ({about}): off by {worst:.1e} of its largest element", line.op));
            }
        }
    }
    Ok(())
}

/// Gradients, and the value.
fn on_gpu(
    loss: &dyn Loss,
    batch: &Batch<'_>,
    student: &[&[f32]],
    teacher: &[&[f32]],
    gpu: &Gpu,
) -> Result<Vec<Vec<f32>>> {
    let moved = |all: &[&[f32]]| all.iter().map(|x| Buffer::moved(gpu, x)).collect::<Result<Vec<_>>>();
    let (student, teacher, targets) = (moved(student)?, moved(teacher)?, Buffer::moved(gpu, &targets(batch))?);
    let mut d = student.iter().map(|x| Buffer::on(gpu, x.len())).collect::<Result<Vec<_>>>()?;
    let (mut sums, mut value) = (Buffer::on(gpu, SUMS)?, Buffer::on(gpu, 1)?);
    let [ours, theirs] = [&student, &teacher].map(|all| all.iter().map(Buffer::raw).collect::<Vec<_>>());
    let seen = Seen { gpu, batch, targets: targets.raw(), student: &ours, teacher: &theirs };
    let mut d_student: Vec<&mut [f32]> = d.iter_mut().map(Buffer::raw_mut).collect();
    let mut given = Given { d_student: &mut d_student, sums: sums.raw_mut(), value: value.raw_mut() };
    loss.on_gpu().expect("a loss with kernels").value(&seen, &mut given)?;
    d.push(value);
    let all = d.iter().map(|x| x.to_vec()).collect();
    gpu.wait()?;
    Ok(all)
}
