//! What training computes in, f32 by the tiles of every instruction set that this machine has, against f64 by the scalar
//! ones, which central differences prove.

use std::process::Command;

use kd_runtime::graph::Graph;

use super::super::cases::{self, Case, noise};
use super::super::{Executor, Mode, Plan, Real};
use crate::ops::kernels::rows;

/// Relative to the largest element of an array: what f32 loses in sums of some thousand products.
const TOLERANCE: f64 = 2e-5;

/// The output, and the gradients of all parameters by name.
fn step<T: Real>(graph: &Graph, batch: usize, threads: usize, mode: Mode) -> Result<Vec<(String, Vec<f64>)>, String> {
    let told = |refusal: kd_runtime::Refusal| refusal.to_string();
    let plan = Plan { batch, taps: vec![], backward: true, threads, gpu: None };
    let mut executor = Executor::<T>::new(graph, &plan).map_err(told)?;
    // Both floats hold these.
    let exact = |place, n| -> Vec<T> { noise(place, n).into_iter().map(|v| T::from_f32(v as f32)).collect() };
    executor.forward(&exact(1, batch * 3), batch, mode).map_err(told)?;
    let y = executor.value(graph.outputs[0]).to_vec();
    executor.backward(&[(graph.outputs[0], &exact(2, y.len()))]).map_err(told)?;
    let wide = |values: &[T]| values.iter().map(|v| v.to_f64()).collect();
    let gradients = executor.parameters().iter().map(|p| (p.name.clone(), wide(&p.gradient)));
    Ok(std::iter::once(("y".to_string(), wide(&y))).chain(gradients).collect())
}

fn compare(case: &Case, batch: usize, threads: usize) -> Result<(), String> {
    let mode = Mode::Train { seed: 5 };
    let (found, expected) =
        (step::<f32>(&case.graph, batch, threads, mode)?, step::<f64>(&case.graph, batch, 1, mode)?);
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        // What cancels keeps the rounding of its terms.
        let scale = expected.iter().fold(1e-2_f64, |a, v| a.max(v.abs()));
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let off = (f - e).abs() / scale;
            if off.is_nan() || off > TOLERANCE {
                return Err(format!("{name}[{i}]: {f} instead of {e}, off by {off:.1e} of {scale:.1e}"));
            }
        }
    }
    Ok(())
}

#[test]
fn f32_equals_f64_in_values_and_gradients() {
    let mut failed = Vec::new();
    for case in cases::all().iter().chain(&cases::wide::cases()) {
        for (batch, threads) in [(1, 1), (7, 1), (7, 2)] {
            // Batch statistics of one element have no gradient to compare: everything is 0.
            if batch == 1 && case.about == "of vectors" {
                continue;
            }
            if let Err(error) = compare(case, batch, threads) {
                failed.push(format!("{} ({}), batch {batch}, {threads} threads: {error}", case.op, case.about));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// The test above once more in a process for each instruction set that this machine has.
#[test]
fn every_instruction_set_equals_f64() {
    let program = std::env::current_exe().unwrap();
    for isa in rows::there() {
        let output = Command::new(&program)
            .args(["--exact", "exec::tests::single::f32_equals_f64_in_values_and_gradients"])
            .env("KD_CPU", isa)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{isa}: {told}");
    }
}
