//! Loops that several operators share.

pub mod buffer;
pub mod frame;
pub mod gemm;
pub mod linear;

pub mod pointwise;
pub mod prefetch;
pub mod rows;
pub mod strided;
pub mod taps;
pub mod threads;
pub mod tile;
pub mod vector;
pub mod window;
pub mod winograd;
