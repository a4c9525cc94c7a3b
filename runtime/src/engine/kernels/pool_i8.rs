//! Means of 8-bit integers over windows or whole planes: `round(f32(Σ (x − zx)) · (sx / (n·sy)))`.
//!
//! Sums are exact integers and the zero point is added after rounding, as the float definition has it; ONNX Runtime's
//! AveragePool rounds after adding it, so ties there differ by a step.

use alloc::string::String;

use super::Kernel;
use super::conv_i8::inside_input;
use crate::engine::requantize::{Byte, Output};
use crate::graph::{Slice, SliceMut};
use crate::ops::window::Axis;
use crate::ops::{Frame, OpError};

/// A mean over windows of one or two axes; over whole planes where the window is the plane.
#[derive(Debug)]
pub struct PoolI8 {
    /// Rows and columns.
    pub axes: [Axis; 2],
    /// Whether pads count as zeros.
    pub count_include_pad: bool,
    /// Scale of the input.
    pub input_scale: f32,
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// How results are rounded.
    pub output: Output,
}

impl PoolI8 {
    fn compute<X: Byte, Y: Byte>(&self, x: &[X], y: &mut [Y]) {
        let [rows, columns] = &self.axes;
        let planes = x.chunks_exact((rows.input * columns.input).max(1));
        for (x, y) in planes.zip(y.chunks_exact_mut((rows.output * columns.output).max(1))) {
            for (oh, y) in y.chunks_exact_mut(columns.output.max(1)).enumerate() {
                for (ow, y) in y.iter_mut().enumerate() {
                    *y = Y::narrow(self.window(x, oh, ow));
                }
            }
        }
    }

    fn window<X: Byte>(&self, x: &[X], oh: usize, ow: usize) -> i32 {
        let [rows, columns] = &self.axes;
        let (mut sum, mut count) = (0_i32, 0_usize);
        for ih in (0..rows.kernel).filter_map(|k| inside_input(rows, oh, k)) {
            for iw in (0..columns.kernel).filter_map(|k| inside_input(columns, ow, k)) {
                sum += x[ih * columns.input + iw].wide() - self.input_zero_point;
                count += 1;
            }
        }
        if self.count_include_pad {
            count = within_pads(rows, oh) * within_pads(columns, ow);
        }
        self.output.requantize(sum, self.input_scale / (count.max(1) as f32 * self.output_scale))
    }
}

/// Taps of output `o` that lie in the input or its stated pads.
fn within_pads(axis: &Axis, o: usize) -> usize {
    let padded = axis.input + axis.pad_begin + axis.pad_end;
    (0..axis.kernel).filter(|k| o * axis.stride + k * axis.dilation < padded).count()
}

impl Kernel for PoolI8 {
    fn name(&self) -> String {
        "pool_i8/scalar".into()
    }

    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        match (frame.input(0).data, frame.output(0).data) {
            (Slice::U8(x), SliceMut::U8(y)) => self.compute(x, y),
            (Slice::I8(x), SliceMut::I8(y)) => self.compute(x, y),
            _ => return Err(OpError::new("one 8-bit type", "several")),
        }
        Ok(())
    }
}
