//! ShuffleNetV2: half of the channels pass a block by.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images, refused};
use crate::options::{Kind, Options, Spec};

/// Options of `shufflenet_v2`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of the three stages, all even: 48, 96, 192 is the paper's 0.5x; 176, 352, 704 its 1.5x",
        kind: Kind::Counts { default: &[116, 232, 464], least_len: 3, least: 2, most: 1 << 14 },
    },
    Spec {
        name: "head",
        about: "channels of the last convolution",
        kind: Kind::Count { default: 1024, least: 1, most: 1 << 14 },
    },
];

/// Blocks of the stages.
const BLOCKS: [usize; 3] = [4, 8, 4];

/// Depthwise 3x3 and pointwise convolution, each with batch norm; no activation.
fn spatial(net: &mut Net, name: &str, [depthwise, pointwise]: [&str; 2], channels: usize, stride: usize) -> Result<()> {
    let conv = Conv { groups: usize::MAX, ..Conv::square(net.tail.shape[0], 3, stride) };
    net.conv_norm(&format!("{name}.{depthwise}"), &conv)?;
    net.conv_norm(&format!("{name}.{pointwise}"), &Conv::pointwise(channels))
}

/// A block that halves the sides: both halves of its channels are computed from all of its input.
fn down(net: &mut Net, at: &str, width: usize) -> Result<()> {
    let input = net.tail.clone();
    spatial(net, at, ["left.1", "left.2"], width / 2, 2)?;
    net.relu(&format!("{at}.left"));
    let left = std::mem::replace(&mut net.tail, input);
    net.conv_norm_relu(&format!("{at}.1"), &Conv::pointwise(width / 2))?;
    spatial(net, at, ["2", "3"], width / 2, 2)?;
    net.relu(&format!("{at}.right"));
    let right = net.tail.clone();
    net.concat(&format!("{at}.joined"), &[left, right]);
    net.shuffle(at, 2);
    Ok(())
}

/// A block that computes the second half of the channels from itself; the last one of a stage has its taps.
fn block(net: &mut Net, at: &str, width: usize, stage: Option<&String>) -> Result<()> {
    let input = net.tail.clone();
    net.channels(&format!("{at}.kept"), 0, width / 2);
    let kept = std::mem::replace(&mut net.tail, input);
    net.channels(&format!("{at}.taken"), width / 2, width);
    net.conv_norm_relu(&format!("{at}.1"), &Conv::pointwise(width / 2))?;
    spatial(net, at, ["2", "3"], width / 2, 1)?;
    // What is kept is not negative: a ReLU before and one behind the joining give the same.
    if let Some(stage) = stage {
        let new = net.tail.clone();
        net.concat(&format!("{stage}.pre"), &[kept, new]);
        net.relu(&format!("{at}.joined"));
    } else {
        net.relu(&format!("{at}.right"));
        let new = net.tail.clone();
        net.concat(&format!("{at}.joined"), &[kept, new]);
    }
    net.shuffle(stage.map_or(at, |stage| stage), 2);
    Ok(())
}

/// A pointwise convolution of 24 channels, three stages of 4, 8 and 4 blocks, the first of which halves the sides, and a
/// pointwise convolution. Ma et al. 2018 (arXiv 1807.11164), table 5, as the distillation tables have it for 32x32 images
/// (there the paper's first convolution and pooling have no stride). `stageK` is the shuffled end of a stage; `stageK.pre`
/// is its value before ReLU and shuffle: the same channels in another order.
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    images("shufflenet_v2", site)?;
    let widths = options.counts("widths");
    if widths.len() != BLOCKS.len() || widths.iter().any(|width| width % 2 == 1) {
        return Err(refused("shufflenet_v2", "three even widths", format!("{widths:?}")));
    }
    let mut net = Net::new("shufflenet_v2", site)?;
    net.conv_norm_relu("stem", &Conv::pointwise(24))?;
    for (i, (&width, blocks)) in widths.iter().zip(BLOCKS).enumerate() {
        let stage = format!("stage{}", i + 1);
        down(&mut net, &format!("{stage}.1"), width)?;
        for j in 2..=blocks {
            block(&mut net, &format!("{stage}.{j}"), width, (j == blocks).then_some(&stage))?;
        }
    }
    net.conv_norm_relu("head", &Conv::pointwise(options.count("head")))?;
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
