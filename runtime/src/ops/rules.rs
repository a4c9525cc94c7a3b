//! What shape rules share: inputs that must be there, element types, small constants; and the choice of a Rust type.

use alloc::vec::Vec;

use super::walk::MOST_AXES;
use super::{Frame, Input, OpError, TensorType, attrs};
use crate::graph::{ElementType, Slice, TensorView};

/// Input `i`, which must be there.
pub fn required<'a>(inputs: &[Option<Input<'a>>], i: usize) -> Result<Input<'a>, OpError> {
    inputs.get(i).copied().flatten().ok_or_else(|| OpError::new(alloc::format!("input {i}"), "none"))
}

/// Input `i`, if it is there.
pub fn optional<'a>(inputs: &[Option<Input<'a>>], i: usize) -> Option<Input<'a>> {
    inputs.get(i).copied().flatten()
}

/// Input `i`, which must be there and hold one of these element types.
pub fn of_types<'a>(inputs: &[Option<Input<'a>>], i: usize, types: &[ElementType]) -> Result<Input<'a>, OpError> {
    let input = required(inputs, i)?;
    if types.contains(&input.element) {
        return Ok(input);
    }
    let names: Vec<_> = types.iter().map(|ty| alloc::format!("{ty}")).collect();
    Err(OpError::new(alloc::format!("{} as input {i}", names.join(" or ")), input.element))
}

/// Input `i`, which must be there and hold f32.
pub fn f32_input<'a>(inputs: &[Option<Input<'a>>], i: usize) -> Result<Input<'a>, OpError> {
    of_types(inputs, i, &[ElementType::F32])
}

/// Input `i`, if it is there; then it holds f32.
pub fn optional_f32<'a>(inputs: &[Option<Input<'a>>], i: usize) -> Result<Option<Input<'a>>, OpError> {
    optional(inputs, i).map(|_| f32_input(inputs, i)).transpose()
}

/// The output of an operator that works element by element on input 0, which holds one of these types.
pub fn like_input(inputs: &[Option<Input<'_>>], types: &[ElementType]) -> Result<Vec<TensorType>, OpError> {
    let x = of_types(inputs, 0, types)?;
    TensorType::one(x.element, x.shape)
}

/// An error unless a shape is `expected`.
pub fn same_shape(what: &str, shape: &[usize], expected: &[usize]) -> Result<(), OpError> {
    if shape == expected {
        return Ok(());
    }
    Err(OpError::new(alloc::format!("{what} of shape {expected:?}"), alloc::format!("{shape:?}")))
}

/// An error unless there is exactly one element.
pub fn one_element(what: &str, input: &Input<'_>) -> Result<(), OpError> {
    if input.shape.iter().all(|&n| n == 1) {
        return Ok(());
    }
    Err(OpError::new(alloc::format!("one element as {what}"), alloc::format!("shape {:?}", input.shape)))
}

/// The elements of a 1-D (or scalar) constant as i64; an error that names `what`.
pub fn int_list(input: &Input<'_>, what: &str) -> Result<Vec<i64>, OpError> {
    if input.shape.len() > 1 {
        return Err(OpError::new(alloc::format!("{what} of one axis"), alloc::format!("shape {:?}", input.shape)));
    }
    input.ints(what)
}

/// The elements of an i64 or i32 tensor; none of another type.
pub fn ints(view: TensorView<'_>) -> impl Iterator<Item = i64> + Clone + '_ {
    let (long, short) = match view.data {
        Slice::I64(v) => (v, &[][..]),
        Slice::I32(v) => (&[][..], v),
        _ => (&[][..], &[][..]),
    };
    long.iter().copied().chain(short.iter().map(|&x| i64::from(x)))
}

/// Copies input 0 to output 0, whatever their shapes.
pub fn copy_first(frame: &mut Frame<'_>) {
    let x = frame.input(0);
    frame.output(0).data.copy_from(x.data);
}

/// The axes of a list (negative ones count from the end) as a mask; an error outside the rank or if one comes twice.
pub fn axis_mask(axes: impl Iterator<Item = i64>, rank: usize) -> Result<[bool; MOST_AXES], OpError> {
    let mut mask = [false; MOST_AXES];
    for axis in axes {
        let i = attrs::axis(axis, rank.min(MOST_AXES))?;
        if core::mem::replace(&mut mask[i], true) {
            return Err(OpError::new("each axis once", alloc::format!("axis {axis} again")));
        }
    }
    Ok(mask)
}

/// What `eval` says if a value that the shape rule checked has changed since.
pub fn changed(what: &str) -> OpError {
    OpError::new(alloc::format!("the {what} that the shapes were inferred from"), "others")
}

/// Runs `$body` with `$T` as the Rust type of an element type, whichever it is.
macro_rules! for_any {
    ($element:expr, $T:ident => $body:expr) => {{
        use $crate::graph::ElementType;
        match $element {
            ElementType::F32 => {
                type $T = f32;
                $body
            }
            ElementType::U8 => {
                type $T = u8;
                $body
            }
            ElementType::I8 => {
                type $T = i8;
                $body
            }
            ElementType::I32 => {
                type $T = i32;
                $body
            }
            ElementType::I64 => {
                type $T = i64;
                $body
            }
            ElementType::Bool => {
                type $T = bool;
                $body
            }
        }
    }};
}
pub(super) use for_any;

/// The same for numbers; returns an error on bool.
macro_rules! for_number {
    ($element:expr, $T:ident => $body:expr) => {{
        use $crate::graph::ElementType;
        match $element {
            ElementType::F32 => {
                type $T = f32;
                $body
            }
            ElementType::U8 => {
                type $T = u8;
                $body
            }
            ElementType::I8 => {
                type $T = i8;
                $body
            }
            ElementType::I32 => {
                type $T = i32;
                $body
            }
            ElementType::I64 => {
                type $T = i64;
                $body
            }
            ElementType::Bool => return Err($crate::ops::OpError::new("numbers", ElementType::Bool)),
        }
    }};
}
pub(super) use for_number;
