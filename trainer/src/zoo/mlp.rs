//! Linear layers with ReLU.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::Site;
use super::layers::Net;
use crate::options::{Kind, Options, Range, Spec};

/// Options of `mlp`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "hidden",
        about: "units of each hidden layer",
        kind: Kind::Counts { default: &[128], least_len: 0, least: 1, most: 1 << 20 },
    },
    Spec {
        name: "input_dropout",
        about: "share of inputs that are dropped while training",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
    Spec {
        name: "dropout",
        about: "share of hidden units that are dropped while training",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
];

/// Flattened input, hidden layers `stage1`, `stage2`, … with ReLU, and a linear layer; the last hidden layer is
/// `features`. Hinton et al. 2015 (arXiv 1503.02531) §3 use 784-1200-1200-10 with
/// dropout, of inputs too where they follow Hinton et al. 2012 (arXiv 1207.0580).
pub fn build(options: &Options, site: &Site) -> Result<Graph> {
    let mut net = Net::new("mlp", site)?;
    if site.input.len() > 1 {
        net.flatten("flat");
    }
    net.dropout("dropped", options.number("input_dropout"));
    for (i, &units) in options.counts("hidden").iter().enumerate() {
        let name = format!("stage{}", i + 1);
        net.linear(&format!("{name}.pre"), units)?;
        net.relu(&name);
        if i + 1 < options.counts("hidden").len() {
            net.dropout(&format!("{name}.dropped"), options.number("dropout"));
        }
    }
    net.flatten("features");
    if !options.counts("hidden").is_empty() {
        net.dropout("features.dropped", options.number("dropout"));
    }
    net.linear("logits", site.classes)?;
    net.finish()
}
