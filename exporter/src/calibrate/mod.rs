//! What values a network's floats take: streamed over samples, memory independent of their number. ONE FILE PER METHOD;
//! [`table`] lists them.

pub mod table;

use std::collections::BTreeMap;

use kd_runtime::Result;
use kd_runtime::contract::Contract;
use kd_runtime::data::Dataset;
use kd_runtime::graph::{Graph, ValueId};

/// The interval that a value's quantization must hold; contains 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
}

/// What calibration found.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// For every float value that a node computes, and every float input.
    pub ranges: BTreeMap<ValueId, Range>,
    /// Samples that were run.
    pub samples: usize,
    /// Name of the method.
    pub method: &'static str,
}

/// Runs the training part of `data` (at most `most` samples, spread evenly) through the float network and finds ranges.
pub fn calibrate(
    graph: &Graph,
    contract: &Contract,
    data: &dyn Dataset,
    method: &str,
    most: usize,
) -> Result<Calibration> {
    let _ = (graph, contract, data, method, most);
    todo!()
}
