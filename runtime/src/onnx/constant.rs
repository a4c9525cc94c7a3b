//! `Constant` nodes become initializers.

use alloc::vec::Vec;

use super::draft::Draft;
use crate::graph::Tensor;
use crate::ops::{Attr, OpError};

/// The value of a `Constant` node: exactly one of `value`, `value_float(s)`, `value_int(s)`.
pub fn value(draft: Draft<'_>) -> Result<Tensor, OpError> {
    let expected = "one of value, value_float, value_floats, value_int, value_ints";
    if !draft.inputs.is_empty() {
        return Err(OpError::new("no input", draft.inputs.len()));
    }
    let mut attrs: Vec<_> = draft.attrs.0;
    let (Some((name, attr)), true) = (attrs.pop(), attrs.is_empty()) else {
        return Err(OpError::new(expected, alloc::format!("{} attributes", attrs.len())));
    };
    Ok(match (name.as_str(), attr) {
        ("value", Attr::Tensor(tensor)) => tensor,
        ("value_float", Attr::Float(v)) => Tensor::scalar(v),
        ("value_floats", Attr::Floats(v)) => Tensor::from_vec(&[v.len()], v),
        ("value_int", Attr::Int(v)) => Tensor::scalar(v),
        ("value_ints", Attr::Ints(v)) => Tensor::from_vec(&[v.len()], v),
        (name, _) => return Err(OpError::new(expected, alloc::format!("`{name}`"))),
    })
}
