//! Readers of data sets, one file a format, all streaming; [`table`] lists them.
//!
//! Opening a data set reads both parts once, so that what is wrong with a file is said before any work starts. Nothing
//! is allocated on a file's word, and samples are never held together: a part is a stream that can be opened again.

mod audio;
mod cifar;
mod csv;
mod digits;
mod idx;
#[cfg(feature = "images")]
mod images;
mod labelled;
mod npy;
mod npz;
mod reading;
mod series;
mod source;
mod stream;
pub mod table;
mod tar;
mod ucr;
mod wav;
mod zip;

pub use audio::{AudioReading, Dct, Frames, Slope, Spectrum};
pub use reading::{ArrayReading, ColumnsReading, ImageReading, LAYOUTS, Reading};
pub use source::Source;
pub use table::{FORMATS, Format, sources};

use crate::error::Result;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn and calibrate from.
    Train,
    /// To measure with, never to choose with.
    Test,
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
    /// Names of the classes in order: those of the training part (the test part has no other).
    pub classes: Vec<String>,
    /// Largest raw value that the format can hold (255 for images), where it says.
    pub raw_max: Option<f32>,
    /// Number of samples of the training part.
    pub n_train: usize,
    /// Number of samples of the test part.
    pub n_test: usize,
    /// SHA-256 over the bytes of the files as they are stored, training part first, so that evidence can name the data.
    pub sha256: String,
    /// How its samples were made of files, where the format leaves it open: it becomes part of a contract.
    pub reading: Option<Reading>,
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
