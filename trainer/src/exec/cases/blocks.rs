//! Small networks around what the executor runs as one step: a convolution that sums for the batch norm behind it, a batch
//! norm with the sum and the ReLU that follow it.

use kd_runtime::graph::{Tensor, ValueId};
use kd_runtime::ops::{self, window::Window};

use super::{Case, Net, case};

fn conv(net: &mut Net, x: ValueId, w: &[usize], name: &str) -> ValueId {
    let pads = w[2..].iter().chain(&w[2..]).map(|kernel| kernel / 2).collect();
    let w = net.parameter(w);
    let window = Window { pads, ..Window::default() };
    net.graph.apply(ops::conv::Conv { window, group: 1 }, &[x, w], name)
}

fn norm(net: &mut Net, x: ValueId, channels: usize, name: &str) -> ValueId {
    let c = &[channels];
    let inputs = [x, net.between(c, 0.5, 1.5), net.parameter(c), net.parameter(c), net.between(c, 0.5, 2.0)];
    net.graph.apply(ops::batch_norm::BatchNormalization { epsilon: 1e-3, momentum: 0.9 }, &inputs, name)
}

fn add(net: &mut Net, a: ValueId, b: ValueId, name: &str) -> ValueId {
    net.graph.apply(ops::arith::Add, &[a, b], name)
}

fn relu(net: &mut Net, x: ValueId, name: &str) -> ValueId {
    net.graph.apply(ops::relu::Relu, &[x], name)
}

/// A convolution and its norm.
fn normed(net: &mut Net, sizes: &[usize]) -> ValueId {
    let x = net.stem(sizes);
    let kernel = [&[sizes[0], sizes[0]], &vec![3; sizes.len() - 1][..]].concat();
    let y = conv(net, x, &kernel, "conv");
    norm(net, y, sizes[0], "norm")
}

fn reshaped(net: &mut Net, x: ValueId, to: &[i64]) -> ValueId {
    let to = net.graph.add_initializer("to", Tensor::from_vec(&[to.len()], to.to_vec()));
    net.graph.apply(ops::reshape::Reshape { allowzero: false }, &[x, to], "reshaped")
}

/// A block of a residual network: two convolutions, and a shortcut that is a convolution itself where `widens`.
fn residual(about: &'static str, sizes: &'static [usize], kernel: &'static [usize], widens: bool) -> Case {
    case("BatchNormalization", about, |net| {
        let (inner, outer) = (3, if widens { 4 } else { sizes[0] });
        let x = net.stem(sizes);
        let w = |to: usize, from: usize| [&[to, from], kernel].concat();
        let y = conv(net, x, &w(inner, sizes[0]), "conv1");
        let y = norm(net, y, inner, "norm1");
        let y = relu(net, y, "relu1");
        let y = conv(net, y, &w(outer, inner), "conv2");
        let y = norm(net, y, outer, "norm2");
        let shortcut = if widens {
            let ones = vec![1; kernel.len()];
            let short = conv(net, x, &[&[outer, sizes[0]], &ones[..]].concat(), "conv3");
            norm(net, short, outer, "norm3")
        } else {
            x
        };
        let y = add(net, y, shortcut, "sum");
        relu(net, y, "y")
    })
}

/// The cases of the table.
pub fn cases() -> Vec<Case> {
    vec![
        residual("residual block, 2-D", &[2, 3, 4], &[3, 3], false),
        residual("residual block, 1-D", &[2, 7], &[3], false),
        residual("residual block whose shortcut is a convolution", &[2, 3, 3], &[3, 3], true),
        case("BatchNormalization", "added to a value, without relu", |net| {
            let (x, other) = (net.stem(&[2, 3, 3]), net.stem(&[2, 3, 3]));
            let y = conv(net, x, &[2, 2, 3, 3], "conv");
            let y = norm(net, y, 2, "norm");
            add(net, other, y, "y")
        }),
        case("BatchNormalization", "that somebody else reads before the relu", |net| {
            let x = net.stem(&[2, 3, 3]);
            let y = conv(net, x, &[2, 2, 3, 3], "conv");
            let y = norm(net, y, 2, "norm");
            let positive = relu(net, y, "relu");
            add(net, y, positive, "y")
        }),
        case("BatchNormalization", "flattened before the relu", |net| {
            let y = normed(net, &[2, 3, 4]);
            let y = net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[y], "flat");
            relu(net, y, "y")
        }),
        case("BatchNormalization", "of series, flattened before the relu", |net| {
            let y = normed(net, &[2, 7]);
            let y = net.graph.apply(ops::reshape::Flatten { axis: 1 }, &[y], "flat");
            relu(net, y, "y")
        }),
        case("BatchNormalization", "of another shape when it is added to", |net| {
            let y = normed(net, &[2, 3, 4]);
            let (turned, other) = (reshaped(net, y, &[0, 4, 3, 2]), net.stem(&[4, 3, 2]));
            let y = add(net, turned, other, "sum");
            relu(net, y, "y")
        }),
        case("Relu", "of an image under five axes", |net| {
            let y = normed(net, &[4, 3, 2]);
            let y = reshaped(net, y, &[0, 2, 2, 3, 2]);
            relu(net, y, "y")
        }),
    ]
}
