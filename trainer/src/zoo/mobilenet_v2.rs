//! MobileNetV2: inverted residuals with linear ends.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{self, Conv, Net, images};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `mobilenet_v2`.
pub static OPTIONS: &[Spec] = &[width(1.0), HEAD];

/// Options of `mobilenet_v2_cifar`.
pub static CIFAR_OPTIONS: &[Spec] = &[width(0.5), HEAD];

const fn width(default: f64) -> Spec {
    Spec {
        name: "width",
        about: "factor of all channels but, below 1, the last convolution's; at most 64",
        kind: Kind::Number { default, range: Range::Positive },
    }
}

const HEAD: Spec = Spec {
    name: "head",
    about: "channels of the last convolution at a width of at most 1",
    kind: Kind::Count { default: 1280, least: 1, most: 1 << 14 },
};

/// Channels, blocks and stride of the bottlenecks of a stage.
type Group = (f64, usize, usize);

/// What the two networks differ in.
struct Variant {
    name: &'static str,
    stages: [&'static [Group]; 4],
    /// Channels of a factor's product.
    round: fn(f64) -> usize,
    /// `min(max(x, 0), 6)` instead of ReLU.
    six: bool,
    /// Whether the bottlenecks of expansion 1 have their pointwise convolution.
    expands_always: bool,
}

impl Variant {
    fn act(&self, net: &mut Net, name: &str) {
        if self.six { net.relu6(name) } else { net.relu(name) }
    }

    fn conv(&self, net: &mut Net, name: &str, conv: &Conv) -> Result<()> {
        net.conv(&format!("{name}.conv"), conv)?;
        net.norm(&format!("{name}.pre"))?;
        self.act(net, name);
        Ok(())
    }

    /// Pointwise to `expansion` times the channels, depthwise 3x3, pointwise without activation; the sum with the input
    /// where the shape stays.
    fn bottleneck(&self, net: &mut Net, name: &str, expansion: usize, channels: usize, stride: usize) -> Result<()> {
        let before = net.tail.clone();
        let inner = before.shape[0] * expansion;
        if expansion > 1 || self.expands_always {
            self.conv(net, &format!("{name}.expand"), &Conv::pointwise(inner))?;
        }
        let depthwise = Conv { groups: usize::MAX, ..Conv::square(inner, 3, stride) };
        self.conv(net, &format!("{name}.depthwise"), &depthwise)?;
        let adds = stride == 1 && before.shape[0] == channels;
        net.conv_norm(&if adds { format!("{name}.linear") } else { name.to_string() }, &Conv::pointwise(channels))?;
        if adds {
            net.add(name, &before);
        }
        Ok(())
    }

    fn build(&self, options: &Options, site: &Site) -> Result<Graph> {
        images(self.name, site)?;
        let mut net = Net::new(self.name, site)?;
        let width = layers::width(self.name, options)?;
        self.conv(&mut net, "stem", &Conv::square((self.round)(32.0 * width), 3, 2))?;
        for (i, groups) in self.stages.iter().enumerate() {
            let stage = format!("stage{}", i + 1);
            let mut block = 0;
            for &(c, blocks, stride) in *groups {
                let expansion = if i + block == 0 { 1 } else { 6 };
                for j in 0..blocks {
                    block += 1;
                    let at = format!("{stage}.{block}");
                    let stride = if j == 0 { stride } else { 1 };
                    self.bottleneck(&mut net, &at, expansion, (self.round)(c * width), stride)?;
                }
            }
            net.same(&format!("{stage}.pre"));
            net.same(&stage);
        }
        let last = (self.round)(options.count("head") as f64 * width.max(1.0));
        self.conv(&mut net, "head", &Conv::pointwise(last))?;
        net.global_average("features");
        net.linear("logits", site.classes)?;
        net.finish()
    }
}

/// Sandler et al. 2018 (arXiv 1801.04381), table 2; channels are multiples of 8, at most a tenth below the product. Stages
/// end where the sides are a quarter, an eighth, a sixteenth and a thirty-second of the image's. Nothing acts on the end
/// of a bottleneck: `stageK.pre` and `stageK` are the same numbers.
pub fn mobilenet_v2(options: &Options, site: &Site) -> Result<Graph> {
    let stages: [&[Group]; 4] = [
        &[(16.0, 1, 1), (24.0, 2, 2)],
        &[(32.0, 3, 2)],
        &[(64.0, 4, 2), (96.0, 3, 1)],
        &[(160.0, 3, 2), (320.0, 1, 1)],
    ];
    let round = |c: f64| {
        let near = (((c + 4.0) / 8.0) as usize * 8).max(8);
        if (near as f64) < 0.9 * c { near + 8 } else { near }
    };
    Variant { name: "mobilenet_v2", stages, round, six: true, expands_always: false }.build(options, site)
}

/// The student of the distillation tables, for 32x32 images at half the width: sides are halved four times instead of
/// five, ReLU, channels rounded down, and the first bottleneck keeps its pointwise convolution. Jin et al. 2019 (arXiv
/// 1904.09149); `stageK` as in [`mobilenet_v2`], there behind the groups of 24, 32, 96 and 320 channels.
pub fn mobilenet_v2_cifar(options: &Options, site: &Site) -> Result<Graph> {
    let stages: [&[Group]; 4] = [
        &[(16.0, 1, 1), (24.0, 2, 1)],
        &[(32.0, 3, 2)],
        &[(64.0, 4, 2), (96.0, 3, 1)],
        &[(160.0, 3, 2), (320.0, 1, 1)],
    ];
    let round = |c: f64| (c as usize).max(1);
    Variant { name: "mobilenet_v2_cifar", stages, round, six: false, expands_always: true }.build(options, site)
}
