//! The losses that a GPU computes, beside the host.

use std::collections::BTreeMap;

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::{Line, bound, contract, worst};
use crate::data::UNLABELLED;
use crate::exec::cases::noise;
use crate::gpu::losses::{Given, SUMS, Seen, count_right, targets};
use crate::gpu::{Gpu, Precision};
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

/// Options that are tried besides those that hold when left out.
fn tried(method: &str) -> Vec<Vec<(&'static str, Setting)>> {
    let number = |name, x| vec![(name, Setting::Number(x))];
    let text = |name, text: &str| vec![(name, Setting::Text(text.into()))];
    let flag = |name, is| vec![(name, Setting::Flag(is))];
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
        "ab" => vec![text("reduction", "mean"), text("layer_weights", "flat")],
        "fitnets" => vec![
            text("distance", "absolute"),
            text("distance", "smooth_l1"),
            [text("distance", "huber"), number("delta", 0.3)].concat(),
            text("reduction", "half_batch"),
        ],
        _ => vec![],
    }
}

/// A line for each loss that has kernels.
pub fn losses(gpu: &Gpu) -> Result<Vec<Line>> {
    let mut lines: BTreeMap<&'static str, Line> = BTreeMap::new();
    for (classes, samples) in SIZES {
        let site = Site { input: vec![3, 8, 8], classes };
        let network = |seed| {
            let arch = ARCHS.iter().find(|arch| arch.name == "resnet8").expect("a row's name");
            zoo::build(&Choice { name: arch.name, options: Options::defaults(arch.options) }, &site, seed)
        };
        let (student, teacher, contract) = (network(1)?, network(2)?, contract(&site));
        for method in METHODS {
            for (i, options) in std::iter::once(vec![]).chain(tried(method.name)).enumerate() {
                let about = format!("{options:?}");
                let defaults = Options::defaults(method.options);
                let options = options.into_iter().fold(defaults, |all, (name, setting)| all.with(name, setting));
                let mut pair = Pair::new(&student, &contract, Some((&teacher, &contract)), 2 * samples, 1);
                pair.begin_term(0);
                let loss = match (method.build)(&options, &mut pair) {
                    Ok(loss) => loss,
                    // Some need other networks.
                    Err(_) if i == 0 => continue,
                    Err(refusal) => return Err(refusal),
                };
                if loss.on_gpu().is_some() {
                    let line = lines.entry(method.name).or_insert_with(|| line(method.name));
                    compare(loss, &about, [&pair.into_parts().0, &teacher], (classes, samples), gpu, line)?;
                }
            }
        }
        let weights = noise(3, classes).into_iter().map(|x| (x + 1.5) as f32).collect();
        let task = ce::task(&contract.output.name, Targets { smoothing: 0.1, weights });
        let line = lines.entry("ce").or_insert_with(|| line("ce"));
        compare(task, "weights of the classes", [&student, &teacher], (classes, samples), gpu, line)?;
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

/// Value and gradients of a loss on the GPU, twice, and on the host, of noise in its taps; the first two samples are equal, and the
/// third is 0.
fn compare(
    mut loss: Box<dyn Loss>,
    about: &str,
    [student, teacher]: [&Graph; 2],
    (classes, samples): (usize, usize),
    gpu: &Gpu,
    line: &mut Line,
) -> Result<()> {
    line.cases += 1;
    let mut labels: Vec<usize> = (0..samples).map(|i| 7 * i % classes).collect();
    labels[4] = UNLABELLED;
    let mixed: Vec<(usize, f32)> = (0..samples).map(|i| (i % classes, 1.0 - 0.1 * (i % 10) as f32)).collect();
    let places: Vec<usize> = (0..samples).collect();
    for mixed in [&[][..], &mixed] {
        let batch = Batch { size: samples, labels: &labels, mixed, places: &places, progress: 0.0 };
        let values = |graph: &Graph, names: &[String], seed: u64| -> Vec<Vec<f32>> {
            let tap = |(i, name): (usize, &String)| {
                let id = graph.find(name).expect("a tap of this network");
                let n = graph.value(id).shape.bind(samples).iter().product();
                let mut values: Vec<f32> = noise(seed + i as u64, n).into_iter().map(|x| 3.0 * x as f32).collect();
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
            if worst.is_nan() || worst > bound(Precision::F32) || found.len() != expected.len() {
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
