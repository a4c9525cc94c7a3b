//! The window of a convolution or pool over one or two axes.

use kd_runtime::ops::window::Axis;

/// The window of a convolution over two axes (a 1-D one has a first axis of size 1).
#[derive(Clone, Copy, Debug)]
pub struct Window2 {
    /// Rows.
    pub y: Axis,
    /// Columns.
    pub x: Axis,
}

impl Window2 {
    /// From one or two resolved axes; `None` for more.
    pub fn new(axes: &[Axis]) -> Option<Self> {
        let one = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };
        match *axes {
            [x] => Some(Self { y: one, x }),
            [y, x] => Some(Self { y, x }),
            _ => None,
        }
    }

    /// Elements of an input plane.
    pub fn input(&self) -> usize {
        self.y.input * self.x.input
    }

    /// Elements of an output plane.
    pub fn output(&self) -> usize {
        self.y.output * self.x.output
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.y.kernel * self.x.kernel
    }

    /// Whether the patches are the image itself.
    pub fn is_pointwise(&self) -> bool {
        [self.y, self.x].iter().all(|a| a.kernel == 1 && a.stride == 1 && a.pad_begin == 0 && a.output == a.input)
    }
}

/// The outputs `from..to` of an axis whose tap `k` falls inside the input, and the input place of `from`.
#[inline]
pub fn span(axis: &Axis, k: usize) -> (usize, usize, usize) {
    let shift = k * axis.dilation;
    let from = axis.pad_begin.saturating_sub(shift).div_ceil(axis.stride);
    let limit = axis.input + axis.pad_begin;
    let to = if limit > shift { (limit - shift).div_ceil(axis.stride).min(axis.output) } else { 0 };
    if from >= to { (0, 0, 0) } else { (from, to, from * axis.stride + shift - axis.pad_begin) }
}
