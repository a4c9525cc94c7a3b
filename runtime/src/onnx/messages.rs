//! The messages of `onnx.proto` that we read and write.

use crate::graph::ElementType;

/// `TensorProto.DataType` of an element type.
pub fn type_code(element: ElementType) -> i64 {
    match element {
        ElementType::F32 => 1,
        ElementType::U8 => 2,
        ElementType::I8 => 3,
        ElementType::I32 => 6,
        ElementType::I64 => 7,
        ElementType::Bool => 9,
    }
}

/// The element type of a `TensorProto.DataType`, if it is one of ours.
pub fn element_type(code: i64) -> Option<ElementType> {
    let all =
        [ElementType::F32, ElementType::U8, ElementType::I8, ElementType::I32, ElementType::I64, ElementType::Bool];
    all.into_iter().find(|&element| type_code(element) == code)
}
