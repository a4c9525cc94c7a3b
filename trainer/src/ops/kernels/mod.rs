//! Loops that several operators share.

pub mod gemm;
pub mod im2col;
pub mod pointwise;
pub mod strided;
