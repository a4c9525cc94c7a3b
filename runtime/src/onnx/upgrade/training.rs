//! Operators that had a training form of their own.

use crate::ops::{Attr, OpError};

use super::super::draft::Draft;

/// BatchNormalization before opset 14: `spatial` (before 9) and four more outputs in training.
pub fn batch_normalization(draft: &mut Draft<'_>, opset: i64) -> Result<(), OpError> {
    drop_leftovers(draft)?;
    if opset < 9 && !draft.attrs.flag("spatial", true)? {
        return Err(OpError::new("spatial 1 (statistics per channel)", 0));
    }
    draft.drop_outputs(1);
    Ok(())
}

/// Dropout before opset 12: `ratio` was an attribute. The mask before opset 10 had the type of the data.
pub fn dropout(draft: &mut Draft<'_>, opset: i64) -> Result<(), OpError> {
    drop_leftovers(draft)?;
    if opset < 10 {
        draft.drop_outputs(1);
    }
    draft.float_to_input("ratio", 1)
}

/// `is_test` and `consumed_inputs` are of opset 6 and older; exporters went on writing them.
fn drop_leftovers(draft: &mut Draft<'_>) -> Result<(), OpError> {
    match draft.attrs.take("is_test") {
        None | Some(Attr::Int(1)) => {}
        Some(_) => return Err(OpError::new("is_test 1", "a node in training form")),
    }
    draft.attrs.take("consumed_inputs");
    Ok(())
}
