//! Recurrent networks for time series.

use kd_runtime::Result;
use kd_runtime::graph::Graph;
use kd_runtime::ops::recurrent::{Direction, Recurrent};
use kd_runtime::ops::{Op, gru, lstm, transpose};

use super::Site;
use super::layers::{Net, series};
use crate::options::{Kind, Options, Range, Spec};

/// Options of `lstm` and `gru`.
pub static OPTIONS: &[Spec] = &[
    Spec {
        name: "widths",
        about: "units of each layer, of each direction",
        kind: Kind::Counts { default: &[64, 64], least_len: 1, least: 1, most: 1 << 12 },
    },
    Spec {
        name: "bidirectional",
        about: "whether each layer reads from both ends",
        kind: Kind::Flag { default: false },
    },
    Spec {
        name: "dropout",
        about: "probability of dropping an element behind a layer",
        kind: Kind::Number { default: 0.0, range: Range::BelowOne },
    },
];

/// Long short-term memory (Hochreiter, Schmidhuber 1997; with the forget gate of Gers et al. 2000).
pub fn lstm(options: &Options, site: &Site) -> Result<Graph> {
    build("lstm", options, site, lstm::GATES, |layer| lstm::LSTM { layer }.into())
}

/// Gated recurrent units (Cho et al. 2014, arXiv 1406.1078), the state multiplied by its weights before it is reset, as
/// torch and cuDNN do.
pub fn gru(options: &Options, site: &Site) -> Result<Graph> {
    build("gru", options, site, gru::GATES, |layer| gru::GRU { layer, linear_before_reset: true }.into())
}

/// Layers `stage1`, `stage2`, … of states `[C, T]`, then their mean over time and a linear layer.
fn build(arch: &str, options: &Options, site: &Site, gates: usize, op: impl Fn(Recurrent) -> Op) -> Result<Graph> {
    series(arch, site)?;
    let mut net = Net::new(arch, site)?;
    let direction = if options.flag("bidirectional") { Direction::Bidirectional } else { Direction::Forward };
    let directions = direction.reversed().len();
    for (i, &hidden) in options.counts("widths").iter().enumerate() {
        let name = format!("stage{}", i + 1);
        let [features, steps] = [net.tail.shape[0], net.tail.shape[1]];
        let rows = gates * hidden;
        let w = net.parameter(&format!("{name}.weight"), &[directions, rows, features], 0.0)?;
        let r = net.parameter(&format!("{name}.recurrent"), &[directions, rows, hidden], 0.0)?;
        let b = net.parameter(&format!("{name}.bias"), &[directions, 2 * rows], 0.0)?;
        // The operators read time first, and write a state of each direction: [T, D, N, H].
        let id = net.tail.id;
        net.apply(transpose::Transpose { perm: vec![2, 0, 1] }, &[id], &format!("{name}.steps"), Vec::new());
        let layer = Recurrent { direction, hidden_size: Some(hidden) };
        let id = net.tail.id;
        net.apply(op(layer), &[id, w, r, b], &format!("{name}.states"), Vec::new());
        let id = net.tail.id;
        net.apply(transpose::Transpose { perm: vec![2, 1, 3, 0] }, &[id], &format!("{name}.moved"), Vec::new());
        net.reshape(&format!("{name}.pre"), vec![directions * hidden, steps]);
        net.same(&name);
        net.dropout(&format!("{name}.dropout"), options.number("dropout"));
    }
    net.global_average("features");
    net.linear("logits", site.classes)?;
    net.finish()
}
