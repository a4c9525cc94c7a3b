//! `FORMAT:PATH`, as the command lines and recipes name a data set.

use std::fmt;
use std::path::PathBuf;

use super::{Dataset, FORMATS, Format};
use crate::error::{Refusal, Result};
use crate::nearest::nearest;

/// A data set's format and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A name of [`FORMATS`].
    pub format: String,
    /// A file or folder; empty for embedded data.
    pub path: PathBuf,
}

impl Source {
    /// Parses `FORMAT:PATH` (`digits` alone for the embedded digits); an unknown format names the nearest known one.
    pub fn parse(text: &str) -> Result<Self> {
        let (format, path) = text.split_once(':').unwrap_or((text, ""));
        let source = Self { format: format.into(), path: path.into() };
        source.row()?;
        Ok(source)
    }

    /// Opens the data set: reads and checks both parts once.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        (self.row()?.open)(&self.path)
    }

    /// The format's row, if the path is as it needs it.
    fn row(&self) -> Result<&'static Format> {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        let Some(row) = FORMATS.iter().find(|row| row.name == self.format) else {
            let action = match nearest(&self.format, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write it as FORMAT:PATH".into(),
            };
            let expected = format!("a format ({})", names.join(", "));
            return Err(Refusal::new("data", expected, format!("`{}`", self.format), action));
        };
        if row.has_path == self.path.as_os_str().is_empty() {
            let (expected, action) = match row.has_path {
                true => (format!("`{}:PATH`", row.name), format!("PATH: {}", row.about)),
                false => (format!("`{}` alone", row.name), "leave the path out".into()),
            };
            return Err(Refusal::new("data", expected, format!("`{self}`"), action));
        }
        Ok(row)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format)?;
        if !self.path.as_os_str().is_empty() {
            write!(f, ":{}", self.path.display())?;
        }
        Ok(())
    }
}
