//! The sliding window that convolutions and pools share: kernel, strides, pads, dilations over any number of axes.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Attr, Attrs, OpError};

/// Most spatial axes that are computed.
pub const MOST_SPATIAL: usize = 3;

/// How pads are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPad {
    /// From `pads`.
    #[default]
    NotSet,
    /// So that the output has `ceil(input / stride)` elements, an odd pad at the end.
    SameUpper,
    /// The same, an odd pad at the begin.
    SameLower,
    /// None.
    Valid,
}

/// A window as a node states it; empty lists mean ones (strides, dilations) or zeros (pads).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Sizes of the kernel; empty where the weights tell.
    pub kernel: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Begins of all axes, then ends.
    pub pads: Vec<usize>,
    /// Distances between taps.
    pub dilations: Vec<usize>,
    /// How pads are found.
    pub auto_pad: AutoPad,
    /// Whether a window that begins inside but ends outside counts (pools).
    pub ceil_mode: bool,
}

/// One axis of a window over an input of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Elements of the input.
    pub input: usize,
    /// Elements of the output.
    pub output: usize,
    /// Taps.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Elements before the input.
    pub pad_begin: usize,
    /// Elements after the input, as stated (a last window of `ceil_mode` may reach further).
    pub pad_end: usize,
}

impl Axis {
    /// An axis of one element and one tap.
    pub const UNIT: Self = Self { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };

    /// Whether the window leaves the axis as it is.
    pub fn is_identity(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pad_begin == 0 && self.pad_end == 0
    }

    /// The outputs whose tap `tap` lies in the input, and the tap's place in the input for the first of them; the
    /// place moves by `stride`.
    pub fn outputs_of(&self, tap: usize) -> (Range<usize>, usize) {
        let reach = tap * self.dilation;
        let first = self.pad_begin.saturating_sub(reach).div_ceil(self.stride);
        let end = (self.input + self.pad_begin).saturating_sub(reach).div_ceil(self.stride).min(self.output);
        if first >= end { (0..0, 0) } else { (first..end, first * self.stride + reach - self.pad_begin) }
    }

    /// The taps of output `output` that lie in the input, and the first one's place in the input; the place moves by
    /// `dilation`.
    pub fn taps_of(&self, output: usize) -> (Range<usize>, usize) {
        let start = output * self.stride;
        let first = self.pad_begin.saturating_sub(start).div_ceil(self.dilation);
        let end = (self.input + self.pad_begin).saturating_sub(start).div_ceil(self.dilation).min(self.kernel);
        if first >= end { (0..0, 0) } else { (first..end, start + first * self.dilation - self.pad_begin) }
    }

    /// How many taps of output `output` lie in the input or its stated pads.
    pub fn padded_taps_of(&self, output: usize) -> usize {
        let end = self.input + self.pad_begin + self.pad_end;
        end.saturating_sub(output * self.stride).div_ceil(self.dilation).min(self.kernel)
    }

    /// Whether every window has a tap in the input (a pool over pads alone has no value). Takes as many steps as windows
    /// begin before the input if dilated windows can step over it.
    pub fn all_see_input(&self) -> bool {
        let reach = (self.kernel - 1) * self.dilation;
        let last = self.output.saturating_sub(1) * self.stride;
        let before = self.pad_begin.div_ceil(self.stride).min(self.output);
        let sees = |output| !self.taps_of(output).0.is_empty();
        self.pad_begin <= reach
            && (self.output == 0 || last < self.input + self.pad_begin)
            && (self.input >= self.dilation || (0..before).all(sees))
    }
}

impl Window {
    /// Takes the window's attributes. `ceil_mode` is taken only for pools.
    pub fn read(attrs: &mut Attrs, pool: bool) -> Result<Self, OpError> {
        let auto_pad = match attrs.string_or("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => AutoPad::NotSet,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => {
                let known = "auto_pad NOTSET, SAME_UPPER, SAME_LOWER or VALID";
                return Err(OpError::new(known, alloc::format!("`{other}`")));
            }
        };
        Ok(Self {
            kernel: attrs.sizes("kernel_shape", 1)?,
            strides: attrs.sizes("strides", 1)?,
            pads: attrs.sizes("pads", 0)?,
            dilations: attrs.sizes("dilations", 1)?,
            auto_pad,
            ceil_mode: pool && attrs.flag("ceil_mode", false)?,
        })
    }

    /// The attributes, only those that are set.
    pub fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        let auto_pad = match self.auto_pad {
            AutoPad::NotSet => None,
            AutoPad::SameUpper => Some("SAME_UPPER"),
            AutoPad::SameLower => Some("SAME_LOWER"),
            AutoPad::Valid => Some("VALID"),
        };
        if let Some(auto_pad) = auto_pad {
            attrs = attrs.with("auto_pad", Attr::String(auto_pad.into()));
        }
        if self.ceil_mode {
            attrs = attrs.with_int("ceil_mode", 1);
        }
        let lists = [
            ("dilations", &self.dilations),
            ("kernel_shape", &self.kernel),
            ("pads", &self.pads),
            ("strides", &self.strides),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                attrs = attrs.with_sizes(name, list);
            }
        }
        attrs
    }

    /// The window over an input of these spatial sizes, one [`Axis`] each. `kernel` where the weights tell.
    pub fn resolve(&self, spatial: &[usize], kernel: Option<&[usize]>) -> Result<Vec<Axis>, OpError> {
        let kernel_sizes = self.checked_kernel(spatial, kernel)?;
        (0..spatial.len()).map(|i| self.resolve_axis(i, spatial.len(), spatial[i], kernel_sizes[i])).collect()
    }

    /// The same as three axes: the last ones are the window's, those before them are [`Axis::UNIT`]. Allocates nothing.
    pub fn resolve3(&self, spatial: &[usize], kernel: Option<&[usize]>) -> Result<[Axis; MOST_SPATIAL], OpError> {
        let rank = spatial.len();
        let Some(lead) = MOST_SPATIAL.checked_sub(rank).filter(|_| rank > 0) else {
            return Err(OpError::new(alloc::format!("1 to {MOST_SPATIAL} spatial axes"), rank));
        };
        let kernel_sizes = self.checked_kernel(spatial, kernel)?;
        let mut axes = [Axis::UNIT; MOST_SPATIAL];
        for i in 0..rank {
            axes[lead + i] = self.resolve_axis(i, rank, spatial[i], kernel_sizes[i])?;
        }
        Ok(axes)
    }

    pub(super) fn checked_kernel<'a>(
        &'a self,
        spatial: &[usize],
        kernel: Option<&'a [usize]>,
    ) -> Result<&'a [usize], OpError> {
        let rank = spatial.len();
        let kernel_sizes = kernel.unwrap_or(&self.kernel);
        let stated = [
            ("kernel_shape", &self.kernel, rank, kernel.is_some()),
            ("strides", &self.strides, rank, true),
            ("dilations", &self.dilations, rank, true),
            ("pads", &self.pads, 2 * rank, true),
        ];
        for (name, list, len, may_lack) in stated {
            if list.len() != len && !(list.is_empty() && may_lack) {
                let expected = alloc::format!("{len} numbers in {name} for {rank} spatial axes");
                return Err(OpError::new(expected, list.len()));
            }
        }
        if kernel_sizes.len() != rank || (!self.kernel.is_empty() && self.kernel != kernel_sizes) {
            let expected = alloc::format!("a kernel of shape {:?} over {rank} spatial axes", self.kernel);
            return Err(OpError::new(expected, alloc::format!("{kernel_sizes:?}")));
        }
        Ok(kernel_sizes)
    }

    fn resolve_axis(&self, i: usize, rank: usize, input: usize, kernel: usize) -> Result<Axis, OpError> {
        let too_big = || OpError::new("window sizes below 2^31", "larger ones");
        let stride = self.strides.get(i).copied().unwrap_or(1);
        let dilation = self.dilations.get(i).copied().unwrap_or(1);
        if kernel == 0 {
            return Err(OpError::new("a kernel of at least 1", 0));
        }
        let extent = (kernel - 1).checked_mul(dilation).and_then(|n| n.checked_add(1)).ok_or_else(too_big)?;
        let (pad_begin, pad_end) = match self.auto_pad {
            AutoPad::NotSet => (self.pads.get(i).copied().unwrap_or(0), self.pads.get(rank + i).copied().unwrap_or(0)),
            AutoPad::Valid => (0, 0),
            same => {
                let output = input.div_ceil(stride);
                let reach = (output.saturating_sub(1).checked_mul(stride))
                    .and_then(|n| n.checked_add(extent))
                    .ok_or_else(too_big)?;
                let total = reach.saturating_sub(input);
                let less = total / 2;
                if same == AutoPad::SameUpper { (less, total - less) } else { (total - less, less) }
            }
        };
        let padded = (input.checked_add(pad_begin)).and_then(|n| n.checked_add(pad_end)).ok_or_else(too_big)?;
        if padded < extent {
            let expected = alloc::format!("a padded input of at least the kernel's extent {extent}");
            return Err(OpError::new(expected, padded));
        }
        let mut output = (padded - extent) / stride + 1;
        if self.ceil_mode {
            output = (padded - extent).div_ceil(stride) + 1;
            // A last window that begins in the end pad is not counted.
            if (output - 1).checked_mul(stride).is_none_or(|start| start >= input + pad_begin) {
                output -= 1;
            }
        }
        Ok(Axis { input, output, kernel, stride, dilation, pad_begin, pad_end })
    }
}

/// Calls `f` for every tap, in row-major order, and every output row that it reaches: with the tap's number, the input
/// row from the first element that it reads, the distance of the elements that it reads, and the part of the output row
/// that they belong to. `x` and `y` are one plane each.
pub fn tap_rows<X, Y>(
    axes: &[Axis; MOST_SPATIAL],
    x: &[X],
    y: &mut [Y],
    mut f: impl FnMut(usize, &[X], usize, &mut [Y]),
) {
    let [depth, height, width] = axes;
    for kd in 0..depth.kernel {
        let (slices, z0) = depth.outputs_of(kd);
        for kh in 0..if slices.is_empty() { 0 } else { height.kernel } {
            let (rows, y0) = height.outputs_of(kh);
            for kw in 0..if rows.is_empty() { 0 } else { width.kernel } {
                let (columns, x0) = width.outputs_of(kw);
                if columns.is_empty() {
                    continue;
                }
                let tap = (kd * height.kernel + kh) * width.kernel + kw;
                for (i, slice) in slices.clone().enumerate() {
                    for (j, row) in rows.clone().enumerate() {
                        let place = (z0 + i * depth.stride) * height.input + y0 + j * height.stride;
                        let x = &x[place * width.input..][x0..width.input];
                        let y = &mut y[(slice * height.output + row) * width.output..][columns.clone()];
                        f(tap, x, width.stride, y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn window(kernel: usize, stride: usize, dilation: usize, pads: [usize; 2]) -> Window {
        let (strides, dilations) = (vec![stride], vec![dilation]);
        Window { kernel: vec![kernel], strides, dilations, pads: pads.to_vec(), ..Window::default() }
    }

    #[test]
    fn finds_output_sizes() {
        // Input, kernel, stride, dilation, pads; output without and with ceil_mode.
        let cases = [
            (5, 3, 1, 1, [0, 0], 3, 3),
            (5, 3, 2, 1, [1, 1], 3, 3),
            (6, 3, 2, 1, [0, 0], 2, 3),
            (7, 3, 1, 2, [0, 1], 4, 4),
            (4, 1, 3, 1, [0, 0], 2, 2),
            (2, 3, 2, 1, [1, 1], 1, 2),
            (2, 1, 2, 1, [0, 1], 2, 1),
            (1, 1, 1, 1, [0, 0], 1, 1),
        ];
        for (input, kernel, stride, dilation, pads, floor, ceil) in cases {
            let mut w = window(kernel, stride, dilation, pads);
            assert_eq!(w.resolve(&[input], None).unwrap()[0].output, floor, "{w:?} over {input}");
            w.ceil_mode = true;
            assert_eq!(w.resolve(&[input], None).unwrap()[0].output, ceil, "{w:?} over {input}");
        }
    }

    #[test]
    fn pads_so_that_sizes_stay() {
        for (auto_pad, pads) in [(AutoPad::SameUpper, (1, 2)), (AutoPad::SameLower, (2, 1)), (AutoPad::Valid, (0, 0))] {
            let w = Window { auto_pad, pads: vec![], ..window(4, 1, 1, [0, 0]) };
            let axis = w.resolve(&[8], None).unwrap()[0];
            assert_eq!((axis.pad_begin, axis.pad_end), pads);
        }
        let w = Window { auto_pad: AutoPad::SameUpper, ..window(3, 2, 1, [0, 0]) };
        assert_eq!(w.resolve(&[8], None).unwrap()[0].output, 4);
    }

    #[test]
    fn clips_taps_to_the_input_as_counting_does() {
        for (input, kernel, stride, dilation, pads) in [
            (5, 3, 2, 1, [1, 1]),
            (6, 2, 1, 3, [3, 2]),
            (1, 2, 1, 2, [1, 1]),
            (4, 3, 3, 2, [0, 4]),
            (3, 1, 1, 1, [0, 0]),
        ] {
            let axis = window(kernel, stride, dilation, pads).resolve(&[input], None).unwrap()[0];
            let place = |o: usize, t: usize| (o * stride + t * dilation).checked_sub(pads[0]).filter(|&p| p < input);
            for o in 0..axis.output {
                let taps: Vec<_> = (0..kernel).filter(|&t| place(o, t).is_some()).collect();
                let (found, first) = axis.taps_of(o);
                assert_eq!(found.clone().collect::<Vec<_>>(), taps);
                assert_eq!(
                    found.clone().map(|t| first + (t - found.start) * dilation).next(),
                    taps.first().and_then(|&t| place(o, t))
                );
                let padded = (0..kernel).filter(|t| o * stride + t * dilation < input + pads[0] + pads[1]).count();
                assert_eq!(axis.padded_taps_of(o), padded);
            }
            for t in 0..kernel {
                let outputs: Vec<_> = (0..axis.output).filter(|&o| place(o, t).is_some()).collect();
                let (found, first) = axis.outputs_of(t);
                assert_eq!(found.clone().collect::<Vec<_>>(), outputs);
                assert_eq!(found.map(|_| first).next(), outputs.first().and_then(|&o| place(o, t)));
            }
            let all = (0..axis.output).all(|o| (0..kernel).any(|t| place(o, t).is_some()));
            assert_eq!(axis.all_see_input(), all, "{axis:?}");
        }
    }

    #[test]
    fn refuses_hostile_numbers() {
        let huge = 1 << 31;
        let cases = [
            window(3, 1, 1, [0, 0]),
            window(huge, 1, huge, [0, 0]),
            window(0, 1, 1, [0, 0]),
            window(usize::MAX, 1, 2, [0, 0]),
            window(1, 1, 1, [usize::MAX, 1]),
            Window { pads: vec![1], ..window(1, 1, 1, [0, 0]) },
            Window { kernel: vec![1, 1], ..Window::default() },
            Window::default(),
            Window { auto_pad: AutoPad::SameUpper, ..window(usize::MAX, 1, 1, [0, 0]) },
        ];
        for (i, w) in cases.iter().enumerate() {
            if let Ok(axes) = w.resolve(&[2], None) {
                assert_eq!((i, axes[0].output), (8, 2), "{w:?}");
            }
        }
        assert!(window(1, 1, 1, [0, 0]).resolve(&[4], Some(&[2])).is_err());
        assert!(window(1, 1, 1, [0, 0]).resolve3(&[], None).is_err());
        assert!(window(1, 1, 1, [0, 0]).resolve3(&[1; 4], None).is_err());
        for (name, value) in [("strides", 0), ("kernel_shape", 0), ("pads", -1), ("dilations", i64::MAX)] {
            let mut attrs = Attrs::new().with(name, Attr::Ints(vec![value]));
            assert!(Window::read(&mut attrs, true).is_err(), "{name}");
        }
    }
}
