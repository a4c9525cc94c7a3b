//! LITE: windows of several lengths once, then separable convolutions.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, refused, series};
use crate::options::{Kind, Options, Spec};

/// Options of `lite`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "filters",
        about: "channels of each convolution",
        kind: Kind::Count { default: 32, least: 1, most: 1 << 12 },
    },
    Spec {
        name: "kernels",
        about: "taps of the first stage's convolutions beside each other",
        kind: Kind::Counts { default: &[40, 20, 10], least_len: 1, least: 1, most: 1 << 10 },
    },
    Spec {
        name: "separable",
        about: "taps of the separable convolutions, whose taps are 2, 4, 8, … steps apart",
        kind: Kind::Counts { default: &[20, 10], least_len: 0, least: 1, most: 1 << 8 },
    },
];

/// `stage1`: convolutions of several lengths beside each other; `stage2`, …: depthwise and pointwise convolution; each
/// with batch norm and ReLU, then the mean over time. Ismail-Fawaz et al. 2023 (arXiv 2409.02869), without the 17 fixed
/// filters that the paper puts beside the first stage's (its code can leave them out too).
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    series("lite", site)?;
    if options.counts("separable").len() > 8 {
        let found = options.counts("separable").len();
        return Err(refused("lite", "at most 8 separable convolutions", found));
    }
    let mut net = Net::new("lite", site)?;
    let (input, filters) = (net.tail.clone(), options.count("filters"));
    let mut parts = Vec::new();
    for (i, &kernel) in options.counts("kernels").iter().enumerate() {
        net.tail = input.clone();
        net.conv(&format!("stage1.window{}", i + 1), &Conv::square(filters, kernel, 1))?;
        parts.push(net.tail.clone());
    }
    net.concat("stage1.joined", &parts);
    net.norm("stage1.pre")?;
    net.relu("stage1");
    for (i, &kernel) in options.counts("separable").iter().enumerate() {
        let (at, dilation) = (format!("stage{}", i + 2), 2 << i);
        let depthwise = Conv { groups: usize::MAX, dilation, ..Conv::square(net.tail.shape[0], kernel, 1) };
        net.conv(&format!("{at}.depthwise"), &depthwise)?;
        net.conv_norm_relu(&at, &Conv::pointwise(filters))?;
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
