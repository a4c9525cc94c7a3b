//! InceptionTime: windows of several lengths beside each other.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::{Conv, Net, series};
use crate::options::{Kind, Options, Spec};

/// Options of `inception_time`.
pub static OPTIONS: &[Spec] = &[
    Spec { name: "depth", about: "modules", kind: Kind::Count { default: 6, least: 1, most: 256 } },
    Spec {
        name: "filters",
        about: "channels of each convolution of a module, which has one more of them than kernels",
        kind: Kind::Count { default: 32, least: 1, most: 1 << 12 },
    },
    Spec {
        name: "kernels",
        about: "taps of the convolutions beside each other",
        kind: Kind::Counts { default: &[40, 20, 10], least_len: 1, least: 1, most: 1 << 10 },
    },
    Spec {
        name: "bottleneck",
        about: "channels that a module reduces its input to before its windows; 0 for none",
        kind: Kind::Count { default: 32, least: 0, most: 1 << 12 },
    },
    Spec {
        name: "residual",
        about: "whether the input of every three modules is added to their output",
        kind: Kind::Flag { default: true },
    },
];

/// Batch norm, named NAME.pre, and ReLU of: convolutions of several lengths over the bottleneck, beside a convolution of
/// one tap over the largest of 3 neighbors.
fn module(net: &mut Net, name: &str, options: &Options) -> Result<()> {
    let (filters, bottleneck) = (options.count("filters"), options.count("bottleneck"));
    let input = net.tail.clone();
    if bottleneck > 0 && input.shape[0] > 1 {
        net.conv(&format!("{name}.bottleneck"), &Conv::pointwise(bottleneck))?;
    }
    let narrow = net.tail.clone();
    let mut parts = Vec::new();
    for (i, &kernel) in options.counts("kernels").iter().enumerate() {
        net.tail = narrow.clone();
        net.conv(&format!("{name}.window{}", i + 1), &Conv::square(filters, kernel, 1))?;
        parts.push(net.tail.clone());
    }
    net.tail = input;
    net.max_pool_same(&format!("{name}.pool"));
    net.conv(&format!("{name}.pooled"), &Conv::pointwise(filters))?;
    parts.push(net.tail.clone());
    net.concat(&format!("{name}.joined"), &parts);
    net.norm(&format!("{name}.pre"))?;
    net.relu(name);
    Ok(())
}

/// Modules, and every three of them a sum with what went into them, then the mean over time. Ismail Fawaz et al. 2020
/// (arXiv 1909.04939); the paper's classifier is the mean of five of these. Three modules are a stage, the last one may
/// have fewer; `stageK.pre` is the sum, or the last module's batch norm where there is none.
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    series("inception_time", site)?;
    let mut net = Net::new("inception_time", site)?;
    let depth = options.count("depth");
    let mut before = net.tail.clone();
    for i in 1..=depth {
        let stage = format!("stage{}", i.div_ceil(3));
        let adds = options.flag("residual") && i % 3 == 0;
        let ends = i % 3 == 0 || i == depth;
        let at = if ends && !adds { stage.clone() } else { format!("{stage}.{}", (i - 1) % 3 + 1) };
        module(&mut net, &at, options)?;
        if adds {
            let inner = std::mem::replace(&mut net.tail, before);
            net.conv_norm(&format!("{stage}.shortcut"), &Conv::pointwise(inner.shape[0]))?;
            net.add(&format!("{stage}.pre"), &inner);
            net.relu(&stage);
            before = net.tail.clone();
        }
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
