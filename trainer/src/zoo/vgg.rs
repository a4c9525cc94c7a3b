//! VGG for small images: plain 3x3 convolutions, with batch norm and one linear layer.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, images, refused};
use crate::options::{Kind, Options, Spec};

/// Options of the VGG networks.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "channels of the five stages",
        kind: Kind::Counts { default: &[64, 128, 256, 512, 512], least_len: 5, least: 1, most: 1 << 14 },
    },
    Spec {
        name: "bias",
        about: "whether convolutions have a bias, which the batch norm after them makes idle (the tables' have)",
        kind: Kind::Flag { default: true },
    },
];

/// Five stages of so many 3x3 convolutions, max pooling behind the first three, the mean, one linear layer. Simonyan,
/// Zisserman 2015 (arXiv 1409.1556), tables 1 and 2, as the distillation tables have it for small images: batch norm, and
/// pooling behind the fourth stage only where the smaller side is at least 64 (there: where the height is 64).
fn build(name: &str, convs: [usize; 5], options: &Options, site: &Site) -> Result<Graph> {
    images(name, site)?;
    let widths = options.counts("widths");
    if widths.len() != convs.len() {
        return Err(refused(name, "widths of five stages", format!("{widths:?}")));
    }
    let mut net = Net::new(name, site)?;
    let bias = options.flag("bias");
    let large = site.input[1..].iter().all(|&side| side >= 64);
    for (i, (&width, convs)) in widths.iter().zip(convs).enumerate() {
        let stage = format!("stage{}", i + 1);
        for j in 1..=convs {
            let name = if j == convs { stage.clone() } else { format!("{stage}.{j}") };
            net.conv_norm_relu(&name, &Conv { bias, ..Conv::square(width, 3, 1) })?;
        }
        if i < 3 || (i == 3 && large) {
            net.max_pool(&format!("pool{}", i + 1));
        }
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}

/// A convolution a stage.
pub fn vgg8(options: &Options, site: &Site) -> Result<Graph> {
    build("vgg8", [1; 5], options, site)
}

/// VGG-11, the paper's A.
pub fn vgg11(options: &Options, site: &Site) -> Result<Graph> {
    build("vgg11", [1, 1, 2, 2, 2], options, site)
}

/// VGG-13, the paper's B.
pub fn vgg13(options: &Options, site: &Site) -> Result<Graph> {
    build("vgg13", [2; 5], options, site)
}

/// VGG-16, the paper's D.
pub fn vgg16(options: &Options, site: &Site) -> Result<Graph> {
    build("vgg16", [2, 2, 3, 3, 3], options, site)
}

/// VGG-19, the paper's E.
pub fn vgg19(options: &Options, site: &Site) -> Result<Graph> {
    build("vgg19", [2, 2, 4, 4, 4], options, site)
}
