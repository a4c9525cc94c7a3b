//! ShuffleNet: pointwise convolutions in groups, whose channels are shuffled.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images, refused};
use crate::options::{Kind, Options, Spec};

/// Options of `shufflenet_v1`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of the three stages, each above the one before, the first above 24",
        kind: Kind::Counts { default: &[240, 480, 960], least_len: 3, least: 1, most: 1 << 14 },
    },
    Spec {
        name: "groups",
        about: "groups of the pointwise convolutions; they divide a quarter of the channels that a block adds or has",
        kind: Kind::Count { default: 3, least: 1, most: 64 },
    },
];

/// Blocks of the stages.
const BLOCKS: [usize; 3] = [4, 8, 4];

/// A pointwise convolution of 24 channels and three stages of 4, 8 and 4 blocks, the first of which halves the sides and
/// puts its channels before its averaged input. Zhang et al. 2018 (arXiv 1707.01083), table 1 with 3 groups, as the
/// distillation tables have it for 32x32 images (there the paper's first convolution and pooling have no stride).
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    images("shufflenet_v1", site)?;
    let (widths, groups) = (options.counts("widths"), options.count("groups"));
    if widths.len() != BLOCKS.len() || widths[0] <= 24 || widths.windows(2).any(|pair| pair[1] <= pair[0]) {
        return Err(refused("shufflenet_v1", "three widths that grow from above 24", format!("{widths:?}")));
    }
    let mut net = Net::new("shufflenet_v1", site)?;
    net.conv_norm_relu("stem", &Conv::pointwise(24))?;
    for (i, (&width, blocks)) in widths.iter().zip(BLOCKS).enumerate() {
        let stage = format!("stage{}", i + 1);
        for j in 1..=blocks {
            let at = format!("{stage}.{j}");
            let end = if j == blocks { &stage } else { &at };
            let before = net.tail.clone();
            let (own, stride) = if j == 1 { (width - before.shape[0], 2) } else { (width, 1) };
            let first = if i == 0 && j == 1 { 1 } else { groups };
            let inner = (own / 4).max(1);
            net.conv_norm_relu(&format!("{at}.1"), &Conv { groups: first, ..Conv::pointwise(inner) })?;
            if first > 1 {
                net.shuffle(&format!("{at}.1.shuffled"), first);
            }
            let depthwise = Conv { groups: usize::MAX, ..Conv::square(inner, 3, stride) };
            net.conv_norm_relu(&format!("{at}.2"), &depthwise)?;
            net.conv_norm(&format!("{at}.3"), &Conv { groups, ..Conv::pointwise(own) })?;
            if j == 1 {
                let inner = std::mem::replace(&mut net.tail, before);
                net.average_pool(&format!("{at}.shortcut"), &[3, 3], &[2, 2], 1);
                let shortcut = net.tail.clone();
                net.concat(&format!("{end}.pre"), &[inner, shortcut]);
            } else {
                net.add(&format!("{end}.pre"), &before);
            }
            net.relu(end);
        }
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
