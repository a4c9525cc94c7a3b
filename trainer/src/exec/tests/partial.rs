//! Forward passes for some of the taps: what nobody asked for is not run, and what was asked for is as ever.

use kd_runtime::graph::{ElementType, Graph, ValueId};
use kd_runtime::ops;

use super::super::cases::{Net, noise};
use super::super::{Executor, Mode, Plan, Role};
use super::steps::network;

const TAPS: [&str; 6] = ["conv0", "norm0", "stage0", "stage1", "features", "logits"];
const MODE: Mode = Mode::Train { seed: 5 };

fn plan(taps: &[&str]) -> Plan {
    Plan { batch: 3, taps: taps.iter().map(|tap| tap.to_string()).collect(), backward: true, threads: 2, gpu: None }
}

/// All values and gradients of some taps after a step, `before` which others may have run.
fn step(executor: &mut Executor<f32>, taps: &[ValueId], all: bool) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let x: Vec<f32> = noise(1, 9).into_iter().map(|v| v as f32).collect();
    let forward = if all { executor.forward(&x, 3, MODE) } else { executor.forward_to(taps, &x, 3, MODE) };
    forward.unwrap();
    let values: Vec<Vec<f32>> = taps.iter().map(|&tap| executor.value(tap).to_vec()).collect();
    let d: Vec<Vec<f32>> = values.iter().map(|v| noise(2, v.len()).into_iter().map(|d| d as f32).collect()).collect();
    executor.backward(&taps.iter().copied().zip(d.iter().map(Vec::as_slice)).collect::<Vec<_>>()).unwrap();
    (values, executor.parameters().iter().map(|p| p.gradient.to_vec()).collect())
}

#[test]
fn what_is_asked_for_has_the_same_bits_whatever_is_left_out() {
    let graph = network();
    let mut often = Executor::<f32>::new(&graph, &plan(&TAPS)).unwrap();
    for set in 1..1_usize << TAPS.len() {
        let taps: Vec<ValueId> =
            (0..TAPS.len()).filter(|i| set >> i & 1 == 1).map(|i| often.tap(TAPS[i]).unwrap()).collect();
        let mut once = Executor::<f32>::new(&graph, &plan(&TAPS)).unwrap();
        let expected = step(&mut once, &taps, true);
        // Whatever lies in the buffers is poison now.
        often.forward(&[f32::NAN; 9], 3, Mode::Eval).unwrap();
        assert_eq!(step(&mut often, &taps, false), expected, "taps {set:#b}");
        let deeper = &TAPS[set.ilog2() as usize + 1..];
        assert!(deeper.iter().all(|tap| often.value(often.tap(tap).unwrap()).is_empty()), "taps {set:#b}");
    }
}

#[test]
fn a_branch_that_nobody_asks_for_is_not_run() {
    let mut net = Net::new("branch");
    let x = net.stem(&[4, 3, 3]);
    let (w, of_branch) = (net.parameter(&[36, 5]), net.parameter(&[4]));
    let flat = net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[x], "flat");
    let logits = net.graph.apply(ops::gemm::MatMul, &[flat, w], "logits");
    let (bias, mean, var) = (net.parameter(&[4]), net.parameter(&[4]), net.between(&[4], 0.5, 2.0));
    let norm = ops::batch_norm::BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
    let branch = net.graph.apply(norm, &[x, of_branch, bias, mean, var], "branch");
    let graph = net.finish(logits);
    let mut executor = Executor::<f32>::new(&graph, &plan(&["branch"])).unwrap();
    let first = executor.parameters().to_vec();
    let found = step(&mut executor, &[logits], false);
    assert_eq!(
        executor.parameters().iter().map(|p| &p.value).collect::<Vec<_>>(),
        first.iter().map(|p| &p.value).collect::<Vec<_>>()
    );
    assert!(executor.value(branch).is_empty());
    let refused = executor.backward(&[(branch, &[0.0; 108])]).unwrap_err().to_string();
    assert!(refused.contains("for no tap, one that was left out, or a second time"), "{refused}");
    let missing = executor.check_gradients(&[]).unwrap_err().to_string();
    assert!(missing.contains("no loss term depends on it"), "{missing}");
    executor.check_gradients(&[branch]).unwrap();
    let mut whole = Executor::<f32>::new(&graph, &plan(&["branch"])).unwrap();
    assert_eq!(step(&mut whole, &[logits], true), found);
    let moved = whole.parameters().iter().zip(&first).filter(|(now, first)| now.value != first.value);
    assert!(moved.map(|(now, _)| now.role).eq([Role::Statistic; 2]), "the whole network's branch was run");
}

/// Evaluated steps: a lookup that refuses, beside an answer that does not need it.
fn refusing() -> (Graph, [ValueId; 2]) {
    let mut net = Net::new("refusing");
    let list = net.ints(&[7]);
    let places = net.graph.apply(ops::cast::Cast { to: ElementType::I64 }, &[net.input], "places");
    let found = net.graph.apply(ops::gather::Gather { axis: 0 }, &[list, places], "found");
    let floats = net.graph.apply(ops::cast::Cast { to: ElementType::F32 }, &[found], "floats");
    let back = net.graph.apply(ops::cast::Cast { to: ElementType::F32 }, &[places], "logits");
    (net.finish(back), [floats, back])
}

#[test]
fn an_evaluated_step_that_would_refuse_is_not_run() {
    let (graph, [floats, logits]) = refusing();
    let mut executor = Executor::<f32>::new(&graph, &Plan { backward: false, ..plan(&["floats"]) }).unwrap();
    let x = [0.0, 5.0, -3.0];
    let refusal = executor.forward(&x, 1, Mode::Eval).unwrap_err().to_string();
    assert!(refusal.contains("expected indices within an axis of 1, found 5"), "{refusal}");
    executor.forward_to(&[logits], &x, 1, Mode::Eval).unwrap();
    assert_eq!((executor.value(logits), executor.value(floats)), (&x[..], &[][..]));
    executor.forward(&[0.0; 3], 1, Mode::Eval).unwrap();
    assert_eq!(executor.value(floats), [7.0; 3]);
}
