//! Readers of data sets, one file a format, all streaming; [`table`](FORMATS) lists them.

use std::path::PathBuf;

use crate::error::Result;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn and calibrate from.
    Train,
    /// To measure with, never to choose with.
    Test,
}

/// `FORMAT:PATH`, as the command lines and recipes say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A name of [`FORMATS`].
    pub format: String,
    /// A file or folder; empty for embedded data.
    pub path: PathBuf,
}

/// One sample as it is stored, before the contract's scaling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Raw values in the order of [`Description::shape`].
    pub values: Vec<f32>,
    /// Class, an index into [`Description::classes`].
    pub label: usize,
}

/// What a data set is.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Shape of a sample: `[C, H, W]`, `[C, T]` or `[F]`.
    pub shape: Vec<usize>,
    /// Letters for the shape: `CHW`, `CT` or `F`.
    pub layout: String,
    /// Names of the classes in order: those of the training part (and of the test part).
    pub classes: Vec<String>,
    /// Largest raw value that the format can hold (255 for images), where it says.
    pub raw_max: Option<f32>,
    /// SHA-256 over the files of both parts, so that evidence can name the data.
    pub sha256: String,
}

/// A data set: its description, and each part as a stream that can be read again and again.
pub trait Dataset {
    /// What it is.
    fn description(&self) -> &Description;
    /// Opens one part from its start.
    fn read(&self, split: Split) -> Result<Box<dyn Samples>>;
}

/// A stream of samples.
pub trait Samples {
    /// The next sample into `sample` (whose buffers are reused); false at the end.
    fn next(&mut self, sample: &mut Sample) -> Result<bool>;
}

impl Source {
    /// Parses `FORMAT:PATH` (`digits` alone for the embedded digits); an unknown format names the nearest known one.
    pub fn parse(_text: &str) -> Result<Self> {
        todo!()
    }

    /// Opens the data set: reads what its description needs, no more.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        todo!()
    }
}

/// The formats: name, what it is, where it is explained.
pub const FORMATS: &[&str] = &["digits", "idx", "ucr"];
