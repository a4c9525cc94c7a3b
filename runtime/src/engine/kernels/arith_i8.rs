//! Sums and products of two quantized tensors, broadcast; any mix of 8-bit types.
//!
//! Sum: `round((F + a·ra) + b·rb)` with `ra = sa/sy`, `rb = sb/sy`, `F = −(ra·za + rb·zb)`, all f32 without fused
//! multiply-add: the order of ONNX Runtime's x86 kernel (its ARM kernel differs by a step at ties).
//! Product: `round((a − za)(b − zb) · (sa·sb/sy))`.

use alloc::string::String;
use alloc::vec::Vec;

use super::Kernel;
use crate::engine::requantize::{Byte, Output};
use crate::graph::{Slice, SliceMut};
use crate::ops::{Frame, OpError};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arith {
    /// `a + b`.
    Sum {
        /// `sa / sy`.
        ratio_a: f32,
        /// `sb / sy`.
        ratio_b: f32,
        /// `zy − (ra·za + rb·zb)`.
        fixed: f32,
    },
    /// `a · b`.
    Product {
        /// `sa·sb / sy`.
        ratio: f32,
        /// Zero point of a.
        zero_a: i32,
        /// Zero point of b.
        zero_b: i32,
    },
}

/// Sum or product of inputs 0 and 1.
#[derive(Debug)]
pub struct ArithI8 {
    /// Which.
    pub arith: Arith,
    /// Sizes of the result.
    pub shape: Vec<usize>,
    /// Steps through a for each axis; 0 where it is stretched.
    pub strides_a: Vec<usize>,
    /// Steps through b.
    pub strides_b: Vec<usize>,
    /// How results are rounded. Of a sum the zero point is already in `fixed`.
    pub output: Output,
}

impl ArithI8 {
    fn one(&self, a: i32, b: i32) -> i32 {
        match self.arith {
            Arith::Sum { ratio_a, ratio_b, fixed } => {
                let bounds = Output { zero_point: 0, ..self.output };
                bounds.quantize((fixed + a as f32 * ratio_a) + b as f32 * ratio_b)
            }
            Arith::Product { ratio, zero_a, zero_b } => self.output.requantize((a - zero_a) * (b - zero_b), ratio),
        }
    }

    fn compute<A: Byte, B: Byte, Y: Byte>(&self, a: &[A], b: &[B], y: &mut [Y]) {
        let row = self.shape.last().copied().unwrap_or(1);
        let step = |strides: &[usize]| strides.last().copied().unwrap_or(0);
        let (step_a, step_b) = (step(&self.strides_a), step(&self.strides_b));
        for (i, y) in y.chunks_exact_mut(row.max(1)).enumerate() {
            let (a, b) = (&a[self.start(i, &self.strides_a)..], &b[self.start(i, &self.strides_b)..]);
            for (k, y) in y.iter_mut().enumerate() {
                *y = Y::narrow(self.one(a[k * step_a].wide(), b[k * step_b].wide()));
            }
        }
    }

    /// Where row `i` of the result begins in an input.
    fn start(&self, mut i: usize, strides: &[usize]) -> usize {
        let mut at = 0;
        for (&size, &stride) in self.shape.iter().zip(strides).rev().skip(1) {
            at += i % size * stride;
            i /= size;
        }
        at
    }
}

impl Kernel for ArithI8 {
    fn name(&self) -> String {
        "arith_i8/scalar".into()
    }

    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (a, b) = (frame.input(0).data, frame.input(1).data);
        match (a, b, frame.output(0).data) {
            (Slice::U8(a), Slice::U8(b), SliceMut::U8(y)) => self.compute(a, b, y),
            (Slice::I8(a), Slice::I8(b), SliceMut::I8(y)) => self.compute(a, b, y),
            _ => return Err(OpError::new("one 8-bit type", "several")),
        }
        Ok(())
    }
}
