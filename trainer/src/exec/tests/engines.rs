//! What a network answers is what the runtime's engine answers, which shares no kernel with training.

use kd_runtime::engine::Engine;

use super::super::cases::{self, Case, noise};
use super::super::{Executor, Mode, Plan};

/// Relative to the largest element: what f32 loses in sums of some thousand products.
const TOLERANCE: f32 = 2e-5;
const BATCH: usize = 3;

fn off(case: &Case) -> Result<f32, String> {
    let x: Vec<f32> = noise(1, BATCH * 3).into_iter().map(|x| x as f32).collect();
    let plan = Plan { batch: BATCH, taps: vec![], backward: false, threads: 1, gpu: None };
    let mut executor = Executor::<f32>::new(&case.graph, &plan).map_err(|e| e.to_string())?;
    executor.forward(&x, BATCH, Mode::Eval).map_err(|e| e.to_string())?;
    let found = executor.value(case.graph.outputs[0]);
    let mut engine = Engine::new(&case.graph, BATCH).map_err(|e| e.to_string())?;
    engine.input_mut(0).get::<f32>().copy_from_slice(&x);
    engine.run().map_err(|e| e.to_string())?;
    let output = engine.output(0);
    let expected = output.get::<f32>();
    if found.len() != expected.len() {
        return Err(format!("{} values instead of {}", found.len(), expected.len()));
    }
    let largest = expected.iter().fold(1e-2_f32, |most, x| most.max(x.abs()));
    Ok(found.iter().zip(expected).fold(0.0, |most, (a, b)| {
        let off = (a - b).abs() / largest;
        if off > most || off.is_nan() { off } else { most }
    }))
}

#[test]
fn every_case_answers_as_the_runtime_does() {
    let mut failed = Vec::new();
    for case in cases::all().iter().chain(&cases::wide::cases()) {
        match off(case) {
            Ok(off) if off <= TOLERANCE => {}
            Ok(off) => failed.push(format!("{} ({}): off by {off:.1e}", case.op, case.about)),
            Err(error) => failed.push(format!("{} ({}): {error}", case.op, case.about)),
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
