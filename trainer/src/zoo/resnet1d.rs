//! The residual network for time series.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, series};
use crate::options::{Kind, Options, Spec};

/// Options of `resnet1d`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of each stage",
        kind: Kind::Counts { default: &[64, 128, 128], least_len: 1, least: 1, most: 1 << 14 },
    },
    Spec {
        name: "kernels",
        about: "taps of the convolutions of every stage, one behind the other",
        kind: Kind::Counts { default: &[8, 5, 3], least_len: 1, least: 1, most: 1 << 10 },
    },
    Spec {
        name: "bias",
        about: "whether convolutions have a bias, which the batch norm after them makes idle (the authors' have)",
        kind: Kind::Flag { default: false },
    },
];

/// Stages of a block each: convolutions with "same" pads, batch norm and ReLU, the last one without ReLU, the sum with the
/// block's input, ReLU; then the mean over time. Wang, Yan, Oates 2017 (arXiv 1611.06455), figure 1c. A shortcut has a
/// convolution of one tap where the channels change, and always a batch norm, as the authors' code has it.
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    series("resnet1d", site)?;
    let mut net = Net::new("resnet1d", site)?;
    let (bias, kernels) = (options.flag("bias"), options.counts("kernels"));
    for (i, &width) in options.counts("widths").iter().enumerate() {
        let at = format!("stage{}", i + 1);
        let input = net.tail.clone();
        for (j, &kernel) in kernels.iter().enumerate() {
            let (name, conv) = (format!("{at}.{}", j + 1), Conv { bias, ..Conv::square(width, kernel, 1) });
            if j + 1 < kernels.len() { net.conv_norm_relu(&name, &conv)? } else { net.conv_norm(&name, &conv)? }
        }
        let inner = std::mem::replace(&mut net.tail, input);
        let name = format!("{at}.shortcut");
        if net.tail.shape[0] == width {
            net.norm(&name)?;
        } else {
            net.conv_norm(&name, &Conv { bias, ..Conv::pointwise(width) })?;
        }
        net.add(&format!("{at}.pre"), &inner);
        net.relu(&at);
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
