//! Matrix products.

use alloc::vec::Vec;

use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// `y = alpha * A' * B' + beta * C`, C broadcast to [M, N]; f32. ONNX Gemm.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
    /// Whether A is given transposed, [K, M].
    pub trans_a: bool,
    /// Whether B is given transposed, [N, K].
    pub trans_b: bool,
}

impl Gemm {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self {
            alpha: attrs.float_or("alpha", 1.0)?,
            beta: attrs.float_or("beta", 1.0)?,
            trans_a: attrs.flag("transA", false)?,
            trans_b: attrs.flag("transB", false)?,
        })
    }
}

impl Operator for Gemm {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("alpha", super::Attr::Float(self.alpha))
            .with("beta", super::Attr::Float(self.beta))
            .with_int("transA", i64::from(self.trans_a))
            .with_int("transB", i64::from(self.trans_b))
    }

    fn infer(&self, _inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        todo!()
    }

    fn eval(&self, _frame: &mut Frame<'_>) -> Result<(), OpError> {
        todo!()
    }
}

/// Matrix product of the last two axes, the others broadcast, as numpy.matmul; f32. ONNX MatMul.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatMul;

impl MatMul {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for MatMul {
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
