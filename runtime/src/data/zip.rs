//! Zip archives (PKWARE APPNOTE 6.3): the directory at the end of the file, and one entry as a stream. Stored and deflated
//! entries, without encryption; with zip64 where sizes need it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::DeflateDecoder;

use super::stream::Stream;
use crate::error::{Refusal, Result};
use crate::files::refuse_read;

/// Most entries, and most bytes of their directory.
const ENTRIES: usize = 1 << 16;
const DIRECTORY_BYTES: u64 = 1 << 24;

/// The end record, with the longest comment that may follow it.
const END_BYTES: u64 = 22;
const TAIL_BYTES: u64 = END_BYTES + 65_535;

/// One file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name.
    pub name: String,
    method: u64,
    packed_bytes: u64,
    /// Place of its local header.
    header_at: u64,
}

/// The little-endian number of `n` bytes at `at`; `None` beyond the end.
fn number(bytes: &[u8], at: usize, n: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(n)?)?;
    Some(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

/// All entries of an archive, in the order of its directory.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>> {
    let mut file = open(path)?;
    let io = |e: std::io::Error| refuse_read(path, &e);
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    let tail_at = length.saturating_sub(TAIL_BYTES);
    let tail = read_at(&mut file, tail_at, length - tail_at).map_err(io)?;
    let refuse = |found: &str| Refusal::new(path.display(), "an intact zip archive", found, "copy or save it again");
    // The last place where the end record may be, since a comment follows it.
    let end =
        (0..tail.len().saturating_sub(END_BYTES as usize - 1)).rev().find(|&at| tail[at..].starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(|| refuse("no directory at its end"))?;
    let of_end = |at, n| number(&tail, end + at, n).unwrap_or(u64::MAX);
    let (mut n, mut bytes, mut at) = (of_end(10, 2), of_end(12, 4), of_end(16, 4));
    if n == 0xffff || bytes == 0xffff_ffff || at == 0xffff_ffff {
        let locator = end.checked_sub(20).and_then(|at| tail.get(at..at + 20)).filter(|l| l.starts_with(b"PK\x06\x07"));
        let place = locator.and_then(|locator| number(locator, 8, 8)).ok_or_else(|| refuse("no zip64 directory"))?;
        let record = read_at(&mut file, place, 56).map_err(io)?;
        if record.len() < 56 || !record.starts_with(b"PK\x06\x06") {
            return Err(refuse("no zip64 directory where it should be"));
        }
        let of_record = |at, n| number(&record, at, n).unwrap_or(u64::MAX);
        (n, bytes, at) = (of_record(32, 8), of_record(40, 8), of_record(48, 8));
    }
    if n > ENTRIES as u64 || bytes > DIRECTORY_BYTES {
        let expected = format!("at most {ENTRIES} entries");
        return Err(Refusal::new(path.display(), expected, format!("{n} in {bytes} bytes"), "split the archive"));
    }
    let directory = read_at(&mut file, at, bytes).map_err(io)?;
    let mut found = Vec::new();
    let mut at = 0;
    for _ in 0..n {
        let (entry, next) = entry(&directory, at).ok_or_else(|| refuse("a damaged directory"))?;
        found.push(entry);
        at = next;
    }
    Ok(found)
}

/// The entry of the directory at `at`, and where the next one is.
fn entry(directory: &[u8], at: usize) -> Option<(Entry, usize)> {
    if !directory.get(at..)?.starts_with(b"PK\x01\x02") {
        return None;
    }
    let of = |offset: usize, n: usize| number(directory, at + offset, n);
    let (flags, method) = (of(8, 2)?, of(10, 2)?);
    let (mut packed_bytes, unpacked, mut header_at) = (of(20, 4)?, of(24, 4)?, of(42, 4)?);
    let (name_len, extra_len, comment_len) = (of(28, 2)? as usize, of(30, 2)? as usize, of(32, 2)? as usize);
    let name = String::from_utf8_lossy(directory.get(at + 46..at + 46 + name_len)?).into_owned();
    let extra = directory.get(at + 46 + name_len..at + 46 + name_len + extra_len)?;
    let mut place = 0;
    while let (Some(tag), Some(size)) = (number(extra, place, 2), number(extra, place + 2, 2)) {
        if tag == 1 {
            // Only what does not fit above is here, in this order.
            let mut field = place + 4;
            let mut take = |short: u64| {
                if short != 0xffff_ffff {
                    return Some(short);
                }
                field += 8;
                number(extra, field - 8, 8)
            };
            take(unpacked)?;
            (packed_bytes, header_at) = (take(packed_bytes)?, take(header_at)?);
        }
        place += 4 + size as usize;
    }
    // An encrypted entry is one whose method nobody knows.
    let method = if flags & 1 == 1 { u64::MAX } else { method };
    Some((Entry { name, method, packed_bytes, header_at }, at + 46 + name_len + extra_len + comment_len))
}

impl Entry {
    /// Its bytes, unpacked.
    pub(super) fn open(&self, path: &Path) -> Result<Stream> {
        let at = format!("{}: {}", path.display(), self.name);
        let refuse = |found: &str| Refusal::new(&at, "a stored or deflated entry", found, "copy or save it again");
        let mut file = open(path)?;
        let header = read_at(&mut file, self.header_at, 30).map_err(|e| refuse_read(path, &e))?;
        let lengths = header.starts_with(b"PK\x03\x04").then(|| number(&header, 26, 2).zip(number(&header, 28, 2)));
        let (name, extra) = lengths.flatten().ok_or_else(|| refuse("no entry where the directory says"))?;
        let start = self.header_at.checked_add(30 + name + extra).ok_or_else(|| refuse("a place beyond any file"))?;
        file.seek(SeekFrom::Start(start)).map_err(|e| refuse_read(path, &e))?;
        let packed = BufReader::new(file.take(self.packed_bytes));
        match self.method {
            0 => Ok(Stream::of(Box::new(packed), at, "zip")),
            8 => Ok(Stream::of(Box::new(BufReader::new(DeflateDecoder::new(packed))), at, "zip")),
            u64::MAX => Err(refuse("an encrypted one")),
            other => Err(refuse(&format!("method {other}"))),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| refuse_read(path, &e))?;
    if !file.metadata().map_err(|e| refuse_read(path, &e))?.is_file() {
        let found = if path.is_dir() { "a folder" } else { "something else" };
        return Err(Refusal::new(path.display(), "a zip archive", found, "check the path"));
    }
    Ok(file)
}

/// At most `n` bytes from a place: fewer at the end of the file.
fn read_at(file: &mut File, at: u64, n: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(n).read_to_end(&mut bytes)?;
    Ok(bytes)
}
