//! The depthwise separable network for keyword spotting.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images, refused};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `ds_cnn`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "width",
        about: "channels of every layer",
        kind: Kind::Count { default: 64, least: 1, most: 1 << 14 },
    },
    Spec { name: "blocks", about: "separable convolutions", kind: Kind::Count { default: 4, least: 1, most: 64 } },
    Spec {
        name: "head",
        about: "what is averaged: MLPerf Tiny's window of half the input, which leaves out a last odd row, or all",
        kind: Kind::Choice { default: "half", known: &["half", "mean"] },
    },
    Spec {
        name: "bias",
        about: "whether convolutions have a bias, which the batch norm after them makes idle (MLPerf Tiny's have)",
        kind: Kind::Flag { default: false },
    },
    Spec {
        name: "dropout",
        about: "share of the last block's values that are dropped while training, and half of it of the first layer's",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
];

/// A 10x4 convolution that halves the sides, `stage1`, `stage2`, … of a 3x3 depthwise and a pointwise convolution, the
/// mean. Zhang et al. 2017 (arXiv 1711.07128) §4; layers and sizes are those of MLPerf Tiny's keyword spotter, for 49
/// steps of 10 coefficients as an image `[1, 49, 10]`. Its training drops 0.2 behind the first layer and 0.4 at the end.
pub fn build(name: &str, options: &Options, site: &Site) -> Result<Graph> {
    images(name, site)?;
    let half = options.text("head") == "half";
    let sides = &site.input[1..];
    if half && sides.iter().any(|&side| side < 2) {
        return Err(refused(name, "sides of at least 2, or head = \"mean\"", format!("{:?}", site.input)));
    }
    let mut net = Net::new(name, site)?;
    let (width, bias, dropout) = (options.count("width"), options.flag("bias"), options.number("dropout"));
    net.conv_norm_relu("stem", &Conv { kernel: [10, 4], bias, ..Conv::square(width, 1, 2) })?;
    net.dropout("stem.dropped", dropout / 2.0);
    for block in 1..=options.count("blocks") {
        net.separable(&format!("stage{block}"), width, 1, bias)?;
    }
    net.dropout("last.dropped", dropout);
    if half {
        let window = [sides[0] / 2, sides[1] / 2];
        net.average_pool("features.pool", &window, &window, 0);
        net.flatten("features");
    } else {
        net.global_average("features");
    }
    net.linear("logits", site.classes)?;
    net.finish()
}

/// Any width and depth.
pub fn ds_cnn(options: &Options, site: &Site) -> Result<Graph> {
    build("ds_cnn", options, site)
}
