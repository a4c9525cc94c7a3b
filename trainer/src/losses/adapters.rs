//! Layers that bring a student's tap to the shape of a teacher's: chosen by the two shapes alone.
//!
//! A map, a series and a vector meet by averaging: what the student has more of (places, axes) is averaged in its graph
//! where windows of one size do it, else beside the teacher in the loss, which also averages the teacher's larger maps.

use kd_runtime::graph::{Tensor, ValueId};
use kd_runtime::ops;
use kd_runtime::{Refusal, Result};

use super::{Pair, Tap};
use crate::options::{Kind, Options, Spec};
use crate::zoo::layers::{Conv, Net};

/// The option that names the student's taps.
pub const fn student(default: &'static str) -> Spec {
    Spec { name: "student", about: "taps of the student", kind: Kind::Text { default } }
}

/// The option that names the teacher's taps.
pub const fn teacher(default: &'static str) -> Spec {
    Spec { name: "teacher", about: "taps of the teacher, in the same order", kind: Kind::Text { default } }
}

/// The option that says when a connector is added.
pub const CONNECTOR: Spec = Spec {
    name: "connector",
    about: "whether the student's tap goes through a connector that is trained beside it: always, or unless the channels are equal",
    kind: Kind::Choice { default: "unless_equal", known: &["unless_equal", "always"] },
};

/// The option that says how taps lie.
pub const TOKENS: Spec = Spec {
    name: "tokens",
    about: "whether taps are [L, D], a row a token, instead of channels first",
    kind: Kind::Flag { default: false },
};

/// What follows the averages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connector {
    /// Taps of the convolution's window along each axis.
    pub kernel: usize,
    /// Whether a convolution has a bias; a linear layer always has one.
    pub bias: bool,
    /// Whether a batch norm follows.
    pub norm: bool,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Connector {
    /// A 1x1 convolution (of a vector: a linear layer) alone, with bias.
    pub const LINEAR: Self = Self { kernel: 1, bias: true, norm: false, relu: false };
    /// The same, a convolution without bias, then a batch norm.
    pub const NORM: Self = Self { kernel: 1, bias: false, norm: true, relu: false };
}

/// Connects every pair's student tap to its teacher tap, as the option `connector` says; gives the pairs with the taps
/// that are compared.
pub fn connect_all(
    pair: &mut Pair<'_>,
    options: &Options,
    taps: Vec<(Tap, Tap)>,
    connector: Connector,
) -> Result<Vec<(Tap, Tap)>> {
    let always = options.text("connector") == "always";
    let connected = |(i, (from, to)): (usize, (Tap, Tap))| {
        let is_equal = from.shape.first() == to.shape.first();
        if is_equal && !always { Ok((from, to)) } else { Ok((connect(pair, &from, &to, i, connector)?, to)) }
    };
    taps.into_iter().enumerate().map(connected).collect()
}

/// Adds the layers that bring `from`, a tap of the student, to the channels and axes of `to`, the teacher's; `i` tells the
/// adapters of a term apart.
pub fn connect(pair: &mut Pair<'_>, from: &Tap, to: &Tap, i: usize, connector: Connector) -> Result<Tap> {
    let channels = to.shape[0];
    pair.adapt(from, |net, prefix| {
        let name = format!("{prefix}.{i}");
        meet(net, &name, &to.shape)?;
        layer(net, &name, channels, connector)
    })
}

/// A convolution or, of a vector, a linear layer, and what follows it.
pub fn layer(net: &mut Net, name: &str, channels: usize, connector: Connector) -> Result<()> {
    if net.tail.shape.len() == 1 {
        net.linear(&format!("{name}.linear"), channels)?;
    } else {
        let conv = Conv { bias: connector.bias, ..Conv::square(channels, connector.kernel, 1) };
        net.conv(&format!("{name}.conv"), &conv)?;
    }
    if connector.norm {
        net.norm(&format!("{name}.norm"))?;
    }
    if connector.relu {
        net.relu(&format!("{name}.relu"));
    }
    Ok(())
}

/// Brings the net's tail to as many axes as a teacher's tap has, and averages the places that it has more of.
pub fn meet(net: &mut Net, name: &str, target: &[usize]) -> Result<()> {
    let rank = target.len();
    if rank == 0 || rank > 3 || net.tail.shape.len() > 3 {
        let found = format!("{:?} beside {target:?}", net.tail.shape);
        return Err(Refusal::new(
            "connector",
            "maps [C, H, W], series [C, T] or vectors [F]",
            found,
            "name other taps",
        ));
    }
    if rank == 1 {
        if net.tail.shape.len() > 1 {
            net.global_average(&format!("{name}.mean"));
        }
        return Ok(());
    }
    while net.tail.shape.len() < rank {
        // A vector is a series of one place, a series an image of one row.
        let shape = [&[net.tail.shape[0], 1], &net.tail.shape[1..]].concat();
        let name = format!("{name}.as{}", shape.len());
        reshape_by(net, ops::reshape::Unsqueeze, &name, 2, shape);
    }
    if net.tail.shape.len() > rank {
        let rows = [net.tail.shape[1], 1];
        net.average_pool(&format!("{name}.rows"), &rows, &rows, 0);
        let shape = vec![net.tail.shape[0], net.tail.shape[2]];
        reshape_by(net, ops::reshape::Squeeze, &format!("{name}.as2"), 2, shape);
    }
    let factor = |(&ours, &theirs): (&usize, &usize)| {
        if ours > theirs && ours.is_multiple_of(theirs) { ours / theirs } else { 1 }
    };
    let factors: Vec<usize> = net.tail.shape[1..].iter().zip(&target[1..]).map(factor).collect();
    if factors.iter().any(|&factor| factor > 1) {
        net.average_pool(&format!("{name}.mean"), &factors, &factors, 0);
    }
    Ok(())
}

/// Adds or drops an axis of size 1 at a place in the batch.
fn reshape_by(net: &mut Net, op: impl Into<ops::Op>, name: &str, axis: i64, shape: Vec<usize>) {
    let axes = indices(net, &format!("{name}.axes"), &[axis]);
    let id = net.tail.id;
    net.apply(op, &[id, axes], name, shape);
}

/// A constant list of whole numbers.
pub fn indices(net: &mut Net, name: &str, list: &[i64]) -> ValueId {
    net.constant(name, Tensor::from_vec(&[list.len()], list.to_vec()))
}

/// A linear layer over the last axis of tokens `[L, D]`, with bias.
pub fn tokens_linear(net: &mut Net, name: &str, outputs: usize) -> Result<()> {
    let [tokens, inputs] = net.tail.shape[..] else {
        let found = format!("{:?}", net.tail.shape);
        return Err(Refusal::new("connector", "tokens [L, D]", found, "name taps of tokens"));
    };
    let weight = net.parameter(&format!("{name}.weight"), &[inputs, outputs], 0.0)?;
    let bias = net.parameter(&format!("{name}.bias"), &[outputs], 0.0)?;
    let id = net.tail.id;
    net.apply(ops::gemm::MatMul, &[id, weight], &format!("{name}.product"), vec![tokens, outputs]);
    let id = net.tail.id;
    net.apply(ops::arith::Add, &[id, bias], name, vec![tokens, outputs]);
    Ok(())
}

/// Connects tokens of both sides by a linear layer, or what is no tokens by [`Connector::LINEAR`], where the widths differ.
pub fn connect_widths(
    pair: &mut Pair<'_>,
    options: &Options,
    taps: Vec<(Tap, Tap)>,
    tokens: bool,
) -> Result<Vec<(Tap, Tap)>> {
    if !tokens {
        return connect_all(pair, options, taps, Connector::LINEAR);
    }
    let always = options.text("connector") == "always";
    let connected = |(i, (from, to)): (usize, (Tap, Tap))| {
        let width = *to.shape.last().unwrap_or(&1);
        if from.shape.last() == Some(&width) && !always {
            return Ok((from, to));
        }
        let tap = pair.adapt(&from, |net, prefix| tokens_linear(net, &format!("{prefix}.{i}.linear"), width))?;
        Ok((tap, to))
    };
    taps.into_iter().enumerate().map(connected).collect()
}
