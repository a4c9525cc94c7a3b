//! MNIST's idx files (Y. LeCun, C. Cortes, <http://yann.lecun.com/exdb/mnist/>): big-endian magic `00 00 08 RANK`, one
//! u32 a dimension, then bytes. A data set is a folder with the four standard names, each bare or with `.gz`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stream::{Stream, find, sha256};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::graph::tensor::count;

/// Most pixels of one image: 4,096 x 4,096.
const PIXELS: usize = 1 << 24;

struct Idx {
    description: Description,
    train: Part,
    test: Part,
}

/// One part: its files, what their headers say, and the classes.
#[derive(Clone)]
struct Part {
    images: PathBuf,
    labels: PathBuf,
    n: usize,
    height: usize,
    width: usize,
    classes: Arc<Vec<u8>>,
}

/// Opens `folder` and checks all four files to their ends.
pub(super) fn open(folder: &Path, _: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    if !folder.is_dir() {
        let found = if folder.exists() { "a file" } else { "nothing" };
        let action = "name the folder that holds train-images-idx3-ubyte and its companions";
        return Err(Refusal::new(folder.display(), "a folder of idx files", found, action));
    }
    let mut classes = BTreeSet::new();
    let mut train = Part::open(folder, "train", &mut classes)?;
    train.classes = Arc::new(classes.iter().copied().collect());
    if train.classes.len() < 2 {
        let found = train.classes.len();
        return Err(Refusal::new(train.labels.display(), "at least 2 classes", found, "check the labels"));
    }
    let mut test = Part::open(folder, "t10k", &mut BTreeSet::new())?;
    test.classes = train.classes.clone();
    if (test.height, test.width) != (train.height, train.width) {
        let expected = format!("images of {}x{} as in the training part", train.height, train.width);
        let found = format!("{}x{}", test.height, test.width);
        return Err(Refusal::new(test.images.display(), expected, found, "bring both parts to one size"));
    }
    test.check_labels()?;
    let description = Description {
        shape: vec![1, train.height, train.width],
        layout: "CHW".into(),
        classes: train.classes.iter().map(u8::to_string).collect(),
        raw_max: Some(255.0),
        n_train: train.n,
        n_test: test.n,
        sha256: sha256(&[&train.images, &train.labels, &test.images, &test.labels])?,
        reading: None,
    };
    Ok(Box::new(Idx { description, train, test }))
}

impl Dataset for Idx {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        let part = if split == Split::Train { &self.train } else { &self.test };
        Ok(Box::new(part.read()?))
    }
}

impl Part {
    /// Finds and checks the two files of a part; adds the labels to `classes`.
    fn open(folder: &Path, part: &str, classes: &mut BTreeSet<u8>) -> Result<Self> {
        let images = locate(folder, part, "images", 3)?;
        let labels = locate(folder, part, "labels", 1)?;
        let (mut stream, dims) = header(&images, 3)?;
        let (n, height, width) = (dims[0], dims[1], dims[2]);
        let pixels = count(&[height, width]).filter(|&n| (1..=PIXELS).contains(&n)).ok_or_else(|| {
            let expected = format!("images of 1 to {PIXELS} pixels");
            Refusal::new(images.display(), expected, format!("{height}x{width}"), "check the file")
        })?;
        check_length(&mut stream, &[n, pixels], "bytes of pixels")?;
        let (mut stream, dims) = header(&labels, 1)?;
        if dims[0] != n {
            let expected = format!("{n} labels, as many as images in {}", images.display());
            return Err(Refusal::new(labels.display(), expected, dims[0], "take both files of one data set"));
        }
        let mut buffer = [0; 4096];
        let mut left = n;
        while left > 0 {
            let want = left.min(buffer.len());
            let got = stream.fill(&mut buffer[..want])?;
            classes.extend(&buffer[..got]);
            left -= got;
            if got < want {
                return Err(truncated(&stream, n, n - left, "labels"));
            }
        }
        check_length(&mut stream, &[0], "bytes after the labels")?;
        Ok(Self { images, labels, n, height, width, classes: Arc::default() })
    }

    fn read(&self) -> Result<Reader> {
        let (images, _) = header(&self.images, 3)?;
        let (labels, _) = header(&self.labels, 1)?;
        // Opening counted the bytes, so this size is not the header's word.
        Ok(Reader { part: self.clone(), images, labels, at: 0, pixels: vec![0; self.height * self.width] })
    }

    /// Refuses a label that the training part does not have.
    fn check_labels(&self) -> Result<()> {
        let (mut labels, _) = header(&self.labels, 1)?;
        for i in 0..self.n {
            self.label(&mut labels, i)?;
        }
        Ok(())
    }

    fn label(&self, labels: &mut Stream, i: usize) -> Result<usize> {
        let mut label = [0];
        if labels.fill(&mut label)? == 0 {
            return Err(truncated(labels, self.n, i, "labels"));
        }
        self.classes.binary_search(&label[0]).map_err(|_| {
            let [first, .., last] = self.classes[..] else { return truncated(labels, self.n, i, "labels") };
            let expected = format!("one of the {} labels of the training part ({first} to {last})", self.classes.len());
            Refusal::new(format!("{}: label {i}", labels.at()), expected, label[0], "check both label files")
        })
    }
}

struct Reader {
    part: Part,
    images: Stream,
    labels: Stream,
    at: usize,
    pixels: Vec<u8>,
}

impl Samples for Reader {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        if self.at == self.part.n {
            return Ok(false);
        }
        if self.images.fill(&mut self.pixels)? < self.pixels.len() {
            return Err(truncated(&self.images, self.part.n, self.at, "images"));
        }
        sample.label = self.part.label(&mut self.labels, self.at)?;
        sample.values.clear();
        sample.values.extend(self.pixels.iter().map(|&pixel| f32::from(pixel)));
        self.at += 1;
        Ok(true)
    }
}

fn locate(folder: &Path, part: &str, what: &str, rank: usize) -> Result<PathBuf> {
    let names = [format!("{part}-{what}-idx{rank}-ubyte"), format!("{part}-{what}.idx{rank}-ubyte")];
    find(folder, &names).ok_or_else(|| {
        let expected = format!("{} or {}.gz", names[0], names[0]);
        Refusal::new(folder.display(), expected, "no such file", "put the four files of the data set into one folder")
    })
}

/// Opens a file and reads its header; the dimensions are `rank` many.
fn header(path: &Path, rank: usize) -> Result<(Stream, Vec<usize>)> {
    let mut stream = Stream::open(path)?;
    let mut bytes = [0; 16];
    let bytes = &mut bytes[..4 + 4 * rank];
    let read = stream.fill(bytes)?;
    if read < bytes.len() {
        let expected = format!("an idx header of {} bytes", bytes.len());
        return Err(Refusal::new(path.display(), expected, format!("{read} bytes"), "copy or download it again"));
    }
    let mut words = bytes.chunks_exact(4).map(|word| word.iter().fold(0_u32, |n, &byte| n << 8 | u32::from(byte)));
    let magic = words.next().unwrap_or_default();
    if usize::try_from(magic) != Ok(0x800 + rank) {
        let expected = format!("idx magic {:#010x} (bytes, {rank} dimensions)", 0x800 + rank);
        return Err(Refusal::new(
            path.display(),
            expected,
            format!("{magic:#010x}"),
            "check that names were not swapped",
        ));
    }
    let dims: Vec<usize> = words.map(|dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
    if dims.contains(&0) {
        return Err(Refusal::new(path.display(), "dimensions of at least 1", format!("{dims:?}"), "check the file"));
    }
    Ok((stream, dims))
}

/// Refuses a stream whose rest is not as long as the header says.
fn check_length(stream: &mut Stream, dims: &[usize], what: &str) -> Result<()> {
    let expected = count(dims).and_then(|n| u64::try_from(n).ok());
    let found = stream.skip_rest()?;
    if expected != Some(found) {
        let expected = expected.map_or("more than fit".into(), |n| n.to_string());
        let expected = format!("{expected} {what}, as the header says");
        return Err(Refusal::new(stream.at(), expected, found, "copy or download it again"));
    }
    Ok(())
}

fn truncated(stream: &Stream, expected: usize, found: usize, what: &str) -> Refusal {
    Refusal::new(stream.at(), format!("{expected} {what}, as the header says"), found, "copy or download it again")
}
