//! Files as bounded streams: gzip or not, by lines or by bytes, each refusal with its place.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::{Refusal, Result};
use crate::files::refuse_read;

/// Longest line that is read: a multivariate series of 64 channels and 10,000 steps takes about 10 MiB.
const LINE_BYTES: usize = 64 << 20;

/// The first of `names` that is in `folder`, bare or with `.gz`.
pub(super) fn find(folder: &Path, names: &[String]) -> Option<PathBuf> {
    (names.iter()).flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]).find(|path| path.is_file())
}

/// SHA-256 over the bytes of several files, one after the other.
pub(super) fn sha256(paths: &[&Path]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    for path in paths {
        let mut file = File::open(path).map_err(|e| refuse_read(path, &e))?;
        loop {
            let read = file.read(&mut buffer).map_err(|e| refuse_read(path, &e))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes of a file, unpacked if it is gzip.
pub(super) struct Stream {
    reader: Box<dyn BufRead>,
    at: String,
    /// What it is packed as.
    packed: Option<&'static str>,
}

impl Stream {
    /// Opens a file; whether it is gzip is told by its first two bytes.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let refuse = |e: std::io::Error| refuse_read(path, &e);
        let file = File::open(path).map_err(refuse)?;
        if !file.metadata().map_err(refuse)?.is_file() {
            let found = if path.is_dir() { "a folder" } else { "something else" };
            return Err(Refusal::new(path.display(), "a regular file", found, "check the path"));
        }
        let mut reader = BufReader::new(file);
        let packed = reader.fill_buf().map_err(refuse)?.starts_with(&[0x1f, 0x8b]);
        let at = path.display().to_string();
        if !packed && path.extension().is_some_and(|e| e == "gz") {
            let found = "a file without gzip's first bytes 1f 8b";
            return Err(Refusal::new(at, "a gzip file", found, "copy it again, or take .gz off its name"));
        }
        let reader: Box<dyn BufRead> =
            if packed { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) };
        Ok(Self { reader, at, packed: packed.then_some("gzip") })
    }

    /// Gzip bytes that are part of the program; `at` names them in messages.
    pub(super) fn embedded(at: &str, bytes: &'static [u8]) -> Self {
        Self::of(Box::new(BufReader::new(MultiGzDecoder::new(bytes))), at.into(), "gzip")
    }

    /// What a reader gives that unpacks a file of some kind (gzip, zip).
    pub(super) fn of(reader: Box<dyn BufRead>, at: String, packed: &'static str) -> Self {
        Self { reader, at, packed: Some(packed) }
    }

    /// How messages name it.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Fills `buffer` as far as the file goes; the number of bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.refuse(&e)),
            }
        }
        Ok(filled)
    }

    /// Reads to the end; the number of bytes.
    pub(super) fn skip_rest(&mut self) -> Result<u64> {
        let mut skipped = 0_u64;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(bytes) => bytes.len(),
                Err(e) => return Err(self.refuse(&e)),
            };
            if available == 0 {
                return Ok(skipped);
            }
            self.reader.consume(available);
            skipped = skipped.saturating_add(available as u64);
        }
    }

    fn refuse(&self, error: &std::io::Error) -> Refusal {
        let Some(packed) = self.packed else { return refuse_read(Path::new(&self.at), error) };
        let found = match error.kind() {
            ErrorKind::UnexpectedEof => "one that ends too early".to_string(),
            _ => error.to_string(),
        };
        Refusal::new(&self.at, format!("an intact {packed} file"), found, "copy or download it again")
    }
}

/// A text file by lines of bounded length.
pub(super) struct Lines {
    stream: Stream,
    buffer: Vec<u8>,
    number: usize,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), number: 0 }
    }

    /// The next line without its end, and its number counted from 1; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<(usize, &str)>> {
        self.buffer.clear();
        self.number += 1;
        let limit = LINE_BYTES as u64 + 1;
        let read = self.stream.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|e| self.stream.refuse(&e))?;
        if read == 0 {
            return Ok(None);
        }
        if read > LINE_BYTES {
            let expected = format!("a line of at most {LINE_BYTES} bytes");
            return Err(Refusal::new(self.place(), expected, "a longer one", "check that it is a text file"));
        }
        while matches!(self.buffer.last(), Some(b'\n' | b'\r')) {
            self.buffer.pop();
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some((self.number, line))),
            Err(e) => {
                let found = format!("a byte at column {} that is not", e.valid_up_to() + 1);
                Err(Refusal::new(self.place(), "UTF-8 text", found, "check that it is a text file"))
            }
        }
    }

    /// `FILE:LINE` of the line that was read last.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.stream.at, self.number)
    }

    /// How messages name the file.
    pub(super) fn at(&self) -> &str {
        self.stream.at()
    }
}

/// A field of a file as messages show it: in backticks, cut when long.
pub(super) fn quoted(field: &str) -> String {
    match field.char_indices().nth(40) {
        Some((end, _)) => format!("`{}…`", &field[..end]),
        None => format!("`{field}`"),
    }
}
