//! `FORMAT:PATH`, as the command lines and recipes name a data set.

use std::fmt;
use std::path::PathBuf;

use super::{Dataset, FORMATS, Format, Reading};
use crate::contract::Contract;
use crate::error::{Refusal, Result};
use crate::nearest::nearest;

/// A data set's format and place.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// A name of [`FORMATS`].
    pub format: String,
    /// A file or folder; empty for embedded data.
    pub path: PathBuf,
    /// How its files become samples, where the format leaves it open and this is not what it does by itself.
    pub reading: Option<Reading>,
}

impl Source {
    /// Parses `FORMAT:PATH` (`digits` alone for the embedded digits); an unknown format names the nearest known one.
    pub fn parse(text: &str) -> Result<Self> {
        let (format, path) = text.split_once(':').unwrap_or((text, ""));
        let source = Self { format: format.into(), path: path.into(), reading: None };
        source.row()?;
        Ok(source)
    }

    /// Opens the data set: reads and checks both parts once.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        let row = self.row()?;
        if let Some(reading) = &self.reading {
            reading.check()?;
            if row.reading != Some(reading.kind()) {
                let expected = row.reading.map_or("none".into(), |kind| format!("`{kind}`"));
                let at = format!("input.reading for `{}`", row.name);
                let action = "choose the data that the model was made for";
                return Err(Refusal::new(at, expected, format!("`{}`", reading.kind()), action));
            }
        }
        (row.open)(&self.path, self.reading.as_ref())
    }

    /// The same data, its files read as a model's contract says.
    #[must_use]
    pub fn read_as(self, contract: Option<&Contract>) -> Self {
        Self { reading: contract.and_then(|contract| contract.input.reading.clone()), ..self }
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
