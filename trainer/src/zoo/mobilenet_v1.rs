//! MobileNet: depthwise separable convolutions.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{self, Conv, Net, images};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `mobilenet_v1`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "width",
        about: "factor of all channels, which are rounded down; at most 64",
        kind: Kind::Number { default: 0.25, range: Range::Positive },
    },
    Spec {
        name: "stem_stride",
        about: "step of the first convolution; 1 for small images",
        kind: Kind::Count { default: 2, least: 1, most: 2 },
    },
    Spec {
        name: "bias",
        about: "whether convolutions have a bias, which the batch norm after them makes idle (MLPerf Tiny's have)",
        kind: Kind::Flag { default: false },
    },
];

/// Channels and stride of the separable convolutions of each stage.
const STAGES: [&[(f64, usize)]; 5] = [
    &[(64.0, 1)],
    &[(128.0, 2), (128.0, 1)],
    &[(256.0, 2), (256.0, 1)],
    &[(512.0, 2), (512.0, 1), (512.0, 1), (512.0, 1), (512.0, 1), (512.0, 1)],
    &[(1024.0, 2), (1024.0, 1)],
];

/// A 3x3 convolution and 13 separable ones in stages that each but the first halves the sides, the mean. Howard et al.
/// 2017 (arXiv 1704.04861), table 1. At a width of 0.25 on images of 96x96 it is MLPerf Tiny's person detector.
pub fn build(name: &str, options: &Options, site: &Site) -> Result<Graph> {
    images(name, site)?;
    let mut net = Net::new(name, site)?;
    let (width, bias) = (layers::width(name, options)?, options.flag("bias"));
    let channels = |c: f64| ((c * width) as usize).max(1);
    net.conv_norm_relu("stem", &Conv { bias, ..Conv::square(channels(32.0), 3, options.count("stem_stride")) })?;
    for (i, blocks) in STAGES.iter().enumerate() {
        let stage = format!("stage{}", i + 1);
        for (j, &(c, stride)) in blocks.iter().enumerate() {
            let name = if j + 1 == blocks.len() { stage.clone() } else { format!("{stage}.{}", j + 1) };
            net.separable(&name, channels(c), stride, bias)?;
        }
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}

/// Any width.
pub fn mobilenet_v1(options: &Options, site: &Site) -> Result<Graph> {
    build("mobilenet_v1", options, site)
}
