//! Convolution.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType, window::Window};

/// Convolution `[N, C, …] * [M, C/group, …] + [M]` over any number of spatial axes; f32. ONNX Conv.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Groups of channels that do not see each other.
    pub group: usize,
}

impl Conv {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let group = attrs.int_or("group", 1)?;
        let group = usize::try_from(group).ok().filter(|&g| g >= 1 && g <= 1 << 31);
        let group = group.ok_or_else(|| OpError::new("a group of 1 to 2^31", "another"))?;
        Ok(Self { window: Window::read(attrs, false)?, group })
    }
}

impl Operator for Conv {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("group", self.group as i64)
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
