//! Files that lie under the name of their class: `train/CLASS/FILE` and `test/CLASS/FILE` in a folder, or in a tar (`.tar`,
//! `.tar.gz`) at any depth; `val` stands for `test` where there is none. A file that lies in no folder of a class is named
//! after it: `train/CLASS_FILE`.
//!
//! A folder's samples come in the order of their names, a tar's in that of the archive.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::stream::sha256 as sha256_of;
use super::tar::Tar;
use super::{Dataset, Description, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::files;

/// Most bytes of one file, and most classes.
pub(super) const FILE_BYTES: u64 = 1 << 28;
const CLASSES: usize = 100_000;

/// Makes samples of files' bytes; messages do not name the file.
pub(super) trait Decode {
    /// Fills the values of `sample`.
    fn decode(&mut self, bytes: &[u8], sample: &mut Sample) -> Result<()>;
}

/// Makes a decoder for one stream of samples.
pub(super) type MakeDecode = Box<dyn Fn() -> Box<dyn Decode>>;

/// A data set of such files.
pub(super) struct Labelled {
    description: Description,
    place: Arc<Place>,
    make: MakeDecode,
}

/// Where the files are.
struct Place {
    path: PathBuf,
    endings: &'static [&'static str],
    /// `test`, or what stands for it.
    test: &'static str,
    classes: Vec<String>,
}

impl Labelled {
    /// Reads all files with one of `endings` once; what they tell is filled into `description`.
    pub(super) fn open(
        path: &Path,
        endings: &'static [&'static str],
        mut description: Description,
        make: MakeDecode,
    ) -> Result<Self> {
        let mut place = Place { path: path.into(), endings, test: "test", classes: Vec::new() };
        let mut classes = BTreeSet::new();
        let (mut files, mut file) = (place.files("train")?, File::default());
        while files.next(&mut file)? {
            if !classes.contains(&file.class) {
                classes.insert(file.class.clone());
            }
            if classes.len() > CLASSES {
                let expected = format!("at most {CLASSES} classes");
                return Err(Refusal::new(path.display(), expected, "more", "put files into folders of their classes"));
            }
        }
        if classes.len() < 2 {
            let expected = format!("files train/CLASS/*.{} of at least 2 classes", endings.join(" or *."));
            let found = format!("{} classes", classes.len());
            return Err(Refusal::new(
                path.display(),
                expected,
                found,
                "name the folder or tar that holds train and test",
            ));
        }
        place.classes = classes.into_iter().collect();
        if !place.files("test")?.next(&mut file)? {
            place.test = "val";
        }
        let (place, mut hash) = (Arc::new(place), Sha256::new());
        let mut counts = [0; 2];
        for (split, n) in [Split::Train, Split::Test].into_iter().zip(&mut counts) {
            let mut rows = Rows::open(&place, split, make())?;
            let mut sample = Sample::default();
            while rows.next(&mut sample)? {
                *n += 1;
                hash.update(rows.file.class.as_bytes());
                hash.update((rows.file.bytes.len() as u64).to_le_bytes());
                hash.update(&rows.file.bytes);
            }
        }
        if counts[1] == 0 {
            let expected = format!("files test/CLASS/*.{}", endings.join(" or *."));
            return Err(Refusal::new(path.display(), expected, "none", "put a test part beside train"));
        }
        [description.n_train, description.n_test] = counts;
        description.classes.clone_from(&place.classes);
        description.sha256 = match path.is_dir() {
            true => hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            false => sha256_of(&[path])?,
        };
        Ok(Self { description, place, make })
    }
}

impl Dataset for Labelled {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        Ok(Box::new(Rows::open(&self.place, split, (self.make)())?))
    }
}

/// The bytes of the first file of the training part, and how messages name it; for what is told by it.
#[cfg(feature = "images")]
pub(super) fn first(path: &Path, endings: &'static [&'static str]) -> Result<(String, Vec<u8>)> {
    let place = Place { path: path.into(), endings, test: "test", classes: Vec::new() };
    let mut file = File::default();
    if place.files("train")?.next(&mut file)? {
        return Ok((file.at, file.bytes));
    }
    let expected = format!("files train/CLASS/*.{}", endings.join(" or *."));
    Err(Refusal::new(path.display(), expected, "none", "name the folder or tar that holds train and test"))
}

struct Rows {
    place: Arc<Place>,
    files: Box<dyn Files>,
    file: File,
    decode: Box<dyn Decode>,
}

impl Rows {
    fn open(place: &Arc<Place>, split: Split, decode: Box<dyn Decode>) -> Result<Self> {
        let files = place.files(if split == Split::Train { "train" } else { place.test })?;
        Ok(Self { place: place.clone(), files, file: File::default(), decode })
    }
}

impl Samples for Rows {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        if !self.files.next(&mut self.file)? {
            return Ok(false);
        }
        let File { at, class, bytes } = &self.file;
        sample.label = self.place.classes.binary_search(class).map_err(|_| {
            let expected = format!("one of the {} classes of the training part", self.place.classes.len());
            Refusal::new(at, expected, format!("`{class}`"), "check that both parts are of one data set")
        })?;
        self.decode.decode(bytes, sample).map_err(|e| e.within(at))?;
        Ok(true)
    }
}

/// One file.
#[derive(Default)]
struct File {
    /// How messages name it.
    at: String,
    class: String,
    bytes: Vec<u8>,
}

/// Files one after the other.
trait Files {
    /// The next one into `file`; false after the last.
    fn next(&mut self, file: &mut File) -> Result<bool>;
}

impl Place {
    fn files(&self, part: &'static str) -> Result<Box<dyn Files>> {
        if self.path.is_dir() {
            let folder = self.path.join(part);
            let classes = if folder.is_dir() { sorted(&folder)? } else { Vec::new() };
            let left = classes.into_iter().rev().map(|path| (path, None)).collect();
            return Ok(Box::new(InFolder { endings: self.endings, left }));
        }
        Ok(Box::new(InTar { tar: Tar::open(&self.path)?, part, endings: self.endings, name: String::new() }))
    }
}

/// Whether a file is one of those with these endings; hidden ones are not.
fn wanted(name: &str, endings: &[&str]) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending).unwrap_or_default();
    !name.starts_with('.') && endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The class that a file outside a class's folder is named after.
fn class_of(name: &str) -> String {
    name.split_once(['_', '.']).map_or(name, |(class, _)| class).to_string()
}

/// What is in a folder, by name.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e: std::io::Error| files::refuse_read(folder, &e);
    let entries = fs::read_dir(folder).map_err(io)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    paths.sort_unstable();
    Ok(paths)
}

struct InFolder {
    endings: &'static [&'static str],
    /// What is left, the next one last: paths, with the class where they lie in its folder.
    left: Vec<(PathBuf, Option<String>)>,
}

impl Files for InFolder {
    fn next(&mut self, file: &mut File) -> Result<bool> {
        while let Some((path, class)) = self.left.pop() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if class.is_none() && path.is_dir() && !name.starts_with('.') {
                let inside = sorted(&path)?.into_iter().rev();
                self.left.extend(inside.map(|inside| (inside, Some(name.clone()))));
            } else if wanted(&name, self.endings) && path.is_file() {
                let bytes = fs::metadata(&path).map_err(|e| files::refuse_read(&path, &e))?.len();
                if bytes > FILE_BYTES {
                    let expected = format!("a file of at most {FILE_BYTES} bytes");
                    return Err(Refusal::new(path.display(), expected, bytes, "make it smaller, or take it out"));
                }
                file.bytes = files::read(&path)?;
                file.class = class.unwrap_or_else(|| class_of(&name));
                file.at = path.display().to_string();
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct InTar {
    tar: Tar,
    part: &'static str,
    endings: &'static [&'static str],
    name: String,
}

impl Files for InTar {
    fn next(&mut self, file: &mut File) -> Result<bool> {
        while self.tar.next(&mut self.name)? {
            let mut parts = self.name.split('/').filter(|part| !part.is_empty() && *part != ".").rev();
            let (name, above, top) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            if !wanted(name, self.endings) {
                continue;
            }
            file.class = match (above, top) {
                (Some(class), Some(part)) if part == self.part => class.to_string(),
                (Some(part), _) if part == self.part => class_of(name),
                _ => continue,
            };
            file.at = format!("{}: {}", self.tar.at(), self.name);
            self.tar.read(&mut file.bytes)?;
            return Ok(true);
        }
        Ok(false)
    }
}
