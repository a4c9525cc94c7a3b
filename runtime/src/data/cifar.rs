//! The binary version of CIFAR-10 and CIFAR-100 (A. Krizhevsky, <https://www.cs.toronto.edu/~kriz/cifar.html>): records
//! of label bytes and 3,072 pixels (red, green, blue plane of 32x32). CIFAR-10 has one label byte and the files
//! `data_batch_1.bin`, `data_batch_2.bin`, … and `test_batch.bin`; CIFAR-100 has a coarse and a fine one (the fine one
//! is the class) and the files `train.bin` and `test.bin`. Each bare or with `.gz`. Classes are named by
//! `batches.meta.txt` or `fine_label_names.txt` beside them, by their numbers without it.

use std::path::{Path, PathBuf};

use super::stream::{Lines, Stream, find, sha256};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::files;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// More batches than any such data set has.
const BATCHES: usize = 1000;

/// One of the two layouts.
#[derive(Clone, Copy)]
struct Layout {
    labels: usize,
    classes: usize,
    names: &'static str,
}

const CIFAR_10: Layout = Layout { labels: 1, classes: 10, names: "batches.meta.txt" };
const CIFAR_100: Layout = Layout { labels: 2, classes: 100, names: "fine_label_names.txt" };

struct Cifar {
    description: Description,
    layout: Layout,
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
}

/// Opens `folder` and reads all files to their ends.
pub(super) fn open(folder: &Path, _: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let (layout, train, test) = locate(folder)?;
    let mut n = [0; 2];
    let mut sample = Sample::default();
    for (n, paths) in n.iter_mut().zip([&train, &test]) {
        let mut records = Records::new(layout, paths);
        while records.next(&mut sample)? {
            *n += 1;
        }
        if let (0, Some(path)) = (*n, paths.first()) {
            return Err(Refusal::new(path.display(), "at least one image", "none", "copy or download it again"));
        }
    }
    let paths: Vec<&Path> = train.iter().chain(&test).map(PathBuf::as_path).collect();
    let description = Description {
        shape: vec![3, SIDE, SIDE],
        layout: "CHW".into(),
        classes: classes(folder, layout)?,
        raw_max: Some(255.0),
        n_train: n[0],
        n_test: n[1],
        sha256: sha256(&paths)?,
        reading: None,
    };
    Ok(Box::new(Cifar { description, layout, train, test }))
}

impl Dataset for Cifar {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        let paths = if split == Split::Train { &self.train } else { &self.test };
        Ok(Box::new(Records::new(self.layout, paths)))
    }
}

/// The records of several files, one file after the other.
struct Records {
    layout: Layout,
    /// Files that are left, the next one last.
    left: Vec<PathBuf>,
    stream: Option<Stream>,
    /// Number of the record in its file.
    at: usize,
    record: Vec<u8>,
}

impl Records {
    fn new(layout: Layout, paths: &[PathBuf]) -> Self {
        let left = paths.iter().rev().cloned().collect();
        Self { layout, left, stream: None, at: 0, record: vec![0; layout.labels + PIXELS] }
    }
}

impl Samples for Records {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        loop {
            let Some(stream) = &mut self.stream else {
                let Some(path) = self.left.pop() else { return Ok(false) };
                (self.stream, self.at) = (Some(Stream::open(&path)?), 0);
                continue;
            };
            let read = stream.fill(&mut self.record)?;
            if read == 0 {
                self.stream = None;
                continue;
            }
            let place = || format!("{}: record {}", stream.at(), self.at);
            if read < self.record.len() {
                let expected =
                    format!("{} bytes ({} of labels, {PIXELS} pixels)", self.record.len(), self.layout.labels);
                return Err(Refusal::new(place(), expected, read, "copy or download it again"));
            }
            let (labels, pixels) = self.record.split_at(self.layout.labels);
            let label = labels.last().map_or(0, |&label| usize::from(label));
            if label >= self.layout.classes {
                let expected = format!("a class of 0 to {}", self.layout.classes - 1);
                return Err(Refusal::new(place(), expected, label, "check that the file is of this data set"));
            }
            sample.label = label;
            sample.values.clear();
            sample.values.extend(pixels.iter().map(|&pixel| f32::from(pixel)));
            self.at += 1;
            return Ok(true);
        }
    }
}

/// The layout that a folder holds, with the files of both parts in order.
fn locate(folder: &Path) -> Result<(Layout, Vec<PathBuf>, Vec<PathBuf>)> {
    let action = "name the folder of the binary version, with test_batch.bin or test.bin";
    if !folder.is_dir() {
        let found = if folder.exists() { "a file" } else { "nothing" };
        return Err(Refusal::new(folder.display(), "a folder of CIFAR files", found, action));
    }
    let file = |name: &str| find(folder, &[name.into()]);
    let missing = |name: &str| {
        Refusal::new(folder.display(), format!("{name}, perhaps .gz"), "no such file", "put all files into one folder")
    };
    if let Some(train) = file("train.bin") {
        return Ok((CIFAR_100, vec![train], vec![file("test.bin").ok_or_else(|| missing("test.bin"))?]));
    }
    let entries = std::fs::read_dir(folder).map_err(|e| files::refuse_read(folder, &e))?;
    let batch = |name: &str| {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        name.strip_prefix("data_batch_")?.strip_suffix(".bin")?.parse().ok().filter(|n| (1..=BATCHES).contains(n))
    };
    let last = entries.flatten().filter_map(|entry| batch(&entry.file_name().to_string_lossy())).max();
    let Some(last) = last else {
        let expected = "data_batch_1.bin and test_batch.bin, or train.bin and test.bin";
        return Err(Refusal::new(folder.display(), expected, "no such file", action));
    };
    let named = |n: usize| format!("data_batch_{n}.bin");
    let train = (1..=last).map(|n| file(&named(n)).ok_or_else(|| missing(&named(n)))).collect::<Result<_>>()?;
    Ok((CIFAR_10, train, vec![file("test_batch.bin").ok_or_else(|| missing("test_batch.bin"))?]))
}

/// Names of the classes, one a line of the file beside the data.
fn classes(folder: &Path, layout: Layout) -> Result<Vec<String>> {
    let path = folder.join(layout.names);
    if !path.exists() {
        return Ok((0..layout.classes).map(|class| class.to_string()).collect());
    }
    let mut lines = Lines::new(Stream::open(&path)?);
    let mut names: Vec<String> = Vec::new();
    while let Some((number, line)) = lines.next()? {
        let name = line.trim();
        if name.is_empty() {
            continue;
        }
        if names.len() == layout.classes || names.iter().any(|known| known == name) {
            let expected = format!("{} names that differ, one a line", layout.classes);
            let found = super::stream::quoted(name);
            return Err(Refusal::new(format!("{}:{number}", path.display()), expected, found, "correct the file"));
        }
        names.push(name.to_string());
    }
    if names.len() < layout.classes {
        let expected = format!("{} names, one a line", layout.classes);
        return Err(Refusal::new(path.display(), expected, names.len(), "correct the file, or take it away"));
    }
    Ok(names)
}
