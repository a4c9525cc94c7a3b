//! What became an input, and attributes that mean nothing any more.

use crate::ops::{Attr, OpError};

use super::super::draft::Draft;

/// Clip before opset 11: `min` and `max` were attributes.
pub fn clip(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.float_to_input("min", 1)?;
    draft.float_to_input("max", 2)
}

/// Pad before opset 11: `pads` and `value` were attributes.
pub fn pad(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.ints_to_input("pads", 1)?;
    // A value that is not there is 0, as the input's; 0 is what exporters write, so leave it out too.
    if let Some(i) = draft.attrs.0.iter().position(|(name, attr)| name == "value" && *attr == Attr::Float(0.0)) {
        draft.attrs.0.remove(i);
    }
    draft.float_to_input("value", 2)
}

/// Slice before opset 10: `starts`, `ends` and `axes` were attributes.
pub fn slice(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.ints_to_input("starts", 1)?;
    draft.ints_to_input("ends", 2)?;
    draft.ints_to_input("axes", 3)
}

/// Gemm before opset 7 had `broadcast`; some exporters went on writing it, where it says what holds anyway.
pub fn gemm(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.attrs.take("broadcast");
    Ok(())
}
