//! numpy's `.npz`: one zip archive with the arrays `x_train`, `y_train`, `x_test` and `y_test` (`np.savez` and
//! `np.savez_compressed`), samples along the first dimension, labels whole numbers. [`ArrayReading`] says what the other
//! dimensions mean; without, they are `F`, `CT` or `CHW`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::npy::{Array, Element};
use super::reading::{ArrayReading, ToChannelsFirst};
use super::stream::sha256;
use super::zip::{self, Entry};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};

/// More classes than any classification data set has.
const CLASSES: usize = 100_000;

struct Npz {
    description: Description,
    path: PathBuf,
    /// x and y of the training part, x and y of the test part.
    entries: [Entry; 4],
    layout: Option<String>,
    classes: Arc<Vec<i64>>,
}

/// Opens a file and reads all four arrays once.
pub(super) fn open(path: &Path, reading: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let found = zip::entries(path)?;
    let entry = |name: &str| {
        let same = |entry: &&Entry| entry.name.strip_suffix(".npy").unwrap_or(&entry.name) == name;
        found.iter().find(same).cloned().ok_or_else(|| {
            let names: Vec<&str> = found.iter().take(20).map(|entry| entry.name.as_str()).collect();
            let action = "save it as np.savez(FILE, x_train=…, y_train=…, x_test=…, y_test=…)";
            Refusal::new(path.display(), format!("an array {name}"), names.join(", "), action)
        })
    };
    let entries = [entry("x_train")?, entry("y_train")?, entry("x_test")?, entry("y_test")?];
    let layout = match reading {
        Some(Reading::Array(ArrayReading { layout })) => Some(layout.clone()),
        _ => None,
    };
    let mut labels = Array::open(path, &entries[1])?;
    let mut seen = BTreeSet::new();
    while let Some(label) = labels.next_label()? {
        seen.insert(label);
        if seen.len() > CLASSES {
            let expected = format!("at most {CLASSES} classes");
            return Err(Refusal::new(labels.at(), expected, "more", "choose a classification data set"));
        }
    }
    if seen.len() < 2 {
        return Err(Refusal::new(labels.at(), "at least 2 classes", seen.len(), "check the labels"));
    }
    let classes = Arc::new(seen.into_iter().collect::<Vec<i64>>());
    let (mut shapes, mut n, mut bytes) = (Vec::new(), [0; 2], true);
    for (part, n) in n.iter_mut().enumerate() {
        let mut rows = Rows::open(path, &entries[2 * part..2 * part + 2], layout.as_deref(), &classes)?;
        let mut sample = Sample::default();
        while rows.next(&mut sample)? {
            *n += 1;
        }
        if *n == 0 {
            return Err(Refusal::new(rows.x.at(), "at least one sample", "none", "check the file"));
        }
        bytes &= rows.x.element() == Element::U8;
        shapes.push((rows.to.shape.clone(), rows.to.layout, rows.x.at().to_string()));
    }
    let [(shape, letters, _), (test_shape, _, at)] = &shapes[..] else {
        return Err(Refusal::new(path.display(), "two parts", shapes.len(), "check the file"));
    };
    if shape != test_shape {
        let expected = format!("samples of {shape:?} as in the training part");
        return Err(Refusal::new(at, expected, format!("{test_shape:?}"), "bring both parts to one shape"));
    }
    let description = Description {
        shape: shape.clone(),
        layout: (*letters).into(),
        classes: classes.iter().map(i64::to_string).collect(),
        raw_max: bytes.then_some(255.0),
        n_train: n[0],
        n_test: n[1],
        sha256: sha256(&[path])?,
        reading: layout.clone().map(|layout| Reading::Array(ArrayReading { layout })),
    };
    Ok(Box::new(Npz { description, path: path.into(), entries, layout, classes }))
}

impl Dataset for Npz {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        let entries = if split == Split::Train { &self.entries[..2] } else { &self.entries[2..] };
        Ok(Box::new(Rows::open(&self.path, entries, self.layout.as_deref(), &self.classes)?))
    }
}

struct Rows {
    x: Array,
    y: Array,
    to: ToChannelsFirst,
    scratch: Vec<f32>,
    classes: Arc<Vec<i64>>,
}

impl Rows {
    fn open(path: &Path, entries: &[Entry], layout: Option<&str>, classes: &Arc<Vec<i64>>) -> Result<Self> {
        let [x, y] = entries else {
            return Err(Refusal::new(path.display(), "samples and labels", entries.len(), "check the file"));
        };
        let (x, y) = (Array::open(path, x)?, Array::open(path, y)?);
        let [n, dims @ ..] = x.shape() else {
            return Err(Refusal::new(x.at(), "samples along the first dimension", "one number", "save it again"));
        };
        let to = ToChannelsFirst::new(layout, dims).map_err(|e| e.within(x.at()))?;
        // Labels may lie in a column of their own.
        let one_each = y.shape().first() == Some(n) && y.shape().iter().product::<usize>() == *n;
        if !one_each {
            let (expected, found) = (format!("{n} labels, as many as samples in x"), y.shape().iter());
            let found = found.map(usize::to_string).collect::<Vec<_>>().join(" x ");
            return Err(Refusal::new(y.at(), expected, found, "save both arrays again"));
        }
        Ok(Self { x, y, to, scratch: Vec::new(), classes: classes.clone() })
    }
}

impl Samples for Rows {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        let elements = self.to.shape.iter().product();
        let Some(label) = self.y.next_label()? else {
            self.x.finish()?;
            return Ok(false);
        };
        self.x.next_values(elements, &mut sample.values)?;
        self.to.apply(&mut sample.values, &mut self.scratch);
        sample.label = self.classes.binary_search(&label).map_err(|_| {
            let expected = format!("one of the {} labels of the training part", self.classes.len());
            Refusal::new(self.y.at(), expected, label, "check that both parts are of one data set")
        })?;
        Ok(true)
    }
}
