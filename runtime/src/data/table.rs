//! The formats: one line each.

use std::path::Path;

use super::{Dataset, digits, idx, ucr};
use crate::error::Result;

/// A format of data sets.
pub struct Format {
    /// Its name in `FORMAT:PATH` and in recipes.
    pub name: &'static str,
    /// What it is, and what PATH names.
    pub about: &'static str,
    /// Whether it reads files; without, PATH must be empty.
    pub has_path: bool,
    /// Opens a data set.
    pub open: fn(&Path) -> Result<Box<dyn Dataset>>,
}

/// All formats.
pub static FORMATS: &[Format] = &[
    Format { name: "digits", about: "1,797 digits of 8x8, built in; no PATH", has_path: false, open: digits::open },
    Format {
        name: "idx",
        about: "MNIST's idx(.gz); PATH is a folder with train-images-idx3-ubyte and its three companions",
        has_path: true,
        open: idx::open,
    },
    Format {
        name: "ucr",
        about: "UCR and UEA series, tab, comma or .ts (.gz); PATH is DIR/NAME of NAME_TRAIN and NAME_TEST, or their folder",
        has_path: true,
        open: ucr::open,
    },
];
