//! Tar archives (POSIX ustar, with the long names of GNU and pax), gzip or not, entry by entry.

use std::path::Path;

use super::labelled::FILE_BYTES;
use super::stream::Stream;
use crate::error::{Refusal, Result};

const BLOCK: usize = 512;

/// Longest name, or pax record, that is read.
const NAME_BYTES: u64 = 1 << 16;

/// What is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Bytes.
    File,
    /// A folder.
    Folder,
    /// A link, a device, or a file in a form that is not read.
    Other,
}

/// An archive.
pub(super) struct Tar {
    stream: Stream,
    /// Bytes of the entry that was named last, and how many of them fill its last block.
    left: u64,
    fill: u64,
    header: [u8; BLOCK],
}

impl Tar {
    /// Opens it at its start.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { stream: Stream::open(path)?, left: 0, fill: 0, header: [0; BLOCK] })
    }

    /// How messages name it.
    pub(super) fn at(&self) -> &str {
        self.stream.at()
    }

    /// The next entry and its name; `None` at the end.
    pub(super) fn next(&mut self, name: &mut String) -> Result<Option<Entry>> {
        name.clear();
        loop {
            self.skip()?;
            let read = self.stream.fill(&mut self.header)?;
            if read == 0 {
                return Err(self.refuse("one that ends without the blocks of zeros that close a tar: it is cut off"));
            }
            // The first of two: whatever was packed came before it.
            if self.header.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            if read < BLOCK {
                return Err(self.refuse("one that ends within a header"));
            }
            if self.octal(148, 8) != Some(self.checksum()) {
                return Err(self.refuse("a header whose checksum differs"));
            }
            let size = self.octal(124, 12).ok_or_else(|| self.refuse("a size that is no number"))?;
            (self.left, self.fill) = (size, size.next_multiple_of(BLOCK as u64) - size);
            match self.header[156] {
                // The name of the next entry, which is too long for its header.
                b'L' => *name = self.text()?.trim_end_matches('\0').to_string(),
                b'x' => {
                    let records = self.text()?;
                    if let Some((_, path)) = records.lines().filter_map(|line| line.split_once(" path=")).next_back() {
                        *name = path.to_string();
                    }
                }
                // The name that a link has, and what holds for all entries.
                b'K' | b'g' => {}
                kind => {
                    if name.is_empty() {
                        *name = self.name();
                    }
                    return Ok(Some(match kind {
                        b'5' => Entry::Folder,
                        // As before there was a kind for them.
                        b'0' | 0 if name.ends_with('/') => Entry::Folder,
                        b'0' | 0 => Entry::File,
                        _ => Entry::Other,
                    }));
                }
            }
        }
    }

    /// The bytes of the file that was named last.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.left > FILE_BYTES {
            let (expected, found) = (format!("a file of at most {FILE_BYTES} bytes"), self.left);
            return Err(Refusal::new(self.at(), expected, found, "make it smaller, or take it out"));
        }
        bytes.clear();
        while self.left > 0 {
            // Grows with what is there, not with what was claimed.
            let (before, more) = (bytes.len(), self.left.min(1 << 20));
            bytes.resize(before + more as usize, 0);
            if self.stream.fill(&mut bytes[before..])? < more as usize {
                return Err(self.refuse("one that ends within a file"));
            }
            self.left -= more;
        }
        Ok(())
    }

    /// Skips what is left of the entry.
    fn skip(&mut self) -> Result<()> {
        let mut left = std::mem::take(&mut self.left).saturating_add(std::mem::take(&mut self.fill));
        let mut buffer = [0; 8 * BLOCK];
        while left > 0 {
            let want = left.min(buffer.len() as u64);
            if self.stream.fill(&mut buffer[..want as usize])? < want as usize {
                return Err(self.refuse("one that ends within a file"));
            }
            left -= want;
        }
        Ok(())
    }

    /// The entry as text.
    fn text(&mut self) -> Result<String> {
        if self.left > NAME_BYTES {
            return Err(self.refuse("a name that is too long"));
        }
        let mut bytes = Vec::new();
        self.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The name in the header, with what stands before it in the field of 1988.
    fn name(&self) -> String {
        let field = |at: usize, n: usize| {
            let bytes = &self.header[at..at + n];
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(n);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let prefix = if self.header[257..].starts_with(b"ustar\0") { field(345, 155) } else { String::new() };
        if prefix.is_empty() { field(0, 100) } else { format!("{prefix}/{}", field(0, 100)) }
    }

    fn octal(&self, at: usize, n: usize) -> Option<u64> {
        let text = std::str::from_utf8(&self.header[at..at + n]).ok()?;
        u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    }

    /// The sum of the header's bytes, its own field taken as blanks.
    fn checksum(&self) -> u64 {
        let sum: u64 = self.header.iter().map(|&byte| u64::from(byte)).sum();
        let own: u64 = self.header[148..156].iter().map(|&byte| u64::from(byte)).sum();
        sum - own + 8 * u64::from(b' ')
    }

    fn refuse(&self, found: &str) -> Refusal {
        Refusal::new(self.at(), "an intact tar archive", found, "copy or pack it again")
    }
}
