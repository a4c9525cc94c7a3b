//! What became an input, and attributes that mean nothing any more.

use crate::ops::{Attr, OpError};

use super::super::draft::{Draft, Source};

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

/// Resize before opset 11: the scales were input 1, and the copies of an element lay where they do in `asymmetric`.
pub fn resize(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    if draft.inputs.len() == 2 {
        draft.inputs.insert(1, Source::None);
    }
    let text = |value: &str| Attr::String(value.into());
    draft.attrs = core::mem::take(&mut draft.attrs)
        .with("coordinate_transformation_mode", text("asymmetric"))
        .with("nearest_mode", text("floor"));
    Ok(())
}

/// Split before opset 13: `split` was an attribute; before 18 its absence meant as many equal parts as outputs.
pub fn split(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.ints_to_input("split", 1)?;
    if draft.inputs.len() < 2 {
        draft.attrs = core::mem::take(&mut draft.attrs).with_int("num_outputs", draft.stated_outputs as i64);
    }
    Ok(())
}
