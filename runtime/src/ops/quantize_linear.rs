//! Between real numbers and integers: `real = (q - zero_point) * scale`.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::ElementType;

/// `q = saturate(round_half_even(x / scale) + zero_point)`; f32 or i32 to u8 or i8. Per tensor (scalar scale), per axis (1-D scale) or blocked. Without zero point: u8, 0. ONNX QuantizeLinear.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeLinear {
    /// The axis of a 1-D or blocked scale.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: not blocked.
    pub block_size: usize,
    /// The type of the output where there is no zero point.
    pub output: Option<ElementType>,
}

impl QuantizeLinear {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int_or("axis", 1)?;
        let block_size = attrs.int_or("block_size", 0)?;
        let block_size =
            usize::try_from(block_size).map_err(|_| OpError::new("a block_size of at least 0", block_size))?;
        attrs.take("saturate");
        let code = attrs.int_or("output_dtype", 0)?;
        let output = crate::onnx::messages::element_type(code);
        if code != 0 && !matches!(output, Some(ElementType::U8 | ElementType::I8)) {
            return Err(OpError::new("output_dtype u8 or i8", alloc::format!("ONNX type {code}")));
        }
        Ok(Self { axis, block_size, output })
    }
}

impl Operator for QuantizeLinear {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with_int("axis", self.axis)
            .with_int("block_size", self.block_size as i64)
            .with_int("output_dtype", self.output.map_or(0, crate::onnx::messages::type_code))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// `x = (q - zero_point) * scale`, one f32 rounding; u8, i8 or i32 to f32. Per tensor (scalar scale), per axis (1-D scale) or blocked. ONNX DequantizeLinear.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantizeLinear {
    /// The axis of a 1-D or blocked scale.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: not blocked.
    pub block_size: usize,
}

impl DequantizeLinear {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int_or("axis", 1)?;
        let block_size = attrs.int_or("block_size", 0)?;
        let block_size =
            usize::try_from(block_size).map_err(|_| OpError::new("a block_size of at least 0", block_size))?;
        Ok(Self { axis, block_size })
    }
}

impl Operator for DequantizeLinear {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis).with_int("block_size", self.block_size as i64)
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
