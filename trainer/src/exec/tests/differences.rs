//! Every gradient against central differences in f64.

use super::super::cases::{self, noise};
use super::super::{Executor, Mode, Plan};
use crate::ops::table;

/// The step of the differences: rounding (1e-16 / 1e-5) and curvature (1e-10) are both below the tolerance.
const STEP: f64 = 1e-5;
/// Relative to the largest gradient of a parameter.
const TOLERANCE: f64 = 1e-7;

/// The largest deviation of any gradient of a network's parameters, relative to the largest of that parameter.
fn deviation(graph: &kd_runtime::graph::Graph, batch: usize, threads: usize, mode: Mode) -> Result<f64, String> {
    let plan = Plan { batch, taps: vec![], backward: true, threads, gpu: None };
    let mut executor = Executor::<f64>::new(graph, &plan).map_err(|refusal| refusal.to_string())?;
    let output = graph.outputs[0];
    let x = noise(1, batch * 3);
    let run = |executor: &mut Executor<f64>| executor.forward(&x, batch, mode).map_err(|refusal| refusal.to_string());
    run(&mut executor)?;
    let weights = noise(2, executor.value(output).len());
    executor.backward(&[(output, &weights)]).map_err(|refusal| refusal.to_string())?;
    executor.check_gradients(&[]).map_err(|refusal| refusal.to_string())?;
    let loss =
        |executor: &Executor<f64>| -> f64 { executor.value(output).iter().zip(&weights).map(|(y, w)| y * w).sum() };
    let mut worst = 0.0_f64;
    for p in 0..executor.parameters().len() {
        let found = executor.parameters()[p].gradient.clone();
        let mut expected = Vec::with_capacity(found.len());
        for i in 0..found.len() {
            let old = executor.parameters()[p].value[i];
            let mut at = |value: f64| {
                executor.parameters_mut()[p].value[i] = value;
                run(&mut executor).map(|()| loss(&executor))
            };
            let slope = (at(old + STEP)? - at(old - STEP)?) / (2.0 * STEP);
            executor.parameters_mut()[p].value[i] = old;
            expected.push(slope);
        }
        let scale = expected.iter().fold(1e-3_f64, |a, b| a.max(b.abs()));
        let off = found.iter().zip(&expected).fold(0.0_f64, |a, (f, e)| a.max((f - e).abs()));
        if off / scale > TOLERANCE {
            let name = &executor.parameters()[p].name;
            return Err(format!("{name}: off by {off:.1e} of {scale:.1e}: {found:.4?} expected {expected:.4?}"));
        }
        worst = worst.max(off / scale);
    }
    Ok(worst)
}

#[test]
fn every_gradient_equals_central_differences() {
    let mut failed = Vec::new();
    let cases = cases::all();
    for case in &cases {
        for (batch, threads) in [(1, 1), (1, 2), (7, 1), (7, 2)] {
            let modes: &[Mode] = match case.op {
                "BatchNormalization" | "Dropout" => &[Mode::Train { seed: 5 }, Mode::Eval],
                _ => &[Mode::Train { seed: 5 }],
            };
            // Batch statistics of one element have no gradient to compare: everything is 0.
            let single = case.about == "of vectors" && batch == 1;
            for &mode in modes.iter().filter(|mode| !single || **mode == Mode::Eval) {
                if let Err(error) = deviation(&case.graph, batch, threads, mode) {
                    let place = format!("batch {batch}, {threads} threads, {mode:?}");
                    failed.push(format!("{} ({}), {place}: {error}", case.op, case.about));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_operator_of_the_table_has_a_case() {
    let cases = cases::all();
    let lacking: Vec<_> = table::NAMES.iter().filter(|name| !cases.iter().any(|case| case.op == **name)).collect();
    assert!(lacking.is_empty(), "no case for {lacking:?}");
}
