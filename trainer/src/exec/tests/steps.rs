//! What a step must keep: the same bits for every thread count, batches of any size, running statistics, missing
//! gradients by name.

use kd_runtime::graph::{Graph, Tensor};
use kd_runtime::ops::{self, window::Window};

use super::super::cases::{self, Net, noise};
use super::super::{Executor, Mode, Plan, Role};

/// Convolutions, normalisation, a shortcut, dropout and a linear layer.
pub fn network() -> Graph {
    let mut net = Net::new("network");
    let mut x = net.stem(&[3, 9, 8]);
    for (i, channels) in [3_usize, 8].into_iter().enumerate() {
        let w = net.parameter(&[8, channels, 3, 3]);
        let window = Window { pads: vec![1; 4], ..Window::default() };
        let y = net.graph.apply(ops::conv::Conv { window, group: 1 }, &[x, w], &format!("conv{i}"));
        let (scale, bias) = (net.between(&[8], 0.5, 1.5), net.parameter(&[8]));
        let (mean, var) = (net.parameter(&[8]), net.between(&[8], 0.5, 2.0));
        let norm = ops::batch_norm::BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
        let mut y = net.graph.apply(norm, &[y, scale, bias, mean, var], &format!("norm{i}"));
        if i == 1 {
            y = net.graph.apply(ops::arith::Add, &[y, x], "sum");
        }
        x = net.graph.apply(ops::relu::Relu, &[y], &format!("stage{i}"));
    }
    let x = net.graph.apply(ops::pool::GlobalAveragePool, &[x], "pool");
    let x = net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[x], "features");
    let ratio = net.scalar(0.25);
    let x = net.graph.apply(ops::dropout::Dropout { seed: None }, &[x, ratio], "dropped");
    let (w, b) = (net.parameter(&[5, 8]), net.parameter(&[5]));
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let logits = net.graph.apply(gemm, &[x, w, b], "logits");
    net.finish(logits)
}

fn plan(batch: usize, threads: usize) -> Plan {
    Plan { batch, taps: vec!["stage1".into()], backward: true, threads, gpu: None }
}

fn floats(place: u64, n: usize) -> Vec<f32> {
    noise(place, n).into_iter().map(|v| v as f32).collect()
}

#[test]
fn what_would_make_denormal_products_is_no_gradient() {
    let graph = network();
    let mut executor = Executor::<f32>::new(&graph, &plan(4, 1)).unwrap();
    let logits = executor.tap("logits").unwrap();
    for (scale, is_kept) in [(1e-20, true), (1e-32, false), (1e-42, false)] {
        executor.forward(&floats(0, 4 * 3), 4, Mode::Train { seed: 0 }).unwrap();
        let d: Vec<f32> = floats(1, 4 * 5).into_iter().map(|d| d * scale).collect();
        executor.backward(&[(logits, &d)]).unwrap();
        let gradients = || executor.parameters().iter().flat_map(|p| &p.gradient);
        assert_eq!(gradients().any(|&g| g != 0.0), is_kept, "{scale}");
        assert!(!gradients().any(|g| g.is_subnormal()), "{scale}");
    }
}

/// A few steps of plain descent; all parameters and logits at the end, as bits.
fn descend(batch: usize, threads: usize) -> Vec<u32> {
    let graph = network();
    let mut executor = Executor::<f32>::new(&graph, &plan(batch, threads)).unwrap();
    let logits = executor.tap("logits").unwrap();
    for step in 0..3 {
        // The last batch is smaller.
        let batch = if step == 2 { batch.div_ceil(2) } else { batch };
        executor.forward(&floats(step, batch * 3), batch, Mode::Train { seed: step }).unwrap();
        let d = floats(10 + step, batch * 5);
        executor.backward(&[(logits, &d)]).unwrap();
        executor.check_gradients(&[]).unwrap();
        for p in executor.parameters_mut() {
            p.value.iter_mut().zip(&p.gradient).for_each(|(v, g)| *v -= 0.05 * g);
        }
    }
    let parameters = executor.parameters().iter().flat_map(|p| &p.value);
    parameters.chain(executor.value(logits)).map(|v| v.to_bits()).collect()
}

#[test]
fn the_bits_do_not_depend_on_threads_or_runs() {
    for batch in [1, 7, 33] {
        let one = descend(batch, 1);
        assert_eq!(one, descend(batch, 1), "batch {batch}: two runs");
        assert_eq!(one, descend(batch, 2), "batch {batch}: 1 and 2 threads");
        assert_eq!(one, descend(batch, 5), "batch {batch}: 1 and 5 threads");
    }
}

#[test]
fn a_batch_is_the_samples_one_by_one() {
    let graph = network();
    let mut whole = Executor::<f64>::new(&graph, &plan(7, 2)).unwrap();
    let mut single = Executor::<f64>::new(&graph, &Plan { backward: false, ..plan(1, 1) }).unwrap();
    let x = noise(3, 21);
    let (logits, stage) = (whole.tap("logits").unwrap(), whole.tap("stage1").unwrap());
    whole.forward(&x, 7, Mode::Eval).unwrap();
    for (i, sample) in x.chunks(3).enumerate() {
        single.forward(sample, 1, Mode::Eval).unwrap();
        for (tap, len) in [(logits, 5), (stage, 8 * 72)] {
            let pairs = whole.value(tap)[i * len..(i + 1) * len].iter().zip(single.value(tap));
            let off = pairs.fold(0.0_f64, |off, (a, b)| off.max((a - b).abs()));
            assert!(off < 1e-12, "sample {i}: {off}");
        }
    }
    assert_eq!(whole.tap_shape(stage), [8, 9, 8]);
    assert_eq!(single.value(logits).len(), 5);
    let forward_only = Executor::<f64>::new(&graph, &Plan { backward: false, ..plan(7, 2) }).unwrap();
    assert!(forward_only.buffer_bytes() < whole.buffer_bytes());
}

#[test]
fn running_statistics_move_in_training_only() {
    let graph = network();
    let mut executor = Executor::<f64>::new(&graph, &plan(4, 1)).unwrap();
    let conv = executor.state.program.graph.find("conv0").unwrap();
    let before = executor.parameters().to_vec();
    let x = noise(1, 12);
    executor.forward(&x, 4, Mode::Eval).unwrap();
    assert_eq!(executor.parameters(), before);
    // The tap keeps the convolution's output alive to compute the statistics from.
    let taps = vec!["conv0".to_string()];
    let mut executor = Executor::<f64>::new(&graph, &Plan { taps, ..plan(4, 1) }).unwrap();
    executor.forward(&x, 4, Mode::Train { seed: 0 }).unwrap();
    let y = executor.value(conv);
    let (plane, count) = (72, 4.0 * 72.0);
    let statistics: Vec<_> = before.iter().enumerate().filter(|(_, p)| p.role == Role::Statistic).collect();
    assert_eq!(statistics.len(), 4);
    let ((mean_at, mean), (var_at, var)) = (statistics[0], statistics[1]);
    for c in 0..8 {
        let channel: Vec<f64> = y.chunks(plane).skip(c).step_by(8).flatten().copied().collect();
        let m = channel.iter().sum::<f64>() / count;
        let unbiased = channel.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (count - 1.0);
        let expected = [0.9 * mean.value[c] + 0.1 * m, 0.9 * var.value[c] + 0.1 * unbiased];
        let found = [executor.parameters()[mean_at].value[c], executor.parameters()[var_at].value[c]];
        for (e, f) in expected.iter().zip(found) {
            // 0.9 is an f32 in the graph.
            assert!((e - f).abs() < 1e-6, "channel {c}: expected {e}, found {f}");
        }
    }
}

#[test]
fn a_parameter_without_gradient_is_named() {
    let mut net = Net::new("two heads");
    let x = net.stem(&[4]);
    let (wa, wb) = (net.parameter(&[4, 2]), net.parameter(&[4, 2]));
    let a = net.graph.apply(ops::gemm::MatMul, &[x, wa], "a");
    let b = net.graph.apply(ops::gemm::MatMul, &[x, wb], "b");
    net.graph.outputs.push(b);
    let graph = net.finish(a);
    let mut executor =
        Executor::<f32>::new(&graph, &Plan { batch: 2, taps: vec![], backward: true, threads: 1, gpu: None }).unwrap();
    executor.forward(&floats(0, 6), 2, Mode::Eval).unwrap();
    executor.backward(&[(a, &[1.0; 4])]).unwrap();
    let message = executor.check_gradients(&[]).unwrap_err().to_string();
    assert!(message.starts_with("parameter `p4`: expected a gradient, found none"), "{message}");
    executor.backward(&[(a, &[1.0; 4]), (b, &[f32::NAN, 0.0, 0.0, 0.0])]).unwrap();
    let message = executor.check_gradients(&[]).unwrap_err().to_string();
    assert!(message.contains("expected a finite gradient, found NaN at element 0"), "{message}");
}

#[test]
fn refuses_what_it_cannot_do() {
    let graph = network();
    let refusal = |result: kd_runtime::Result<Executor<f32>>| result.err().map(|r| r.to_string()).unwrap_or_default();
    let taps = vec!["stage9".to_string()];
    let message = refusal(Executor::new(&graph, &Plan { taps, ..plan(2, 1) }));
    assert!(message.contains("`stage9`"), "{message}");
    let mut executor = Executor::<f32>::new(&graph, &plan(2, 1)).unwrap();
    let logits = executor.tap("logits").unwrap();
    assert!(executor.tap("conv0").is_err());
    assert!(executor.backward(&[(logits, &[0.0; 10])]).is_err(), "backward without forward");
    assert!(executor.forward(&[0.0; 9], 3, Mode::Eval).is_err(), "a batch above the plan");
    assert!(executor.forward(&[0.0; 5], 2, Mode::Eval).is_err(), "half a sample");
    executor.forward(&[0.0; 6], 2, Mode::Eval).unwrap();
    assert!(executor.backward(&[(logits, &[0.0; 9])]).is_err(), "half a gradient");
    assert!(executor.backward(&[(logits, &[0.0; 10]), (logits, &[0.0; 10])]).is_err(), "a tap twice");

    // A model may say that something is empty; a kernel would divide by its size.
    for axis in [1, 2] {
        let mut net = Net::new("empty");
        let x = net.stem(&[3, 4]);
        let [starts, ends, axes] = [("starts", 2), ("ends", 2), ("axes", axis)]
            .map(|(name, value)| net.graph.add_initializer(name, Tensor::from_vec(&[1], vec![value])));
        let empty = net.graph.apply(ops::slice::Slice, &[x, starts, ends, axes], "moved");
        let factor = net.parameter(&[1]);
        let empty = net.graph.apply(ops::arith::Mul, &[empty, factor], "empty");
        let graph = net.finish(empty);
        let message = refusal(Executor::new(&graph, &Plan { taps: vec![], backward: false, ..plan(2, 1) }));
        assert!(message.starts_with("value `empty`: expected axes of at least 1, found [2, "), "{message}");
    }

    let mut net = Net::new("cast");
    let x = net.stem(&[2]);
    let y = net.graph.apply(ops::cast::Cast { to: kd_runtime::graph::ElementType::F32 }, &[x], "same");
    let graph = net.finish(y);
    let message = refusal(Executor::new(&graph, &plan(2, 1)));
    assert!(message.contains("stage1"), "{message}");
    let plan = Plan { batch: 2, taps: vec![], backward: true, threads: 1, gpu: None };
    let message = refusal(Executor::new(&graph, &plan));
    assert!(message.starts_with("node 2 `same` (Cast): expected a differentiable operator"), "{message}");
    // A teacher may hold it: it is evaluated.
    let mut teacher = Executor::<f32>::new(&graph, &Plan { backward: false, ..plan }).unwrap();
    teacher.forward(&floats(0, 6), 2, Mode::Eval).unwrap();
    let same = teacher.value(teacher.tap("same").unwrap()).to_vec();
    let weight = &teacher.parameters()[0].value;
    for (sample, same) in floats(0, 6).chunks(3).zip(same.chunks(2)) {
        for (column, found) in same.iter().enumerate() {
            let expected: f32 = (0..3).map(|i| sample[i] * weight[i * 2 + column]).sum();
            assert!((expected - found).abs() < 1e-6, "{expected} {found}");
        }
    }
}

#[test]
fn the_graph_comes_back_with_the_present_parameters() {
    let graph = network();
    let mut executor = Executor::<f32>::new(&graph, &plan(2, 1)).unwrap();
    assert_eq!(executor.to_graph(), graph);
    executor.parameters_mut()[1].value[0] = 42.0;
    let name = executor.parameters()[1].name.clone();
    let changed = executor.to_graph();
    let tensor = changed.constant(changed.find(&name)).and_then(Tensor::get::<f32>).unwrap();
    assert_eq!(tensor[0], 42.0);
    assert_ne!(changed, graph);
}

#[test]
fn scaling_the_input_is_not_trained() {
    let mut net = Net::new("scaled");
    let (mean, std) = (net.parameter(&[3]), net.between(&[3], 1.0, 2.0));
    let input = net.input;
    let x = net.graph.apply(ops::arith::Sub, &[input, mean], "centered");
    let x = net.graph.apply(ops::arith::Div, &[x, std], "scaled");
    let (w, b) = (net.parameter(&[3, 4]), net.parameter(&[4]));
    let x = net.graph.apply(ops::gemm::MatMul, &[x, w], "product");
    let x = net.graph.apply(ops::arith::Add, &[x, b], "y");
    let graph = net.finish(x);
    let executor =
        Executor::<f32>::new(&graph, &Plan { batch: 2, taps: vec![], backward: true, threads: 1, gpu: None }).unwrap();
    let found: Vec<_> = executor.parameters().iter().map(|p| (p.name.as_str(), p.role)).collect();
    assert_eq!(found, [("p3", Role::Weight), ("p4", Role::BiasOrNorm)]);
}

#[test]
fn further_backward_passes_see_the_same_forward_pass() {
    let (mut failed, mut changed, mut tried) = (Vec::new(), 0, 0);
    let graphs = cases::all().into_iter().map(|case| (format!("{} ({})", case.op, case.about), case.graph));
    for (name, graph) in graphs.chain([("network".to_string(), network())]) {
        let plan = Plan { batch: 3, taps: vec![], backward: true, threads: 1, gpu: None };
        let mut once = Executor::<f64>::new(&graph, &plan).unwrap();
        let mut often = Executor::<f64>::for_several_passes(&graph, &plan).unwrap();
        let (x, output) = (noise(1, 9), graph.outputs[0]);
        let mode = Mode::Train { seed: 5 };
        once.forward(&x, 3, mode).unwrap();
        often.forward(&x, 3, mode).unwrap();
        let n = once.value(output).len();
        let (first, second) = (noise(2, n), noise(3, n));
        once.backward(&[(output, &first)]).unwrap();
        often.backward(&[(output, &first)]).unwrap();
        let same = once.parameters() == often.parameters();
        often.backward_again(&[(output, &second)]).unwrap();
        (changed, tried) = (changed + usize::from(once.parameters() != often.parameters()), tried + 1);
        often.backward_again(&[(output, &first)]).unwrap();
        if !(same && once.parameters() == often.parameters()) {
            failed.push(name);
        }
        let refused = once.backward_again(&[(output, &first)]).unwrap_err().to_string();
        assert!(refused.starts_with("backward: expected a plan for several backward passes"), "{refused}");
    }
    assert!(failed.is_empty(), "{failed:?}");
    // A value less itself has no gradient, whatever comes from above.
    assert!(changed + 2 > tried, "{changed} of {tried} passes left another gradient");
}

#[test]
fn what_one_of_several_passes_reaches_stays_reached() {
    let graph = network();
    let plan = plan(3, 1);
    let mut executor = Executor::<f64>::for_several_passes(&graph, &plan).unwrap();
    let (stage, logits) = (executor.tap("stage1").unwrap(), executor.tap("logits").unwrap());
    executor.forward(&noise(1, 9), 3, Mode::Train { seed: 5 }).unwrap();
    let (d_stage, d_logits) = (noise(2, executor.value(stage).len()), noise(3, executor.value(logits).len()));
    executor.backward(&[(stage, &d_stage)]).unwrap();
    assert!(executor.check_gradients(&[]).is_err(), "the last layer is not reached");
    executor.backward(&[(logits, &d_logits)]).unwrap();
    executor.backward_again(&[(stage, &d_stage)]).unwrap();
    executor.check_gradients(&[]).unwrap();
    let last = executor.parameters().last().unwrap();
    assert!(last.gradient.iter().all(|&g| g == 0.0), "but it has no gradient in the last pass");
}

#[test]
fn every_batch_up_to_the_planned_one_has_its_memory() {
    let mut net = Net::new("linear");
    let x = net.stem(&[16]);
    let (w, b) = (net.parameter(&[10, 16]), net.parameter(&[10]));
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let output = net.graph.apply(gemm, &[x, w, b], "logits");
    let graph = net.finish(output);
    let plan = |batch| Plan { batch, taps: vec![], backward: false, threads: 1, gpu: None };
    let mut large = Executor::<f32>::new(&graph, &plan(20)).unwrap();
    for batch in 1..=20 {
        let x = floats(1, batch * 3);
        let mut own = Executor::<f32>::new(&graph, &plan(batch)).unwrap();
        own.forward(&x, batch, Mode::Eval).unwrap();
        large.forward(&x, batch, Mode::Eval).unwrap();
        assert_eq!(large.value(output), own.value(output), "{batch}");
    }
}

/// A smaller batch may be cut into more pieces than the planned one, each with memory of its own.
#[test]
fn convolutions_have_memory_for_every_smaller_batch() {
    let mut net = Net::new("wide");
    let mut x = net.stem(&[2, 4, 4]);
    for (i, shape) in [[64, 2, 3, 3], [64, 64, 3, 3], [32, 64, 3, 3]].iter().enumerate() {
        let w = net.parameter(shape);
        let window = Window { pads: vec![1; 4], ..Window::default() };
        x = net.graph.apply(ops::conv::Conv { window, group: 1 }, &[x, w], &format!("conv{i}"));
    }
    let x = net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[x], "features");
    let w = net.parameter(&[5, 32 * 16]);
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let logits = net.graph.apply(gemm, &[x, w], "logits");
    let graph = net.finish(logits);
    let plan = Plan { batch: 40, taps: vec![], backward: true, threads: 2, gpu: None };
    let mut executor = Executor::<f32>::new(&graph, &plan).unwrap();
    let logits = executor.tap("logits").unwrap();
    let elements = graph.value(graph.inputs[0]).shape.0[1..].iter().map(|dim| match dim {
        kd_runtime::graph::Dim::Known(n) => *n,
        kd_runtime::graph::Dim::Batch => 1,
    });
    let elements: usize = elements.product();
    for batch in 1..=40 {
        executor.forward(&floats(1, batch * elements), batch, Mode::Train { seed: 0 }).unwrap();
        executor.backward(&[(logits, &floats(2, batch * 5))]).unwrap();
        executor.check_gradients(&[]).unwrap();
    }
}
