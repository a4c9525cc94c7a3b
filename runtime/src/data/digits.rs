//! The embedded digits: 1,797 images of 8x8, values 0 to 16, ten classes (`runtime/data/digits/README.md`).
//!
//! The split is fixed: within each class, in file order, the third of every five samples is test (1,438 and 359).

use std::path::Path;

use super::stream::{Lines, Stream, quoted};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::files;

const BYTES: &[u8] = include_bytes!("../../data/digits/digits.csv.gz");
const CLASSES: usize = 10;
const PIXELS: usize = 64;
const RAW_MAX: f32 = 16.0;

/// Every `FOLD`-th sample of a class, beginning with the one at `TEST_AT`, is test.
const FOLD: usize = 5;
const TEST_AT: usize = 2;

struct Digits(Description);

/// Opens the digits; the path is not used.
pub(super) fn open(_path: &Path, _: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let mut description = Description {
        shape: vec![1, 8, 8],
        layout: "CHW".into(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        raw_max: Some(RAW_MAX),
        n_train: 0,
        n_test: 0,
        sha256: files::sha256(BYTES),
        reading: None,
    };
    let mut sample = Sample::default();
    for (split, n) in [(Split::Train, &mut description.n_train), (Split::Test, &mut description.n_test)] {
        let mut rows = Rows::new(split);
        while rows.next(&mut sample)? {
            *n += 1;
        }
    }
    Ok(Box::new(Digits(description)))
}

impl Dataset for Digits {
    fn description(&self) -> &Description {
        &self.0
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        Ok(Box::new(Rows::new(split)))
    }
}

struct Rows {
    lines: Lines,
    split: Split,
    seen: [usize; CLASSES],
}

impl Rows {
    fn new(split: Split) -> Self {
        Self { lines: Lines::new(Stream::embedded("digits", BYTES)), split, seen: [0; CLASSES] }
    }
}

impl Samples for Rows {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        while let Some((number, line)) = self.lines.next()? {
            let refuse = |expected: &str, found: &str| {
                Refusal::new(format!("digits:{number}"), expected, quoted(found), "build the program again")
            };
            let (values, label) = line.rsplit_once(',').ok_or_else(|| refuse("64 values and a class", line))?;
            let class = label.parse::<usize>().ok().and_then(|label| self.seen.get_mut(label).map(|n| (label, n)));
            let (label, seen) = class.ok_or_else(|| refuse("a class of 0 to 9", label))?;
            let split = if *seen % FOLD == TEST_AT { Split::Test } else { Split::Train };
            *seen += 1;
            if split != self.split {
                continue;
            }
            sample.label = label;
            sample.values.clear();
            for field in values.split(',') {
                let value = field.parse::<f32>().ok().filter(|value| (0.0..=RAW_MAX).contains(value));
                sample.values.push(value.ok_or_else(|| refuse("a value of 0 to 16", field))?);
            }
            if sample.values.len() != PIXELS {
                return Err(refuse("64 values", &sample.values.len().to_string()));
            }
            return Ok(true);
        }
        Ok(false)
    }
}
