//! Convolution of 8-bit integers over one or two spatial axes, with groups; any type of input, weights and output.
//!
//! `acc = bias[m] + Σ (x − zx)(w − zw[m])` in i32, pads contribute nothing, then [`Output::requantize`].

mod scalar;

use alloc::string::String;
use alloc::vec::Vec;

use super::Kernel;
use crate::engine::requantize::Output;
use crate::graph::ElementType;
use crate::ops::window::Axis;
use crate::ops::{Frame, OpError};

/// A convolution with constant weights.
#[derive(Debug)]
pub struct ConvI8 {
    /// Samples.
    pub batch: usize,
    /// Groups.
    pub group: usize,
    /// Input channels of one group.
    pub in_channels: usize,
    /// Output channels of one group.
    pub out_channels: usize,
    /// Rows and columns; a 1-D convolution has one row.
    pub axes: [Axis; 2],
    /// `w − zw`, `[M, C/group, kh, kw]`.
    pub weights: Vec<i16>,
    /// One an output channel, in the accumulator's scale.
    pub bias: Vec<i32>,
    /// `(sx · sw[m]) / sy`, one an output channel.
    pub multipliers: Vec<f32>,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// How accumulators become outputs.
    pub output: Output,
}

impl Kernel for ConvI8 {
    fn name(&self) -> String {
        "conv_i8/scalar".into()
    }

    /// Output 0 is the result, output 1 an i32 for each element of one channel of one sample.
    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let (y, acc) = frame.output_pair(0, 1);
        let (output, acc) = (y.data.element(), acc.get::<i32>());
        match (x.element(), output) {
            (ElementType::U8, ElementType::U8) => scalar::conv(self, x.get::<u8>(), y.get::<u8>(), acc),
            (ElementType::U8, _) => scalar::conv(self, x.get::<u8>(), y.get::<i8>(), acc),
            (_, ElementType::U8) => scalar::conv(self, x.get::<i8>(), y.get::<u8>(), acc),
            _ => scalar::conv(self, x.get::<i8>(), y.get::<i8>(), acc),
        }
        Ok(())
    }

    fn weights_bytes(&self) -> usize {
        2 * self.weights.len() + 4 * (self.bias.len() + self.multipliers.len())
    }
}

/// The input that tap `k` of output `o` reads, if it lies inside.
pub fn inside_input(axis: &Axis, o: usize, k: usize) -> Option<usize> {
    (o * axis.stride + k * axis.dilation).checked_sub(axis.pad_begin).filter(|&i| i < axis.input)
}
