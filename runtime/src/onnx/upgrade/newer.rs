//! Attributes newer than the normal form, where they say what it means anyway.

use crate::ops::OpError;

use super::super::draft::Draft;

/// `precision` since opset 23: the type of the division; ours is f32.
pub fn quantize_linear(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    f32_or_unset(draft, "precision")
}

/// `output_dtype` since opset 23; ours is f32.
pub fn dequantize_linear(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    f32_or_unset(draft, "output_dtype")
}

/// `round_mode` since opset 24 matters for float8e8m0 only.
pub fn cast(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.attrs.take("round_mode");
    Ok(())
}

fn f32_or_unset(draft: &mut Draft<'_>, name: &str) -> Result<(), OpError> {
    match draft.attrs.int_or(name, 0)? {
        0 | 1 => Ok(()),
        other => Err(OpError::new(alloc::format!("{name} f32"), super::super::messages::type_name(other))),
    }
}
