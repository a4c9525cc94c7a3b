//! Methods of features and sequences: gradients on a pair of networks, and their usual mistakes.

mod features;
mod hostile;
mod pairs;
mod zoo_pairs;

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::graph::Graph;

use super::tests::{noise, tapped};
use super::{Batch, Loss, Method, Pair};
use crate::exec::Parameter;
use crate::options::{Options, Setting};
use crate::recipe::Choice;
use crate::zoo::table::ARCHS;
use crate::zoo::{self, Site};

/// A small network of this architecture, whose option `list` sets its size, for samples of a shape.
pub(super) fn network_for(input: &[usize], arch: &str, (list, sizes): (&'static str, &[usize]), seed: u64) -> Graph {
    let row = ARCHS.iter().find(|row| row.name == arch).unwrap();
    let options = Options::defaults(row.options).with(list, Setting::Counts(sizes.to_vec()));
    let site = Site { input: input.to_vec(), classes: 4 };
    zoo::build(&Choice { name: row.name, options }, &site, seed).unwrap()
}

fn contract(input: &[usize]) -> Contract {
    let description = Description {
        shape: input.to_vec(),
        layout: String::new(),
        classes: (0..4).map(|class| class.to_string()).collect(),
        raw_max: None,
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    Contract::for_data(&description, "x", "logits", Meaning::Logits)
}

/// Samples of a batch in tests, their classes and places.
const SIZE: usize = 6;
const LABELS: [usize; SIZE] = [0, 3, 1, 1, 2, 0];
const PLACES: [usize; SIZE] = [4, 0, 7, 2, 1, 5];
const BATCH: Batch<'_> = Batch { size: SIZE, labels: &LABELS, mixed: &[], places: &PLACES, progress: 0.4 };

/// A method built on a student beside a teacher: the loss and the student with its adapters.
pub(super) fn built(
    method: &Method,
    options: &Options,
    (student, teacher): (&Graph, &Graph),
) -> kd_runtime::Result<(Box<dyn Loss>, Graph)> {
    let contract = contract(&[1, 1]);
    let mut pair = Pair::new(student, &contract, Some((teacher, &contract)), 8, 1);
    pair.begin_term(0);
    let loss = (method.build)(options, &mut pair)?;
    Ok((loss, pair.into_parts().0))
}

/// Where a loss's gradient, along random directions of each tap and each of its trained arrays, is not that by differences.
/// Taps of `stopped` are left out: nothing flows back to them.
pub(super) fn wrong_gradients(loss: &mut dyn Loss, graph: &Graph, teacher: &Graph, stopped: &[&str]) -> Vec<String> {
    let mut failed = Vec::new();
    let names = loss.student_taps().to_vec();
    let mut taps = tapped(graph, loss.student_taps(), SIZE, 10);
    let taught = tapped(teacher, loss.teacher_taps(), SIZE, 20);
    let taught: Vec<&[f32]> = taught.iter().map(Vec::as_slice).collect();
    let gradients = |own: Vec<Parameter<f32>>| -> Vec<Parameter<f32>> {
        own.into_iter().map(|p| Parameter { gradient: vec![f32::NAN; p.value.len()].into(), ..p }).collect()
    };
    let mut own = gradients(loss.own());
    let mut value = |taps: &[Vec<f32>], d: &mut [Vec<f32>], own: &[Parameter<f32>]| {
        let taps: Vec<&[f32]> = taps.iter().map(Vec::as_slice).collect();
        let mut d: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
        let mut own = own.to_vec();
        (loss.value(&BATCH, &taps, &taught, &mut d, &mut own).unwrap(), own)
    };
    let mut d: Vec<Vec<f32>> = taps.iter().map(|tap| vec![f32::NAN; tap.len()]).collect();
    let (_, after) = value(&taps, &mut d, &own);
    // A memory holds what a first batch wrote.
    own = after;
    let (_, after) = value(&taps, &mut d, &own);
    let mut spare = d.clone();
    // The paraphraser of `ft` is frozen at this share of the training.
    let learns = |own: &Parameter<f32>| own.role.is_trained() && !own.name.ends_with("code");
    let trained: Vec<usize> = (0..own.len()).filter(|&i| learns(&own[i])).collect();
    let stopped: Vec<bool> = names.iter().map(|tap| stopped.contains(&tap.as_str())).collect();
    for array in (0..taps.len() + trained.len()).filter(|&i| !stopped.get(i).copied().unwrap_or(false)) {
        let gradient = |i: usize| if i < d.len() { &d[i][..] } else { &after[trained[i - d.len()]].gradient };
        let g = gradient(array).to_vec();
        let largest = g.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        for direction in 0..3_u64 {
            let v: Vec<f32> = noise(40 + direction, g.len(), 1.0).into_iter().map(|x| x as f32).collect();
            let along: f64 = g.iter().zip(&v).map(|(g, v)| f64::from(g * v)).sum();
            let mut moved = |by: f32| {
                let target =
                    if array < taps.len() { &mut taps[array][..] } else { &mut own[trained[array - d.len()]].value };
                target.iter_mut().zip(&v).for_each(|(x, v)| *x += by * v);
                f64::from(value(&taps, &mut spare, &own).0)
            };
            let step = 2e-3_f32;
            let (above, below) = (moved(step), moved(-2.0 * step));
            moved(step);
            let expected = (above - below) / f64::from(2.0 * step);
            // Rounding of two f32 values over the step, and kinks that the step crosses.
            let rounding = 3e-7 * above.abs().max(1e-3) / f64::from(step);
            let bound = rounding + 0.02 * f64::from(largest) * (g.len() as f64).sqrt();
            if (along - expected).abs() > bound || along.is_nan() || largest.is_nan() {
                failed.push(format!("array {array}: {along} along the gradient, {expected} by differences"));
            }
        }
    }
    failed
}
