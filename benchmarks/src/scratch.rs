//! A folder for what is needed only while a program runs.

use std::path::{Path, PathBuf};

use kd_runtime::{Result, files};

/// A folder that goes, with what is in it, when this is dropped: also where the work in it is refused.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one of this process, for `what`.
    pub fn new(what: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("kd-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| files::refuse_write(&path, &e))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left: nothing depends on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_runtime::Refusal;

    #[test]
    fn nothing_is_left_behind_where_the_work_is_refused() {
        let mut place = PathBuf::new();
        let mut work = || -> Result<()> {
            let scratch = Scratch::new("refused-work")?;
            place = scratch.path().to_path_buf();
            std::fs::write(place.join("file"), "x").unwrap();
            assert!(place.is_dir());
            Err(Refusal::new("work", "an end", "none", "try again"))
        };
        assert!(work().is_err());
        assert!(!place.exists());
    }
}
