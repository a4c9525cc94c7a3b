//! Pooling.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType, window::Window};

/// Largest element of each window; f32, u8, i8. Second output: its flat index (i64). The first of equal elements in row-major order wins. ONNX MaxPool.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// 0: row-major indices, 1: column-major.
    pub storage_order: i64,
}

impl MaxPool {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let storage_order = attrs.int_or("storage_order", 0)?;
        Ok(Self { window: Window::read(attrs, true)?, storage_order })
    }
}

impl Operator for MaxPool {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("storage_order", self.storage_order)
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// Mean of each window; f32. ONNX AveragePool.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Whether padded elements count as zeros.
    pub count_include_pad: bool,
}

impl AveragePool {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let count_include_pad = attrs.flag("count_include_pad", false)?;
        Ok(Self { window: Window::read(attrs, true)?, count_include_pad })
    }
}

impl Operator for AveragePool {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("count_include_pad", i64::from(self.count_include_pad))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// Mean over all spatial axes, which become 1; f32. ONNX GlobalAveragePool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GlobalAveragePool;

impl GlobalAveragePool {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for GlobalAveragePool {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
