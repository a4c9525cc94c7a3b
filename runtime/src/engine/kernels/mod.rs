//! What computes a step: an operator's reference computation, or a kernel of a family.

pub mod arith_i8;
pub mod conv_i8;
pub mod gemm_i8;
pub mod lut_i8;
pub mod pool_i8;

use alloc::string::String;

use crate::ops::{Frame, Op, OpError};

/// Computes one step; allocates nothing.
pub trait Kernel: Send {
    /// `FAMILY/ISA`, or `op/NAME`.
    fn name(&self) -> String;
    /// Computes the outputs from the inputs.
    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError>;
    /// Bytes of weights and tables that the kernel itself holds.
    fn weights_bytes(&self) -> usize {
        0
    }
}

/// An operator's reference computation.
pub struct OpKernel(pub Op);

impl Kernel for OpKernel {
    fn name(&self) -> String {
        alloc::format!("op/{}", self.0.name())
    }

    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        self.0.def().eval(frame)
    }
}
