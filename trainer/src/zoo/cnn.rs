//! A plain convolutional network.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, refused};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `cnn`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of each stage; after every stage but the last the sides are halved by max pooling",
        kind: Kind::Counts { default: &[16, 32], least_len: 1, least: 1, most: 1 << 16 },
    },
    Spec {
        name: "kernel",
        about: "taps of the windows along each axis",
        kind: Kind::Count { default: 3, least: 1, most: 31 },
    },
    Spec { name: "convs", about: "convolutions of a stage", kind: Kind::Count { default: 1, least: 1, most: 16 } },
    Spec {
        name: "head",
        about: "what follows the last stage: its mean, or all of it",
        kind: Kind::Choice { default: "mean", known: &["mean", "all"] },
    },
    Spec {
        name: "dropout",
        about: "share of the features that are dropped while training",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
];

/// Stages `stage1`, `stage2`, … of convolution, batch norm and ReLU, max pooling between them, then the mean over all
/// places (or everything) as `features`, and a linear layer. For images and series.
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    if site.input.len() < 2 {
        return Err(refused("cnn", "images [C, H, W] or series [C, T]", format!("{:?}", site.input)));
    }
    let mut net = Net::new("cnn", site)?;
    let (widths, convs) = (options.counts("widths"), options.count("convs"));
    for (i, &width) in widths.iter().enumerate() {
        for j in 0..convs {
            let stage = format!("stage{}", i + 1);
            let name = if j + 1 == convs { stage } else { format!("{stage}.{}", j + 1) };
            net.conv_norm_relu(&name, &Conv::square(width, options.count("kernel"), 1))?;
        }
        if i + 1 < widths.len() {
            net.max_pool(&format!("pool{}", i + 1));
        }
    }
    if options.text("head") == "mean" {
        net.global_average("features")
    } else {
        net.flatten("features")
    }
    net.dropout("features.dropped", options.number("dropout"));
    net.linear("logits", site.classes)?;
    net.finish()
}
