//! Squeeze and Unsqueeze before opset 13, ReduceMean before 18: `axes` was an attribute.

use crate::ops::OpError;

use super::super::draft::Draft;

/// Turns `axes` into input 1.
pub fn axes_to_input(draft: &mut Draft<'_>, _opset: i64) -> Result<(), OpError> {
    draft.ints_to_input("axes", 1)
}
