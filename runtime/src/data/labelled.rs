//! Files that lie under the name of their class: `train/CLASS/FILE` and `test/CLASS/FILE`, or in folders below `CLASS`, in a
//! folder, or in a tar (`.tar`, `.tar.gz`) at any depth; `val` stands for `test` where there is none. A file that lies in no
//! folder of a class is named after it, where the format has that: `train/CLASS_FILE`.
//!
//! A folder's samples come in the order of their names, a tar's in that of the archive. Hidden files and notes
//! beside the samples are left out; what else is no sample, and a class without samples, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::stream::sha256 as sha256_of;
use super::tar::{Entry, Tar};
use super::{Dataset, Description, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::files;

/// Most bytes of one file, and most classes.
pub(super) const FILE_BYTES: u64 = 1 << 28;
const CLASSES: usize = 100_000;

/// Folders that hold the parts; in a tar, the first of them in a name tells its part.
const PARTS: [&str; 3] = ["train", "test", "val"];

/// Makes samples of files' bytes; messages do not name the file.
pub(super) trait Decode {
    /// Fills the values of `sample`.
    fn decode(&mut self, bytes: &[u8], sample: &mut Sample) -> Result<()>;
}

/// Makes a decoder for one stream of samples.
pub(super) type MakeDecode = Box<dyn Fn() -> Box<dyn Decode>>;

/// What files a format has.
pub(super) struct Kind {
    /// How their names end.
    pub endings: &'static [&'static str],
    /// Whether a file that lies in no folder of a class may carry it in its name.
    pub class_in_name: bool,
}

/// A data set of such files.
pub(super) struct Labelled {
    description: Description,
    place: Arc<Place>,
    make: MakeDecode,
}

/// Where the files are.
pub(super) struct Place {
    path: PathBuf,
    kind: &'static Kind,
    /// `test`, or what stands for it.
    test: &'static str,
    classes: Vec<String>,
}

impl Place {
    /// Finds the classes of the training part; `look` is shown the bytes of all its files, and its messages do not name them.
    pub(super) fn open(path: &Path, kind: &'static Kind, mut look: impl FnMut(&[u8]) -> Result<()>) -> Result<Self> {
        let mut place = Self { path: path.into(), kind, test: "test", classes: Vec::new() };
        let mut classes = BTreeSet::new();
        let (mut files, mut file) = (place.files("train")?, File::default());
        while files.next(&mut file)? {
            look(&file.bytes).map_err(|e| e.within(&file.at))?;
            if !classes.contains(&file.class) {
                classes.insert(file.class.clone());
            }
            if classes.len() > CLASSES {
                return Err(too_many(path.display()));
            }
        }
        if classes.len() < 2 {
            let expected = format!("files train/CLASS/{} of at least 2 classes", kind.files());
            let (found, action) =
                (format!("{} classes", classes.len()), "name the folder or tar that holds train and test");
            return Err(Refusal::new(path.display(), expected, found, action));
        }
        place.classes = classes.into_iter().collect();
        if !place.files("test")?.next(&mut file)? {
            place.test = "val";
        }
        Ok(place)
    }
}

impl Labelled {
    /// Reads all files once; what they tell is filled into `description`.
    pub(super) fn open(place: Place, mut description: Description, make: MakeDecode) -> Result<Self> {
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
            let expected = format!("files test/CLASS/{}", place.kind.files());
            return Err(Refusal::new(place.path.display(), expected, "none", "put a test part beside train"));
        }
        [description.n_train, description.n_test] = counts;
        description.classes.clone_from(&place.classes);
        description.sha256 = match place.path.is_dir() {
            true => hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            false => sha256_of(&[&place.path])?,
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
            let left = if folder.is_dir() { last_first(&folder)? } else { Vec::new() };
            return Ok(Box::new(InFolder { kind: self.kind, left, class: None, files: Vec::new() }));
        }
        Ok(Box::new(InTar { tar: Tar::open(&self.path)?, part, kind: self.kind, classes: BTreeMap::new() }))
    }
}

impl Kind {
    /// How files are called, for messages.
    fn files(&self) -> String {
        format!("*.{}", self.endings.join(" or *."))
    }

    /// Whether a file is a sample, or one of those that lie beside samples; refuses others. `at` names it in messages.
    fn is_sample(&self, name: &str, at: &str) -> Result<bool> {
        let ending = name.rsplit_once('.').map(|(_, ending)| ending).unwrap_or_default();
        let ends_as_one_of = |endings: &[&str]| endings.iter().any(|known| ending.eq_ignore_ascii_case(known));
        if !hidden(name) && ends_as_one_of(self.endings) {
            return Ok(true);
        }
        let note = name.starts_with("README") || name.starts_with("LICENSE") || name == "Thumbs.db";
        if note || hidden(name) || ends_as_one_of(&["txt", "md", "csv", "json"]) {
            return Ok(false);
        }
        Err(Refusal::new(at, self.files(), "a file of another kind", "convert it, or move it out of train and test"))
    }

    /// The refusal of a class's folder without samples.
    fn no_sample(&self, at: &str) -> Refusal {
        let expected = format!("samples of this class, {}", self.files());
        Refusal::new(at, expected, "none", "put them there, or remove the folder")
    }

    /// The class of a file `name` that lies in no folder of a class; `at` names it in messages.
    fn class_in(&self, name: &str, at: &str) -> Result<String> {
        if !self.class_in_name {
            let found = "one that lies beside those folders";
            return Err(Refusal::new(
                at,
                "a file in the folder of its class",
                found,
                "move it into train/CLASS or test/CLASS",
            ));
        }
        Ok(name.split_once(['_', '.']).map_or(name, |(class, _)| class).to_string())
    }
}

fn too_many(at: impl std::fmt::Display) -> Refusal {
    Refusal::new(at, format!("at most {CLASSES} classes"), "more", "put files into folders of their classes")
}

/// Folders that file servers and archivers put beside files.
const BESIDE: &[&str] = &["@eaDir", "__MACOSX"];

fn hidden(name: &str) -> bool {
    name.starts_with('.') || BESIDE.contains(&name)
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What is in a folder, by name, the last one first.
fn last_first(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e: std::io::Error| files::refuse_read(folder, &e);
    let entries = fs::read_dir(folder).map_err(io)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

struct InFolder {
    kind: &'static Kind,
    /// What is left of the part's folder, the next one last.
    left: Vec<PathBuf>,
    /// What is left of the folder of a class, the next one last; and the class, where the files lie in such a folder.
    files: Vec<PathBuf>,
    class: Option<String>,
}

impl InFolder {
    /// All samples in a folder and those below it, the last one first.
    fn below(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let (mut left, mut files) = (last_first(folder)?, Vec::new());
        while let Some(path) = left.pop() {
            let name = name_of(&path);
            if hidden(&name) {
                continue;
            }
            if !path.is_dir() {
                if self.kind.is_sample(&name, &path.display().to_string())? {
                    files.push(path);
                }
            } else if path.is_symlink() {
                // It may lead back to where it lies.
                let action = "put the folder itself there, or take the link out";
                return Err(Refusal::new(path.display(), "files and folders", "a link to a folder", action));
            } else {
                left.extend(last_first(&path)?);
            }
        }
        files.reverse();
        Ok(files)
    }
}

impl Files for InFolder {
    fn next(&mut self, file: &mut File) -> Result<bool> {
        let path = loop {
            if let Some(path) = self.files.pop() {
                break path;
            }
            let Some(path) = self.left.pop() else { return Ok(false) };
            let name = name_of(&path);
            if path.is_dir() && !hidden(&name) {
                self.files = self.below(&path)?;
                self.class = Some(name);
                if self.files.is_empty() {
                    return Err(self.kind.no_sample(&path.display().to_string()));
                }
            } else if self.kind.is_sample(&name, &path.display().to_string())? {
                self.files.push(path);
                self.class = None;
            }
        };
        let bytes = fs::metadata(&path).map_err(|e| files::refuse_read(&path, &e))?.len();
        if bytes > FILE_BYTES {
            let expected = format!("a file of at most {FILE_BYTES} bytes");
            return Err(Refusal::new(path.display(), expected, bytes, "make it smaller, or take it out"));
        }
        file.at = path.display().to_string();
        file.class = match &self.class {
            Some(class) => class.clone(),
            None => self.kind.class_in(&name_of(&path), &file.at)?,
        };
        file.bytes = files::read(&path)?;
        Ok(true)
    }
}

struct InTar {
    tar: Tar,
    part: &'static str,
    kind: &'static Kind,
    /// Classes that were seen, and whether with samples.
    classes: BTreeMap<String, bool>,
}

impl InTar {
    /// Notes a class, and whether a sample of it was seen.
    fn note(&mut self, class: &str, sample: bool) -> Result<()> {
        if let Some(known) = self.classes.get_mut(class) {
            *known |= sample;
        } else if self.classes.len() == CLASSES {
            return Err(too_many(self.tar.at()));
        } else {
            self.classes.insert(class.to_string(), sample);
        }
        Ok(())
    }
}

impl Files for InTar {
    fn next(&mut self, file: &mut File) -> Result<bool> {
        let mut name = String::new();
        while let Some(entry) = self.tar.next(&mut name)? {
            let mut parts = name.split('/').skip_while(|part| !PARTS.contains(part));
            if parts.next() != Some(self.part) {
                continue;
            }
            let below: Vec<&str> = parts.filter(|part| !part.is_empty() && *part != ".").collect();
            let (Some(&class), Some(&last)) = (below.first(), below.last()) else { continue };
            if below.iter().any(|part| hidden(part)) || name.split('/').any(|part| BESIDE.contains(&part)) {
                continue;
            }
            if entry == Entry::Folder || below.len() > 1 {
                self.note(class, false)?;
            }
            if entry == Entry::Folder {
                continue;
            }
            file.at = format!("{}: {name}", self.tar.at());
            if !self.kind.is_sample(last, &file.at)? {
                continue;
            }
            if entry == Entry::Other {
                let action = "pack files themselves: `tar --dereference --hard-dereference`";
                return Err(Refusal::new(&file.at, "a file", "a link, or a file with holes", action));
            }
            file.class = if below.len() > 1 { class.to_string() } else { self.kind.class_in(last, &file.at)? };
            self.note(&file.class, true)?;
            self.tar.read(&mut file.bytes)?;
            return Ok(true);
        }
        match self.classes.iter().find(|(_, samples)| !**samples) {
            Some((class, _)) => Err(self.kind.no_sample(&format!("{}: {}/{class}", self.tar.at(), self.part))),
            None => Ok(false),
        }
    }
}
