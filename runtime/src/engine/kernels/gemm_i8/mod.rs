//! Matrix product of 8-bit integers: `[rows, K] · [K, N]`, batched; constant or computed right side.
//!
//! `acc = bias[n] + Σ (a − za)(b − zb[n])` in i32, then [`Output::requantize`], or `f32(acc) · (sa · sb[n])`.

mod scalar;

use alloc::string::String;
use alloc::vec::Vec;

use super::Kernel;
use crate::engine::requantize::Output;
use crate::graph::ElementType;
use crate::ops::{Frame, OpError};

/// What the right side is.
#[derive(Debug)]
pub enum Right {
    /// Constant `b − zb`, `[K, N]`.
    Constant(Vec<i16>),
    /// Input 1, `[batches or 1, K, N]`, with this zero point.
    Computed(i32),
}

/// What becomes of accumulators.
#[derive(Debug)]
pub enum Result8 {
    /// 8-bit integers; multipliers are `(sa · sb[n]) / sy`.
    Quantized(Output),
    /// Floats; multipliers are `sa · sb[n]`.
    Float,
}

/// A matrix product.
#[derive(Debug)]
pub struct GemmI8 {
    /// Rows of one batch.
    pub rows: usize,
    /// Sum length.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// The right side.
    pub right: Right,
    /// One a column, in the accumulator's scale.
    pub bias: Vec<i32>,
    /// One a column.
    pub multipliers: Vec<f32>,
    /// Zero point of the left side.
    pub left_zero_point: i32,
    /// What becomes of accumulators.
    pub result: Result8,
}

impl Kernel for GemmI8 {
    fn name(&self) -> String {
        "gemm_i8/scalar".into()
    }

    /// Output 0 is the result, output 1 an i32 for each column.
    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let a = frame.input(0);
        let b = if let Right::Computed(_) = self.right { Some(frame.input(1)) } else { None };
        let (y, acc) = frame.output_pair(0, 1);
        let (y, acc) = (y.data, acc.get::<i32>());
        match a.element() {
            ElementType::U8 => scalar::gemm(self, a.get::<u8>(), b, y, acc),
            _ => scalar::gemm(self, a.get::<i8>(), b, y, acc),
        }
        Ok(())
    }

    fn weights_bytes(&self) -> usize {
        let weights = if let Right::Constant(weights) = &self.right { 2 * weights.len() } else { 0 };
        weights + 4 * (self.bias.len() + self.multipliers.len())
    }
}
