//! From older opsets to the normal form (opset 21): a rule per operator that changed, listed in [`RULES`].
//!
//! A rule sees one node, before shapes are known; what needs shapes is finished by [`settle`].

mod attributes;
mod axes;
mod newer;
mod softmax;
mod training;

use super::draft::Draft;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::ops::{Op, OpError};

/// The oldest opset that is read.
pub const OLDEST_OPSET: i64 = 7;
/// The newest opset that is read: the newest whose definitions of our operators were compared with those of opset 22
/// (the schemas of onnx 1.23). Later versions of them add element types that we do not have, refused by type, and three
/// attributes, whose values `newer` checks; none changed its meaning. What a later opset changes nobody knows.
pub const NEWEST_OPSET: i64 = 28;

/// Rewrites a node of opset `first..=last`.
struct Rule {
    op: &'static str,
    opsets: core::ops::RangeInclusive<i64>,
    apply: fn(&mut Draft<'_>, opset: i64) -> core::result::Result<(), OpError>,
}

const fn rule(
    op: &'static str,
    opsets: core::ops::RangeInclusive<i64>,
    apply: fn(&mut Draft<'_>, i64) -> core::result::Result<(), OpError>,
) -> Rule {
    Rule { op, opsets, apply }
}

static RULES: &[Rule] = &[
    rule("BatchNormalization", 7..=13, training::batch_normalization),
    rule("Clip", 7..=10, attributes::clip),
    rule("DequantizeLinear", 23..=i64::MAX, newer::dequantize_linear),
    rule("Cast", 23..=i64::MAX, newer::cast),
    rule("Dropout", 7..=11, training::dropout),
    rule("Gemm", 7..=10, attributes::gemm),
    rule("LogSoftmax", 7..=12, softmax::default_axis),
    rule("Pad", 7..=10, attributes::pad),
    rule("QuantizeLinear", 23..=i64::MAX, newer::quantize_linear),
    rule("ReduceMean", 7..=17, axes::axes_to_input),
    rule("Resize", 7..=10, attributes::resize),
    rule("Slice", 7..=9, attributes::slice),
    rule("Softmax", 7..=12, softmax::default_axis),
    rule("Split", 7..=17, attributes::split),
    rule("Squeeze", 7..=12, axes::axes_to_input),
    rule("Unsqueeze", 7..=12, axes::axes_to_input),
];

/// Applies the rules for an operator of a model of this opset.
pub fn apply(draft: &mut Draft<'_>, opset: i64) -> core::result::Result<(), OpError> {
    let op_type = draft.op_type;
    for rule in RULES.iter().filter(|rule| rule.op == op_type && rule.opsets.contains(&opset)) {
        (rule.apply)(draft, opset)?;
    }
    Ok(())
}

/// Whether a node means, in a model of this opset, something that depends on the rank of its input.
pub fn needs_shapes(op: &Op, opset: i64) -> bool {
    opset < 13 && matches!(op, Op::Softmax(_) | Op::LogSoftmax(_))
}

/// Finishes, on a validated graph, the nodes that [`needs_shapes`] named by their outputs; the graph is valid again after.
pub fn settle(graph: &mut Graph, pending: &[ValueId]) -> Result<()> {
    softmax::settle(graph, pending)
}
