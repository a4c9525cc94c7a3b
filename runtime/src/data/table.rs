//! The formats: one line each.

use std::path::Path;

#[cfg(feature = "images")]
use super::images;
use super::{Dataset, Reading, cifar, csv, digits, idx, npz, ucr, wav};
use crate::error::Result;

/// A format of data sets.
pub struct Format {
    /// Its name in `FORMAT:PATH` and in recipes.
    pub name: &'static str,
    /// What it is, and what PATH names.
    pub about: &'static str,
    /// Whether it reads files; without, PATH must be empty.
    pub has_path: bool,
    /// The kind of [`Reading`] that it can be told.
    pub reading: Option<&'static str>,
    /// Opens a data set; it is given no other kind of reading, and one that was checked.
    pub open: Open,
}

/// What a command line's `FORMAT:PATH` may be, for its help.
pub fn sources() -> String {
    let names = FORMATS.iter().map(|row| if row.has_path { format!("{}:PATH", row.name) } else { row.name.into() });
    names.collect::<Vec<String>>().join(", ")
}

/// Opens a data set.
pub type Open = fn(&Path, Option<&Reading>) -> Result<Box<dyn Dataset>>;

#[cfg(not(feature = "images"))]
mod images {
    use super::*;

    pub(super) fn open(path: &Path, _: Option<&Reading>) -> Result<Box<dyn Dataset>> {
        let action = "run `cargo install --locked --path runtime --features images`";
        let refusal =
            crate::Refusal::new(path.display(), "a kd-bench that reads pictures", "one built without", action);
        Err(refusal.with_exit(crate::error::Exit::Lacking))
    }
}

/// All formats.
pub static FORMATS: &[Format] = &[
    Format {
        name: "cifar",
        about: "CIFAR-10 or CIFAR-100 in binary; PATH is a folder with data_batch_1.bin … and test_batch.bin, or train.bin and test.bin",
        has_path: true,
        reading: None,
        open: cifar::open,
    },
    Format {
        name: "csv",
        about: "tables with named columns (.gz); PATH is a folder with train.csv and test.csv",
        has_path: true,
        reading: Some("columns"),
        open: csv::open,
    },
    Format {
        name: "digits",
        about: "1,797 digits of 8x8, built in; no PATH",
        has_path: false,
        reading: None,
        open: digits::open,
    },
    Format {
        name: "idx",
        about: "MNIST's idx(.gz); PATH is a folder with train-images-idx3-ubyte and its three companions",
        has_path: true,
        reading: None,
        open: idx::open,
    },
    Format {
        name: "images",
        about: "PNG and JPEG; PATH is a folder or tar with train/CLASS/*.png and test/CLASS/*.png",
        has_path: true,
        reading: Some("image"),
        open: images::open,
    },
    Format {
        name: "npz",
        about: "numpy arrays; PATH is a file with x_train, y_train, x_test and y_test",
        has_path: true,
        reading: Some("array"),
        open: npz::open,
    },
    Format {
        name: "ucr",
        about: "UCR and UEA series, tab, comma or .ts (.gz); PATH is DIR/NAME of NAME_TRAIN and NAME_TEST, or their folder",
        has_path: true,
        reading: None,
        open: ucr::open,
    },
    Format {
        name: "wav",
        about: "recordings; PATH is a folder or tar with train/CLASS/*.wav and test/CLASS/*.wav, or train/CLASS_*.wav",
        has_path: true,
        reading: Some("audio"),
        open: wav::open,
    },
];
