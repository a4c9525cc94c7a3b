//! Residual networks for small images.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images};
use crate::options::{Kind, Options, Spec};

/// Options of the residual networks.
pub static OPTIONS: &[Spec] = &[widths(&[16, 32, 64]), stem(0), BIAS, SHORTCUT_NORM];

/// Options of those with four times the channels.
pub static WIDE_OPTIONS: &[Spec] = &[widths(&[64, 128, 256]), stem(32), BIAS, SHORTCUT_NORM];

const fn widths(default: &'static [usize]) -> Spec {
    Spec {
        name: "widths",
        about: "channels of the stages; from the second on the sides are halved",
        kind: Kind::Counts { default, least_len: 1, least: 1, most: 1 << 14 },
    }
}

const fn stem(default: usize) -> Spec {
    Spec {
        name: "stem",
        about: "channels of the first convolution; 0 for those of the first stage",
        kind: Kind::Count { default, least: 0, most: 1 << 14 },
    }
}

const BIAS: Spec = Spec {
    name: "bias",
    about: "whether convolutions have a bias, which the batch norm after them makes idle (MLPerf Tiny's have)",
    kind: Kind::Flag { default: false },
};

const SHORTCUT_NORM: Spec = Spec {
    name: "shortcut_norm",
    about: "whether the convolutions of shortcuts have a batch norm (MLPerf Tiny's have none)",
    kind: Kind::Flag { default: true },
};

/// Three stages of `blocks` basic blocks of two 3x3 convolutions: 6 · blocks + 2 layers. He et al. 2016 (arXiv
/// 1512.03385) §4.2; where the shape changes the shortcut is a strided 1x1 convolution with batch norm, as the networks of
/// the distillation tables have it (the paper's own are zero-padded: 2,752 parameters fewer), and MLPerf Tiny's ResNet-8
/// (there without batch norm). `stageK.pre` is the sum before the last ReLU.
pub fn build(name: &str, blocks: usize, options: &Options, site: &Site) -> Result<Graph> {
    images(name, site)?;
    let mut net = Net::new(name, site)?;
    let bias = options.flag("bias");
    let widths = options.counts("widths");
    let stem = match options.count("stem") {
        0 => widths[0],
        channels => channels,
    };
    net.conv_norm_relu("stem", &Conv { bias, ..Conv::square(stem, 3, 1) })?;
    for (stage, &width) in widths.iter().enumerate() {
        for block in 0..blocks {
            let stage_name = format!("stage{}", stage + 1);
            let at = format!("{stage_name}.{}", block + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let before = net.tail.clone();
            net.conv_norm_relu(&format!("{at}.1"), &Conv { bias, ..Conv::square(width, 3, stride) })?;
            let inner = net.tail.clone();
            let mut shortcut = before.clone();
            if stride != 1 || before.shape[0] != width {
                net.tail = before;
                net.conv(&format!("{at}.shortcut.conv"), &Conv { bias, ..Conv::square(width, 1, stride) })?;
                if options.flag("shortcut_norm") {
                    net.norm(&format!("{at}.shortcut"))?;
                }
                shortcut = net.tail.clone();
            }
            net.tail = inner;
            net.conv(&format!("{at}.2.conv"), &Conv { bias, ..Conv::square(width, 3, 1) })?;
            net.norm(&format!("{at}.2"))?;
            let out = if block + 1 == blocks { stage_name } else { at };
            net.add(&format!("{out}.pre"), &shortcut);
            net.relu(&out);
        }
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}

/// ResNet-8.
pub fn resnet8(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet8", 1, options, site)
}

/// ResNet-20.
pub fn resnet20(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet20", 3, options, site)
}

/// ResNet-32.
pub fn resnet32(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet32", 5, options, site)
}

/// ResNet-44.
pub fn resnet44(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet44", 7, options, site)
}

/// ResNet-56.
pub fn resnet56(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet56", 9, options, site)
}

/// ResNet-110.
pub fn resnet110(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet110", 18, options, site)
}

/// ResNet-8 with four times the channels, of the distillation tables.
pub fn resnet8x4(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet8x4", 1, options, site)
}

/// ResNet-32 with four times the channels, of the distillation tables.
pub fn resnet32x4(options: &Options, site: &Site) -> Result<Graph> {
    build("resnet32x4", 5, options, site)
}
