//! What a reader has to be told where files do not say it: part of a contract, so that every program reads alike.

use serde::{Deserialize, Serialize};

use super::audio::AudioReading;
use crate::error::{Refusal, Result};
use crate::graph::tensor::count;

/// How samples are made of files. The kinds are those of [`super::Format::reading`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reading {
    /// Arrays of any number of dimensions.
    Array(ArrayReading),
    /// Tables with named columns.
    Columns(ColumnsReading),
    /// Pictures of any size.
    Image(ImageReading),
    /// Recordings of any length.
    Audio(AudioReading),
}

/// What the dimensions of an array mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayReading {
    /// Letters for the dimensions of a sample: one of [`LAYOUTS`].
    pub layout: String,
}

/// Layouts of a sample as it is stored; all are brought to channels first.
pub const LAYOUTS: [&str; 7] = ["F", "T", "CT", "TC", "HW", "CHW", "HWC"];

/// Which columns of a table are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnsReading {
    /// Name of the column with the class.
    pub label: String,
    /// Names of the columns that make a sample, in order; when a data set is opened, none stand for all but the label.
    pub features: Vec<String>,
}

/// What is made of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReading {
    /// Of a sample, in pixels.
    pub height: usize,
    /// Of a sample, in pixels.
    pub width: usize,
    /// 1: gray; 3: red, green, blue.
    pub channels: usize,
    /// The shorter side is brought to so many pixels (linear interpolation over all pixels that a new one covers), then
    /// height and width are cut from the middle. `null`: nothing is resized, and every picture has that size.
    pub shorter_side: Option<usize>,
}

impl Reading {
    /// The kind, as a contract names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "array",
            Self::Columns(_) => "columns",
            Self::Image(_) => "image",
            Self::Audio(_) => "audio",
        }
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Array(array) => array.check(),
            Self::Columns(columns) => columns.check(),
            Self::Image(image) => image.check(),
            Self::Audio(audio) => audio.check(),
        }
    }
}

impl Reading {
    /// Values of a sample, where the reading alone decides it; none within if they cannot be counted.
    pub fn elements(&self) -> Option<Option<usize>> {
        let product = |sizes: [usize; 3]| sizes.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        match self {
            Self::Image(image) => Some(product([image.channels, image.height, image.width])),
            Self::Audio(audio) => Some(product([1, audio.frame_count(), audio.feature_count()])),
            Self::Array(_) | Self::Columns(_) => None,
        }
    }
}

/// The refusal of one value of a reading.
pub(super) fn refuse<T>(key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Result<T> {
    Err(Refusal::new(format!("input.reading.{key}"), expected, found, "correct the contract or the recipe"))
}

impl ArrayReading {
    fn check(&self) -> Result<()> {
        if LAYOUTS.contains(&&*self.layout) {
            return Ok(());
        }
        refuse("layout", format_args!("one of {}", LAYOUTS.join(", ")), format_args!("`{}`", self.layout))
    }
}

impl ColumnsReading {
    fn check(&self) -> Result<()> {
        let twice = self.features.iter().enumerate().find(|(i, name)| self.features[..*i].contains(name));
        if let Some((_, name)) = twice {
            return refuse("features", "names that differ", format_args!("`{name}` twice"));
        }
        if self.features.contains(&self.label) {
            return refuse("features", "columns without the label", format_args!("`{}`", self.label));
        }
        Ok(())
    }
}

impl ImageReading {
    /// Most pixels of a side, of samples and of pictures.
    pub(super) const MOST_SIDE: usize = 1 << 14;

    fn check(&self) -> Result<()> {
        if self.channels != 1 && self.channels != 3 {
            return refuse("channels", "1 or 3", self.channels);
        }
        let sides = [Some(self.height), Some(self.width), self.shorter_side];
        if let Some(side) = sides.into_iter().flatten().find(|side| !(1..=Self::MOST_SIDE).contains(side)) {
            return refuse("height, width, shorter_side", format_args!("1 to {} pixels", Self::MOST_SIDE), side);
        }
        match self.shorter_side {
            Some(side) if side < self.height.max(self.width) => {
                let expected = format!("at least {}, the longer side that is cut out", self.height.max(self.width));
                refuse("shorter_side", expected, side)
            }
            _ => Ok(()),
        }
    }
}

/// Brings the values of one stored sample to channels first.
pub(super) struct ToChannelsFirst {
    /// Shape and layout of the sample that comes out.
    pub shape: Vec<usize>,
    pub layout: &'static str,
    channels_last: bool,
}

impl ToChannelsFirst {
    /// Of samples that are stored with these dimensions; refuses another number of them than the layout has.
    pub(super) fn new(layout: Option<&str>, dims: &[usize]) -> Result<Self> {
        let usual = match dims.len() {
            1 => "F",
            2 => "CT",
            3 => "CHW",
            n => return refuse("layout", "samples of 1 to 3 dimensions", n),
        };
        let stored = layout.unwrap_or(usual);
        if stored.len() != dims.len() {
            let expected = format!("a layout of {} letters, as the samples are {dims:?}", dims.len());
            return refuse("layout", expected, format_args!("`{stored}`"));
        }
        if !count(dims).is_some_and(|n| (1..=MOST_VALUES).contains(&n)) {
            return refuse("layout", format_args!("samples of 1 to {MOST_VALUES} values"), format_args!("{dims:?}"));
        }
        let channels_last = stored.len() > 1 && stored.ends_with('C');
        let mut shape = dims.to_vec();
        if channels_last {
            shape.rotate_right(1);
        }
        if stored == "T" || stored == "HW" {
            shape.insert(0, 1);
        }
        let layout = match stored {
            "F" => "F",
            "T" | "CT" | "TC" => "CT",
            _ => "CHW",
        };
        Ok(Self { shape, layout, channels_last })
    }

    /// `values` in the stored order; they come out in that of [`Self::shape`].
    pub(super) fn apply(&self, values: &mut Vec<f32>, scratch: &mut Vec<f32>) {
        if !self.channels_last {
            return;
        }
        let channels = self.shape.first().copied().unwrap_or(1).max(1);
        scratch.clear();
        scratch.extend((0..channels).flat_map(|c| values.iter().skip(c).step_by(channels)));
        std::mem::swap(values, scratch);
    }
}

/// Most values of one sample: 4,096 x 4,096.
const MOST_VALUES: usize = 1 << 24;
