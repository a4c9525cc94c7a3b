//! That bits do not depend on threads.

use kd_runtime::ops::recurrent::{Direction, Recurrent};
use kd_runtime::ops::{self, Op};

use super::super::cases::{self, Case, case, noise, sequences::batch_first};
use super::super::{Executor, Mode, Plan};

/// The bits of values and gradients of a network.
fn bits(net: &Case, batch: usize, threads: usize) -> Vec<u32> {
    let plan = Plan { batch, taps: vec![], backward: true, threads, gpu: None };
    let mut executor = Executor::<f32>::new(&net.graph, &plan).unwrap();
    let floats = |place, n| noise(place, n).into_iter().map(|v| v as f32).collect::<Vec<_>>();
    executor.forward(&floats(1, batch * 3), batch, Mode::Train { seed: 5 }).unwrap();
    let output = net.graph.outputs[0];
    let d = floats(2, executor.value(output).len());
    executor.backward(&[(output, &d)]).unwrap();
    let gradients = executor.parameters().iter().flat_map(|p| &p.gradient);
    executor.value(output).iter().chain(gradients).map(|v| v.to_bits()).collect()
}

#[test]
fn the_bits_do_not_depend_on_threads() {
    for case in cases::all() {
        for batch in [1, 7] {
            let one = bits(&case, batch, 1);
            assert_eq!(one, bits(&case, batch, 2), "{} ({}), batch {batch}", case.op, case.about);
        }
    }
}

/// Large enough that steps and products are split.
#[test]
fn the_bits_of_large_layers_do_not_depend_on_threads() {
    let (steps, features, hidden) = (9, 33, 70);
    let wide = |op: Op, gates: usize, name: &'static str| {
        case(name, "large", |net| {
            let x = net.stem(&[steps, features]);
            let x = batch_first(net, x, &[1, 0, 2], "time_first");
            let inputs = [
                x,
                net.parameter(&[2, gates * hidden, features]),
                net.parameter(&[2, gates * hidden, hidden]),
                net.parameter(&[2, 2 * gates * hidden]),
            ];
            let y = net.graph.apply(op, &inputs, "y");
            batch_first(net, y, &[2, 0, 1, 3], "batch_first")
        })
    };
    let layer = || Recurrent { direction: Direction::Bidirectional, hidden_size: None };
    let norm = case("LayerNormalization", "large", |net| {
        let inputs = [net.stem(&[31, 97]), net.parameter(&[97]), net.parameter(&[97])];
        net.graph.apply(ops::layer_norm::LayerNormalization { axis: -1, epsilon: 1e-5 }, &inputs, "y")
    });
    let nets = [
        wide(ops::lstm::LSTM { layer: layer() }.into(), ops::lstm::GATES, "LSTM"),
        wide(ops::gru::GRU { layer: layer(), linear_before_reset: true }.into(), ops::gru::GATES, "GRU"),
        wide(ops::gru::GRU { layer: layer(), linear_before_reset: false }.into(), ops::gru::GATES, "GRU"),
        norm,
    ];
    for net in &nets {
        let one = bits(net, 33, 1);
        assert_eq!(one, bits(net, 33, 2), "{}: 1 and 2 threads", net.op);
        assert_eq!(one, bits(net, 33, 5), "{}: 1 and 5 threads", net.op);
    }
}
