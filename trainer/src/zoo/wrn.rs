//! Wide residual networks with pre-activation.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images, refused};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `wrn`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "depth",
        about: "layers: 6 · n + 4, n blocks a stage",
        kind: Kind::Count { default: 16, least: 10, most: 1000 },
    },
    Spec {
        name: "widen",
        about: "factor of the channels 16, 32, 64 of the stages",
        kind: Kind::Count { default: 2, least: 1, most: 256 },
    },
    DROPOUT,
];

/// Options of those with a known depth and width.
pub static KNOWN_OPTIONS: &[Spec] = &[DROPOUT];

const DROPOUT: Spec = Spec {
    name: "dropout",
    about: "share of values between the two convolutions of a block that are dropped while training",
    kind: Kind::Number { default: 0.0, range: Range::BelowOne },
};

/// WRN-`depth`-`widen`: a 3x3 convolution of 16 channels, three stages of blocks, batch norm, ReLU, mean. Zagoruyko,
/// Komodakis 2016 (arXiv 1605.07146). Every block begins with batch norm and ReLU, which a convolution on the shortcut
/// reads too. So nothing acts on the sum that a stage ends in: `stageK` is that sum, and `stageK.pre` is the sum behind the
/// batch norm that follows, before its ReLU (`stageK.relu`): the two taps of the distillation tables.
fn build(name: &str, [depth, widen]: [usize; 2], options: &Options, site: &Site) -> Result<Graph> {
    images(name, site)?;
    if depth % 6 != 4 {
        return Err(refused(name, "a depth of 6 · n + 4", depth));
    }
    let mut net = Net::new(name, site)?;
    net.conv("stem", &Conv::square(16, 3, 1))?;
    let mut last = "stem".to_string();
    for stage in 1..=3 {
        let width = (16 << (stage - 1)) * widen;
        let blocks = (depth - 4) / 6;
        for block in 1..=blocks {
            let at = format!("stage{stage}.{block}");
            let stride = if stage > 1 && block == 1 { 2 } else { 1 };
            let mut shortcut = net.tail.clone();
            net.norm(&format!("{last}.pre"))?;
            net.relu(&format!("{last}.relu"));
            let active = net.tail.clone();
            net.conv_norm_relu(&format!("{at}.1"), &Conv::square(width, 3, stride))?;
            net.dropout(&format!("{at}.1.dropped"), options.number("dropout"));
            net.conv(&format!("{at}.2"), &Conv::square(width, 3, 1))?;
            if shortcut.shape[0] != width {
                let inner = std::mem::replace(&mut net.tail, active);
                net.conv(&format!("{at}.shortcut"), &Conv::square(width, 1, stride))?;
                shortcut = std::mem::replace(&mut net.tail, inner);
            }
            last = if block == blocks { format!("stage{stage}") } else { at };
            net.add(&last, &shortcut);
        }
    }
    net.norm(&format!("{last}.pre"))?;
    net.relu(&format!("{last}.relu"));
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}

/// Any depth and width.
pub fn wrn(options: &Options, site: &Site) -> Result<Graph> {
    build("wrn", [options.count("depth"), options.count("widen")], options, site)
}

/// WRN-16-1.
pub fn wrn_16_1(options: &Options, site: &Site) -> Result<Graph> {
    build("wrn_16_1", [16, 1], options, site)
}

/// WRN-16-2.
pub fn wrn_16_2(options: &Options, site: &Site) -> Result<Graph> {
    build("wrn_16_2", [16, 2], options, site)
}

/// WRN-40-1.
pub fn wrn_40_1(options: &Options, site: &Site) -> Result<Graph> {
    build("wrn_40_1", [40, 1], options, site)
}

/// WRN-40-2.
pub fn wrn_40_2(options: &Options, site: &Site) -> Result<Graph> {
    build("wrn_40_2", [40, 2], options, site)
}
