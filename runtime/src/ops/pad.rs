//! Padding.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// What is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value, 0 if none is given.
    Constant,
    /// The nearest element.
    Edge,
    /// The elements mirrored at the edge, which is not repeated.
    Reflect,
    /// The elements of the other end.
    Wrap,
}

/// Adds (or, with negative counts, removes) elements at the ends of axes; any type. Inputs x, pads (i64), value (scalar), axes. ONNX Pad.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// What is added.
    pub mode: PadMode,
}

impl Pad {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let mode = match attrs.string_or("mode", "constant")?.as_str() {
            "constant" => PadMode::Constant,
            "edge" => PadMode::Edge,
            "reflect" => PadMode::Reflect,
            "wrap" => PadMode::Wrap,
            other => {
                return Err(OpError::new("mode constant, edge, reflect or wrap", alloc::format!("`{other}`")));
            }
        };
        Ok(Self { mode })
    }
}

impl Operator for Pad {
    fn attrs(&self) -> Attrs {
        let mode = match self.mode {
            PadMode::Constant => "constant",
            PadMode::Edge => "edge",
            PadMode::Reflect => "reflect",
            PadMode::Wrap => "wrap",
        };
        Attrs::new().with("mode", super::Attr::String(mode.into()))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}
