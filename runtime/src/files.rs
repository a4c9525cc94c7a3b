//! Reading and writing files so that nothing half-written is ever seen under its own name.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Exit, Refusal, Result};

/// Reads a whole file; refuses devices and pipes, which may have no end.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let kind = fs::metadata(path).map_err(|e| refuse_read(path, &e))?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(Refusal::new(path.display(), "a regular file", "a device or a pipe", "save it as a file first"));
    }
    fs::read(path).map_err(|e| refuse_read(path, &e))
}

/// Reads a whole text file.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        let found = format!("an invalid byte at offset {}", e.utf8_error().valid_up_to());
        Refusal::new(path.display(), "UTF-8 text", found, "save it as UTF-8")
    })
}

/// The refusal for a file that cannot be read.
pub fn refuse_read(path: &Path, error: &std::io::Error) -> Refusal {
    let action = match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => "allow reading it",
        _ => "check the path and the disk",
    };
    Refusal::new(path.display(), "a readable file", error, action)
}

/// The refusal for a file that cannot be written; a full disk is this machine's lack ([`Exit::Lacking`]).
pub fn refuse_write(path: &Path, error: &std::io::Error) -> Refusal {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    let refusal = Refusal::new(
        path.display(),
        "a place that can be written",
        error,
        if full { "free disk space; files that were complete are intact" } else { "choose another place" },
    );
    if full { refusal.with_exit(Exit::Lacking) } else { refusal }
}

/// Writes a file under a temporary name in the same folder, syncs it, and renames it into place.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_sibling(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = renamed {
        let _ = fs::remove_file(&temporary);
        return Err(refuse_write(path, &e));
    }
    sync_parent(path);
    Ok(())
}

/// A folder that is filled under a temporary name and appears under its own only when it is complete.
/// Dropped without [`NewFolder::finish`], it vanishes.
pub struct NewFolder {
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl NewFolder {
    /// Starts a folder. Refuses a `path` that exists, unless `force`: then the old folder is replaced at the end.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        if !force && path.symlink_metadata().is_ok() {
            let found = if path.is_dir() { "a folder" } else { "a file" };
            let action = "choose another --output, or --force to replace it";
            return Err(Refusal::new(path.display(), "an output folder that does not exist", found, action));
        }
        let temporary = temporary_sibling(path);
        if temporary.symlink_metadata().is_ok() {
            // Left by a process of this number that was killed.
            fs::remove_dir_all(&temporary).map_err(|e| refuse_write(&temporary, &e))?;
        }
        fs::create_dir_all(&temporary).map_err(|e| refuse_write(path, &e))?;
        Ok(Self { temporary, path: path.to_path_buf(), finished: false })
    }

    /// Where to write until it is finished.
    #[expect(clippy::misnamed_getters, reason = "the folder's own name is not there yet")]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name.
    pub fn finish(mut self) -> Result<()> {
        if self.path.is_dir() {
            let old = temporary_sibling(&self.path).with_extension("old.tmp");
            if old.symlink_metadata().is_ok() {
                fs::remove_dir_all(&old).map_err(|e| refuse_write(&old, &e))?;
            }
            fs::rename(&self.path, &old).map_err(|e| refuse_write(&self.path, &e))?;
            if let Err(e) = fs::rename(&self.temporary, &self.path) {
                let _ = fs::rename(&old, &self.path);
                return Err(refuse_write(&self.path, &e));
            }
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(&self.temporary, &self.path).map_err(|e| refuse_write(&self.path, &e))?;
        }
        self.finished = true;
        sync_parent(&self.path);
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn temporary_sibling(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Makes a rename last through a power cut, where the system can; a folder that cannot be synced is no error.
fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(parent) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_not_in_a_new_folder() {
        let path = std::env::temp_dir().join(format!("kd-left-{}", std::process::id()));
        let killed = NewFolder::create(&path, false).expect("a folder");
        fs::write(killed.path().join("old"), "old").expect("room");
        std::mem::forget(killed);
        let new = NewFolder::create(&path, false).expect("a folder");
        fs::write(new.path().join("new"), "new").expect("room");
        new.finish().expect("a folder");
        let names = fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["new"]);
        fs::remove_dir_all(&path).expect("what was made");
    }
}
