//! Architectures: ONE FILE EACH, a function from options to a graph with weights; [`table`] lists them.

pub mod initialize;
pub mod layers;
pub mod table;

mod cnn;
mod ds_cnn;
mod fcn;
mod inception_time;
mod lite;
mod mlp;
mod mlperf;
mod mobilenet_v1;
mod mobilenet_v2;
mod recurrent;
mod resnet;
mod resnet1d;
mod shufflenet_v1;
mod shufflenet_v2;
#[cfg(test)]
pub(crate) mod tests;
mod ts_transformer;
mod vgg;
mod wrn;

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use crate::options::{Options, Spec};
use crate::recipe::Choice;

/// What a network is built for.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Shape of one sample: `[C, H, W]`, `[C, T]` or `[F]`.
    pub input: Vec<usize>,
    /// Classes of the output.
    pub classes: usize,
}

/// A row of the table of architectures.
pub struct Arch {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it is, and whose, on one line.
    pub about: &'static str,
    /// Its options, without `arch`.
    pub options: &'static [Spec],
    /// Builds it with weights of zero; refuses a site that it cannot take.
    pub build: fn(&Options, &Site) -> Result<Graph>,
}

/// Builds an architecture with first weights of this seed: input `x` `[N, …]`, output `logits` `[N, classes]`, taps
/// `features`, `stage1`, … and `stage1.pre`, … (before the activation).
pub fn build(choice: &Choice, site: &Site, seed: u64) -> Result<Graph> {
    let arch = table::ARCHS.iter().find(|arch| arch.name == choice.name);
    let mut graph = (arch.expect("a checked choice names a row").build)(&choice.options, site)?;
    initialize::initialize(&mut graph, seed);
    Ok(graph)
}
