//! What training computes in, f32 by the tiles of every instruction set that this machine has, against f64 by the scalar
//! ones, which central differences prove.

use std::process::Command;

use kd_runtime::graph::Graph;
use kd_runtime::ops::{self, window::Window};

use super::super::{Executor, Mode, Plan, Real};
use super::cases::{self, Case, case};
use super::{Net, noise};
use crate::ops::kernels::rows;

/// Relative to the largest element of an array: what f32 loses in sums of some thousand products.
const TOLERANCE: f64 = 2e-5;

/// Convolutions of sizes that fill the tiles of wide registers, and leave remainders.
fn wide() -> Vec<Case> {
    let conv = |about, x: &'static [usize], w: &'static [usize], group, strides: &[usize], dilations: &[usize]| {
        let pads = w[2..].iter().chain(&w[2..]).map(|kernel| kernel / 2).collect();
        let (strides, dilations) = (strides.to_vec(), dilations.to_vec());
        let window = Window { pads, strides, dilations, ..Window::default() };
        case("Conv", about, |net: &mut Net| {
            let inputs = [net.stem(x), net.parameter(w), net.parameter(&w[..1])];
            net.graph.apply(ops::conv::Conv { window, group }, &inputs, "y")
        })
    };
    let linear = |about, from: usize, to: usize| {
        case("Gemm", about, |net| {
            let inputs = [net.stem(&[from]), net.parameter(&[to, from]), net.parameter(&[to])];
            let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
            net.graph.apply(gemm, &inputs, "y")
        })
    };
    vec![
        conv("3x3, 33 to 47 channels", &[33, 9, 7], &[47, 33, 3, 3], 1, &[], &[]),
        conv("3x3, 64 channels", &[64, 8, 8], &[64, 64, 3, 3], 1, &[], &[]),
        conv("3x3, stride 2, 9x8", &[32, 9, 8], &[40, 32, 3, 3], 1, &[2, 2], &[]),
        conv("3x3, dilation 2", &[24, 9, 9], &[17, 24, 3, 3], 1, &[], &[2, 2]),
        conv("10x4, stride 2, 49x10, the stem of DS-CNN", &[1, 49, 10], &[64, 1, 10, 4], 1, &[2, 2], &[]),
        conv("3x3, the stem of images", &[3, 16, 15], &[16, 3, 3, 3], 1, &[], &[]),
        conv("5x5, groups", &[32, 7, 7], &[24, 8, 5, 5], 4, &[], &[]),
        conv("1x1, 70 to 130 channels", &[70, 5, 5], &[130, 70, 1, 1], 1, &[], &[]),
        conv("1x1, stride 2", &[48, 7, 8], &[33, 48, 1, 1], 1, &[2, 2], &[]),
        conv("depthwise, 67 channels", &[67, 9, 8], &[67, 1, 3, 3], 67, &[], &[]),
        conv("depthwise, stride 2", &[64, 9, 8], &[64, 1, 3, 3], 64, &[2, 2], &[]),
        conv("1-D, 8 taps", &[1, 35], &[64, 1, 8], 1, &[], &[]),
        conv("1-D, 5 taps, 64 to 96 channels", &[64, 35], &[96, 64, 5], 1, &[], &[]),
        conv("1-D, 3 taps, 96 to 64 channels", &[96, 35], &[64, 96, 3], 1, &[], &[]),
        linear("150 to 203", 150, 203),
        linear("64 to 10", 64, 10),
    ]
}

/// The output, and the gradients of all parameters by name.
fn step<T: Real>(graph: &Graph, batch: usize, threads: usize, mode: Mode) -> Result<Vec<(String, Vec<f64>)>, String> {
    let told = |refusal: kd_runtime::Refusal| refusal.to_string();
    let plan = Plan { batch, taps: vec![], backward: true, threads };
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
    for case in cases::all().iter().chain(&wide()) {
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
