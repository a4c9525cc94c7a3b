//! The sliding window that convolutions and pools share: kernel, strides, pads, dilations over any number of axes.

use alloc::vec::Vec;

use super::{Attr, Attrs, OpError};

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
        (0..rank).map(|i| self.resolve_axis(i, rank, spatial[i], kernel_sizes[i])).collect()
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
            if (output - 1) * stride >= input + pad_begin {
                output -= 1;
            }
        }
        Ok(Axis { input, output, kernel, stride, dilation, pad_begin, pad_end })
    }
}
