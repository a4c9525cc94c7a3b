//! Data sets of the UCR and UEA archives: a file `NAME_TRAIN` and a file `NAME_TEST`, with the endings `.ts`, `.tsv`,
//! `.txt`, `.csv` or none, each perhaps with `.gz`; [`super::series`] reads them. Where several endings are there, the
//! first of that order is taken. Classes are those of the training part: numbers in their order, then names in theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::series::{Label, SeriesFile};
use super::stream::{Stream, find, sha256};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};

const ENDINGS: [&str; 5] = [".ts", ".tsv", ".txt", ".csv", ""];

/// More classes than any archive has: a file of numbers to be predicted has one a series.
const CLASSES: usize = 100_000;

struct Ucr {
    description: Description,
    train: PathBuf,
    test: PathBuf,
    shape: (usize, usize),
    classes: Arc<BTreeMap<Label, usize>>,
}

/// Opens `DIR/NAME`, or the folder that holds one such pair, and reads both files once.
pub(super) fn open(path: &Path, _: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let (train, test) = locate(path)?;
    let (classes, shape, n_train) = read_training(&train)?;
    let classes: BTreeMap<Label, usize> = classes.into_iter().enumerate().map(|(i, label)| (label, i)).collect();
    let classes = Arc::new(classes);
    let mut part = Part::open(&test, shape, classes.clone())?;
    let mut sample = Sample::default();
    let mut n_test = 0;
    while part.next(&mut sample)? {
        n_test += 1;
    }
    if n_test == 0 {
        return Err(Refusal::new(test.display(), "at least one series", "none", "check the file"));
    }
    let description = Description {
        shape: vec![shape.0, shape.1],
        layout: "CT".into(),
        classes: classes.keys().map(Label::name).collect(),
        raw_max: None,
        n_train,
        n_test,
        sha256: sha256(&[&train, &test])?,
        reading: None,
    };
    Ok(Box::new(Ucr { description, train, test, shape, classes }))
}

impl Dataset for Ucr {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        let path = if split == Split::Train { &self.train } else { &self.test };
        Ok(Box::new(Part::open(path, self.shape, self.classes.clone())?))
    }
}

struct Part {
    series: SeriesFile,
    classes: Arc<BTreeMap<Label, usize>>,
}

impl Part {
    fn open(path: &Path, shape: (usize, usize), classes: Arc<BTreeMap<Label, usize>>) -> Result<Self> {
        Ok(Self { series: SeriesFile::new(Stream::open(path)?, Some(shape)), classes })
    }
}

impl Samples for Part {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        let Some(label) = self.series.next(&mut sample.values)? else { return Ok(false) };
        sample.label = self.classes.get(&label).copied().ok_or_else(|| {
            let expected = format!("one of the {} labels of the training part", self.classes.len());
            let found = super::stream::quoted(&label.name());
            Refusal::new(self.series.place(), expected, found, "check that both files are of one data set")
        })?;
        Ok(true)
    }
}

/// Classes, shape and number of series of the training part.
fn read_training(path: &Path) -> Result<(BTreeSet<Label>, (usize, usize), usize)> {
    let mut series = SeriesFile::new(Stream::open(path)?, None);
    let mut classes = BTreeSet::new();
    let mut values = Vec::new();
    let mut n = 0;
    while let Some(label) = series.next(&mut values)? {
        classes.insert(label);
        n += 1;
        if classes.len() > CLASSES {
            let expected = format!("at most {CLASSES} classes");
            return Err(Refusal::new(series.place(), expected, "more", "choose a classification data set"));
        }
    }
    match series.shape() {
        Some(shape) if classes.len() >= 2 => Ok((classes, shape, n)),
        Some(_) => Err(Refusal::new(path.display(), "at least 2 classes", classes.len(), "check the labels")),
        None => Err(Refusal::new(path.display(), "at least one series", "none", "check the file")),
    }
}

/// The two files that `path` names.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let (folder, name) = if path.is_dir() {
        (path.to_path_buf(), only_name(path)?)
    } else {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = stem(&name, "_TRAIN").or(stem(&name, "_TEST")).map(str::to_string).unwrap_or(name);
        (folder.to_path_buf(), name)
    };
    let file = |part: &str| {
        let names = ENDINGS.map(|ending| format!("{name}_{part}{ending}"));
        find(&folder, &names).ok_or_else(|| {
            let expected = format!("{name}_{part} with the ending .ts, .tsv, .txt, .csv or none, perhaps .gz");
            Refusal::new(folder.display(), expected, "no such file", "check the path: ucr:DIR/NAME")
        })
    };
    Ok((file("TRAIN")?, file("TEST")?))
}

/// `NAME` of `NAME_TRAIN.tsv.gz`; `None` for another file.
fn stem<'a>(file: &'a str, part: &str) -> Option<&'a str> {
    let bare = file.strip_suffix(".gz").unwrap_or(file);
    ENDINGS.iter().filter_map(|ending| bare.strip_suffix(ending)).find_map(|bare| bare.strip_suffix(part))
}

/// The one NAME in a folder.
fn only_name(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).map_err(|e| crate::files::refuse_read(folder, &e))?;
    let files: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let names: BTreeSet<&str> = files.iter().filter_map(|file| stem(file, "_TRAIN")).collect();
    let mut few = names.iter().copied();
    match (few.next(), few.next()) {
        (Some(name), None) => Ok(name.to_string()),
        (None, _) => Err(Refusal::new(folder.display(), "a file NAME_TRAIN", "none", "check the path: ucr:DIR/NAME")),
        (Some(a), Some(b)) => {
            let found = format!("{} ({a}, {b}{})", names.len(), if names.len() > 2 { ", …" } else { "" });
            let action = format!("name one: ucr:{}", folder.join(a).display());
            Err(Refusal::new(folder.display(), "one data set", found, action))
        }
    }
}
