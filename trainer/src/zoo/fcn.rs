//! The fully convolutional network for time series.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, series};
use crate::options::{Kind, Options, Spec};

/// Options of `fcn`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of each stage",
        kind: Kind::Counts { default: &[128, 256, 128], least_len: 1, least: 1, most: 1 << 16 },
    },
    Spec {
        name: "kernels",
        about: "taps of each stage's window; the last one stands for all that follow",
        kind: Kind::Counts { default: &[8, 5, 3], least_len: 1, least: 1, most: 1 << 10 },
    },
];

/// Stages `stage1`, `stage2`, … of a 1-D convolution with "same" pads, batch norm and ReLU, then the mean over time as
/// `features`, and a linear layer. Wang, Yan, Oates 2017 (arXiv 1611.06455).
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    series("fcn", site)?;
    let mut net = Net::new("fcn", site)?;
    let kernels = options.counts("kernels");
    for (i, &width) in options.counts("widths").iter().enumerate() {
        let kernel = kernels[i.min(kernels.len() - 1)];
        net.conv_norm_relu(&format!("stage{}", i + 1), &Conv::square(width, kernel, 1))?;
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
