//! What a teacher says of every training sample, computed once and memory-mapped: a frozen teacher's answers do not
//! change, so no epoch after the first has to ask again.
//!
//! A file holds `views` times `samples` rows, each the values of some taps one after another, behind a header that ties
//! it to what it was made of (teacher, contract, samples, augmentations and their seed, taps) and to its own bytes.
//! With augmentations each view is one seeded augmentation of all samples; epochs take the views in turn.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use kd_runtime::files::{refuse_read, refuse_write};
use kd_runtime::{Refusal, Result, files};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rng::{Purpose, Rng};

/// The value of `schema`. Files of version 1 may hold probabilities, and infinities for large values, in f16.
const SCHEMA: &str = "kd.teacher_cache/2";
/// Bytes of the header, padded with spaces.
const HEADER_BYTES: usize = 4096;
/// How far a value kept in f16 may be from the teacher's, relative to the larger of it and 1: half a unit in its 11th bit.
const F16_TOLERANCE: f32 = 4.9e-4;

/// How values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Exactly.
    F32,
    /// In half the bytes, rounded to 11 bits.
    F16,
}

/// What a cache holds, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// SHA-256 over all that decides the values: teacher, contract, samples, augmentations with their seed.
    pub made_of: String,
    /// Augmented views of each sample; 1 without augmentations.
    pub views: usize,
    /// Training samples.
    pub samples: usize,
    /// Names of the taps.
    pub taps: Vec<String>,
    /// Values of each tap for one sample.
    pub elements: Vec<usize>,
    /// How values are kept.
    pub precision: Precision,
    /// Samples that the teacher is asked about at once: sums of a batch of another size may round otherwise.
    pub batch: usize,
}

impl Key {
    fn row(&self) -> usize {
        self.elements.iter().sum()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        let value = if self.precision == Precision::F16 { 2 } else { 4 };
        let values = [self.views, self.samples, self.row(), value];
        values.iter().fold(1_u64, |n, &d| n.saturating_mul(d as u64)).saturating_add(HEADER_BYTES as u64)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    schema: String,
    key: Key,
    /// Of all rows.
    sha256: String,
}

/// Asks the teacher for the rows of some samples of a view, and puts them behind what is in the list.
pub type Ask<'a> = dyn FnMut(usize, &[usize], &mut Vec<f32>) -> Result<()> + 'a;

/// A cache that fits its teacher.
pub struct Cache {
    /// Whether the teacher was asked for it, and no file of this key was there.
    pub is_new: bool,
    key: Key,
    map: Mmap,
}

impl Cache {
    /// Opens the cache, or makes it first. `progress` is told how many of all rows are
    /// done. A file of another key or version is made anew. Refuses values that the precision cannot hold, a file that is damaged, and one whose teacher now answers otherwise.
    pub fn open_or_make(
        path: &Path,
        key: Key,
        ask: &mut Ask<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let fits = |header: &Header| header.schema == SCHEMA && header.key == key;
        let is_new = !path.is_file() || read_header(path)?.is_some_and(|header| !fits(&header));
        if is_new {
            make(path, &key, ask, progress)?;
        }
        let cache = Self { is_new, ..Self::open(path, key)? };
        cache.ask_again(path, ask)?;
        Ok(cache)
    }

    fn open(path: &Path, key: Key) -> Result<Self> {
        let damaged = |found: &dyn std::fmt::Display| {
            let expected = format!("the cache of this teacher ({} bytes)", key.bytes());
            Refusal::new(path.display(), expected, found, "remove it to ask the teacher again")
        };
        let header = read_header(path)?.ok_or_else(|| damaged(&"no header"))?;
        let file = File::open(path).map_err(|error| refuse_read(path, &error))?;
        // SAFETY: the file lies in the run folder, which this process has locked; it was renamed there whole, nothing of
        // ours writes into it, and what is read of it are plain bytes.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| refuse_read(path, &error))?;
        if map.len() as u64 != key.bytes() {
            return Err(damaged(&format!("{} bytes", map.len())));
        }
        if hex(Sha256::digest(&map[HEADER_BYTES..])) != header.sha256 {
            return Err(damaged(&"other bytes than were written"));
        }
        Ok(Self { is_new: false, key, map })
    }

    /// Compares a batch, chosen by seed, with what the teacher says of it now.
    fn ask_again(&self, path: &Path, ask: &mut Ask<'_>) -> Result<()> {
        let mut rng = Rng::new(1, Purpose::Shuffle, self.key.samples as u64, self.key.views as u64);
        let view = rng.below(self.key.views.max(1) as u64) as usize;
        let batch = self.key.batch.max(1);
        let first = rng.below(self.key.samples.div_ceil(batch).max(1) as u64) as usize * batch;
        let places: Vec<usize> = (first..self.key.samples.min(first + batch)).collect();
        let mut now = Vec::new();
        ask(view, &places, &mut now)?;
        let mut kept = Vec::new();
        places.iter().for_each(|&place| self.values(view, place, 0..self.key.row(), &mut kept));
        let same = |(now, kept): (&f32, &f32)| match self.key.precision {
            Precision::F32 => now.to_bits() == kept.to_bits(),
            Precision::F16 => {
                (now - kept).abs() <= F16_TOLERANCE * now.abs().max(1.0) || f16::from_f32(*now) == f16::from_f32(*kept)
            }
        };
        match now.iter().zip(&kept).position(|pair| !same(pair)) {
            None if now.len() == kept.len() => Ok(()),
            place => {
                let found = match place {
                    Some(i) => format!("{} where it now gives {}", kept[i], now[i]),
                    None => format!("{} values where it now gives {}", kept.len(), now.len()),
                };
                let expected = "what the teacher says of seeded samples";
                Err(Refusal::new(path.display(), expected, found, "remove it to ask the teacher again"))
            }
        }
    }

    /// Appends the values of a tap, by its place in the key, for these samples of a view.
    pub fn tap(&self, view: usize, places: &[usize], tap: usize, out: &mut Vec<f32>) {
        let before: usize = self.key.elements[..tap].iter().sum();
        let range = before..before + self.key.elements[tap];
        places.iter().for_each(|&place| self.values(view, place, range.clone(), out));
    }

    /// The view that an epoch takes.
    pub fn view(&self, epoch: usize) -> usize {
        epoch % self.key.views.max(1)
    }

    fn values(&self, view: usize, place: usize, range: std::ops::Range<usize>, out: &mut Vec<f32>) {
        let row = (view * self.key.samples + place) * self.key.row();
        let of = |bytes: usize| HEADER_BYTES + (row + range.start) * bytes..HEADER_BYTES + (row + range.end) * bytes;
        match self.key.precision {
            Precision::F32 => out.extend(self.map[of(4)].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Precision::F16 => {
                out.extend(self.map[of(2)].as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
            }
        }
    }
}

/// The header; `None` where there is none that can be read.
fn read_header(path: &Path) -> Result<Option<Header>> {
    let mut file = File::open(path).map_err(|error| refuse_read(path, &error))?;
    let mut bytes = vec![0; HEADER_BYTES];
    match std::io::Read::read_exact(&mut file, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(refuse_read(path, &error)),
    }
    Ok(serde_json::from_slice(bytes.trim_ascii_end()).ok())
}

/// Values in half the bytes; refuses one that would become infinite.
fn halves(rows: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
    for &x in rows {
        let half = f16::from_f32(x);
        if half.is_infinite() && x.is_finite() {
            let expected = format!("values of at most {}, as f16 holds them", f16::MAX);
            return Err(Refusal::new("cache_precision", expected, x, "set cache_precision = \"f32\""));
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(())
}

/// Asks for all rows, and writes them under a temporary name that becomes `path` when they are whole.
fn make(path: &Path, key: &Key, ask: &mut Ask<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| refuse_write(folder, &error))?;
    }
    let unfinished = Unfinished(path.with_extension("tmp"));
    let temporary = &unfinished.0;
    let failed = |error: std::io::Error| refuse_write(temporary, &error);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(temporary).map_err(failed)?);
    file.write_all(&[b' '; HEADER_BYTES]).map_err(failed)?;
    let mut hash = Sha256::new();
    let all: Vec<usize> = (0..key.samples).collect();
    let (mut rows, mut bytes) = (Vec::new(), Vec::new());
    let batch = key.batch.max(1);
    for view in 0..key.views {
        for (i, places) in all.chunks(batch).enumerate() {
            rows.clear();
            ask(view, places, &mut rows)?;
            bytes.clear();
            match key.precision {
                Precision::F32 => bytes.extend(rows.iter().flat_map(|x| x.to_le_bytes())),
                Precision::F16 => halves(&rows, &mut bytes)?,
            }
            hash.update(&bytes);
            file.write_all(&bytes).map_err(failed)?;
            progress(view * key.samples + i * batch + places.len(), key.views * key.samples);
        }
    }
    let header = Header { schema: SCHEMA.into(), key: key.clone(), sha256: hex(hash.finalize()) };
    let mut text = serde_json::to_vec(&header).unwrap_or_default();
    if text.len() > HEADER_BYTES {
        let expected = format!("a header of at most {HEADER_BYTES} bytes");
        return Err(Refusal::new(path.display(), expected, text.len(), "read fewer taps of the teacher"));
    }
    text.resize(HEADER_BYTES, b' ');
    let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(temporary, path).map_err(|error| refuse_write(path, &error))
}

/// A file that goes away unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed, or never made: then there is nothing to remove.
        std::fs::remove_file(&self.0).ok();
    }
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over texts and bytes, each with its length.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(files::sha256(part).as_bytes());
    }
    files::sha256(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(precision: Precision) -> Key {
        let taps = vec!["logits".into(), "features".into()];
        Key { made_of: "x".into(), views: 2, samples: 5, taps, elements: vec![3, 2], precision, batch: 2 }
    }

    /// Row r of view v holds `100 v + 10 r + i`.
    fn answer(view: usize, places: &[usize], out: &mut Vec<f32>) -> Result<()> {
        out.extend(places.iter().flat_map(|p| (0..5).map(move |i| (100 * view + 10 * p + i) as f32)));
        Ok(())
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kd-cache-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        folder
    }

    #[test]
    fn what_was_said_once_is_read_back_and_not_asked_again() {
        for precision in [Precision::F32, Precision::F16] {
            let folder = folder(if precision == Precision::F32 { "f32" } else { "f16" });
            let path = folder.join("teacher.cache");
            let mut asked = 0_usize;
            let mut seen = Vec::new();
            let mut open = |asked: &mut usize| {
                let mut ask = |view: usize, places: &[usize], out: &mut Vec<f32>| {
                    *asked += places.len();
                    answer(view, places, out)
                };
                Cache::open_or_make(&path, key(precision), &mut ask, &mut |done, of| seen.push((done, of))).unwrap()
            };
            assert!(open(&mut asked).is_new);
            assert!((11..=12).contains(&asked), "{asked}: all, then a batch of one or two");
            let first = asked;
            let cache = open(&mut asked);
            assert_eq!(asked - first, first - 10, "made once, then the same batch alone");
            assert!(!cache.is_new);
            let mut out = Vec::new();
            cache.tap(1, &[4, 0], 1, &mut out);
            assert_eq!(out, [143.0, 144.0, 103.0, 104.0]);
            assert_eq!((cache.view(0), cache.view(3)), (0, 1));
            assert_eq!(seen.last(), Some(&(10, 10)));
            assert!(!folder.join("teacher.tmp").exists());
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_refused_when_the_cache_is_made() {
        let folder = folder("halves");
        let path = folder.join("teacher.cache");
        let open = |largest: f32, precision| {
            let mut ask = |view: usize, places: &[usize], out: &mut Vec<f32>| {
                answer(view, places, out)?;
                out.last_mut().into_iter().for_each(|x| *x = largest);
                Ok(())
            };
            Cache::open_or_make(&path, key(precision), &mut ask, &mut |_, _| {}).map(|cache| cache.is_new)
        };
        for largest in [65520.0, -1e9] {
            let message = open(largest, Precision::F16).unwrap_err().to_string();
            let expected = format!(
                "cache_precision: expected values of at most 65504, as f16 holds them, found {largest}; set cache_precision = \"f32\""
            );
            assert_eq!(message, expected);
            assert!(std::fs::read_dir(&folder).unwrap().next().is_none(), "nothing is left behind");
        }
        // Minus infinity is the logarithm of 0; 65519 is rounded to the largest.
        assert_eq!(open(f32::NEG_INFINITY, Precision::F16), Ok(true));
        assert_eq!(open(65519.0, Precision::F32), Ok(true));
        assert_eq!(open(65519.0, Precision::F16), Ok(true));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_cache_of_an_older_version_is_made_anew() {
        let folder = folder("older");
        let path = folder.join("teacher.cache");
        let open = || Cache::open_or_make(&path, key(Precision::F16), &mut answer, &mut |_, _| {}).unwrap().is_new;
        assert!(open() && !open());
        let mut bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8(bytes[..HEADER_BYTES].to_vec()).unwrap();
        assert!(text.contains(SCHEMA));
        bytes[..HEADER_BYTES].copy_from_slice(text.replace(SCHEMA, "kd.teacher_cache/1").as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(open() && !open());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_cache_that_does_not_fit_is_refused_and_that_of_another_key_made_anew() {
        let folder = folder("other");
        let path = folder.join("teacher.cache");
        let open = |key: Key, ask: &mut Ask<'_>| Cache::open_or_make(&path, key, ask, &mut |_, _| {});
        open(key(Precision::F32), &mut answer).unwrap();
        let mut other = |view: usize, places: &[usize], out: &mut Vec<f32>| {
            let before = out.len();
            answer(view, places, out)?;
            out[before..].iter_mut().for_each(|x| *x += 0.5);
            Ok(())
        };
        let message = open(key(Precision::F32), &mut other).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("expected what the teacher says of seeded samples, found "), "{message}");
        // Another key: made anew.
        let cache = open(Key { made_of: "y".into(), ..key(Precision::F32) }, &mut other).unwrap();
        assert!(cache.is_new);
        let mut out = Vec::new();
        cache.tap(0, &[1], 0, &mut out);
        assert_eq!(out, [10.5, 11.5, 12.5]);
        drop(cache);
        // Any byte that flips, and any that is missing.
        let whole = std::fs::read(&path).unwrap();
        for place in [HEADER_BYTES, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[place] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let message = open(Key { made_of: "y".into(), ..key(Precision::F32) }, &mut other).err();
            assert!(message.is_some_and(|e| e.to_string().contains("other bytes than were written")), "{place}");
        }
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        assert!(open(Key { made_of: "y".into(), ..key(Precision::F32) }, &mut other).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
