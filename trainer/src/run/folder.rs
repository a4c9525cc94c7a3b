//! The run folder: claimed by one process at a time, there from the start under its own name so that a kill can be
//! resumed, and taken away again where a run is refused before it began.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kd_runtime::files::{self, refuse_write};
use kd_runtime::{Refusal, Result};

/// What to do with a folder that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it.
    Refuse,
    /// Go on in it.
    Resume,
    /// Replace it, if it is a run folder.
    Replace,
}

/// How far a claimed folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of a run is in it that counts.
    New,
    /// A run began in it.
    Begun,
    /// A run ended in it: its evidence is there.
    Finished,
}

/// The resolved recipe, the first file of a run.
pub const RECIPE: &str = "recipe.toml";
/// What the run was made of, its last file.
pub const EVIDENCE: &str = "evidence.json";
/// Held by the process that writes the folder.
pub const LOCK: &str = "lock";

/// A claimed run folder. Dropped before [`Folder::begin`], what [`Folder::claim`] made vanishes.
pub struct Folder {
    path: PathBuf,
    state: State,
    /// Folders that were made, outermost first.
    made: Vec<PathBuf>,
    begun: bool,
    /// None where another process has claimed it: then nothing is written.
    lock: Option<File>,
}

impl Folder {
    /// Claims a folder and makes it, with its parents, if it is not there.
    pub fn claim(path: &Path, existing: Existing) -> Result<Self> {
        // Before anything is made.
        let is_there = path.symlink_metadata().is_ok();
        if is_there {
            inspect(path, existing)?;
            if existing == Existing::Refuse {
                return Err(exists(path, &entries(path)?));
            }
        }
        let made = make(path)?;
        // And once nobody else can change it: a run may have begun, and even ended, in between.
        let claimed = lock(path).and_then(|lock| Ok((lock, inspect(path, existing)?)));
        match claimed {
            Ok((lock, state)) => Ok(Self { path: path.to_path_buf(), state, made, begun: false, lock: Some(lock) }),
            Err(refusal) => {
                take_away(&made);
                Err(refusal)
            }
        }
    }

    /// The folder of another process, which alone writes: what is written here goes nowhere.
    pub fn of_another(path: &Path) -> Self {
        Self { path: path.to_path_buf(), state: State::New, made: Vec::new(), begun: false, lock: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it was when it was claimed.
    pub fn state(&self) -> State {
        self.state
    }

    /// From here on it is a run's folder: what is replaced goes away, and the recipe is written.
    pub fn begin(&mut self, recipe: &str) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.begun = true;
        sweep(&self.path)?;
        if self.state == State::New {
            self.clear()?;
            files::write_atomic(&self.path.join(RECIPE), recipe.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file of the run, whole or not at all; `name` may name a folder in it, which is made.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| refuse_write(parent, &e))?;
        }
        files::write_atomic(&path, bytes)
    }

    /// Removes all but the lock; the recipe last, so that a kill leaves what is still known as a run folder.
    fn clear(&self) -> Result<()> {
        let mut names = entries(&self.path)?;
        names.sort_by_key(|name| name == RECIPE);
        for name in names.iter().filter(|name| *name != LOCK) {
            let path = self.path.join(name);
            let removed =
                if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| refuse_write(&path, &e))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.begun && self.made.contains(&self.path) {
            let _ = fs::remove_file(self.path.join(LOCK));
            take_away(&self.made);
        }
    }
}

/// Looks at what is there without touching it.
fn inspect(path: &Path, existing: Existing) -> Result<State> {
    if !path.is_dir() {
        return Err(Refusal::new(path.display(), "a folder for the run", "a file", "choose another --output"));
    }
    let names = entries(path)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    // A kill may have come while the recipe was written.
    let is_blank = names.iter().all(|name| name == LOCK || is_half_written(name));
    match existing {
        Existing::Refuse if !is_blank => Err(exists(path, &names)),
        _ if !is_blank && !has(RECIPE) => {
            let found = format!("{} files and folders, but no {RECIPE}", names.len());
            Err(Refusal::new(path.display(), "a run folder", found, "choose another --output"))
        }
        Existing::Resume if has(EVIDENCE) => Ok(State::Finished),
        Existing::Resume if has(RECIPE) => Ok(State::Begun),
        _ => Ok(State::New),
    }
}

fn exists(path: &Path, names: &[String]) -> Refusal {
    let action = "choose another --output, go on with --resume, or replace it with --force";
    let found = format!("{} files and folders", names.len());
    Refusal::new(path.display(), "a run folder that does not exist", found, action)
}

fn entries(path: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()
    });
    names.map_err(|e| files::refuse_read(path, &e))
}

/// Makes a folder and its parents; says which were made, outermost first.
fn make(path: &Path) -> Result<Vec<PathBuf>> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && path.symlink_metadata().is_err();
    let mut missing: Vec<_> = path.ancestors().take_while(is_missing).map(Path::to_path_buf).collect();
    missing.reverse();
    let mut made = Vec::new();
    for folder in missing {
        match fs::create_dir(&folder) {
            Ok(()) => made.push(folder),
            // Another run made it at the same moment: the lock decides.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => {
                take_away(&made);
                return Err(refuse_write(path, &e));
            }
        }
    }
    Ok(made)
}

/// Whether a file's name is that of one which was not yet whole.
fn is_half_written(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Removes what a kill left half-written: files under temporary names, in the folder and the folders in it.
fn sweep(path: &Path) -> Result<()> {
    let mut left = vec![path.to_path_buf()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| refuse_write(&folder, &e))? {
            let entry = entry.map_err(|e| refuse_write(&folder, &e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(|e| refuse_write(&folder, &e))?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() && is_half_written(&name) {
                fs::remove_file(entry.path()).map_err(|e| refuse_write(&entry.path(), &e))?;
            }
        }
    }
    Ok(())
}

/// Removes what [`make`] made, as far as nothing else is in it.
fn take_away(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

fn lock(path: &Path) -> Result<File> {
    let at = path.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&at);
    let file = file.map_err(|e| refuse_write(path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let action = "wait for it, or choose another --output";
            Err(Refusal::new(path.display(), "a folder that no other run writes", "one that is in use", action))
        }
        Err(TryLockError::Error(e)) => Err(refuse_write(&at, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_while_the_recipe_is_written_leaves_a_folder_that_can_be_taken() {
        let path = std::env::temp_dir().join(format!("kd-folder-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        for name in [LOCK, ".recipe.toml.7.tmp"] {
            fs::write(path.join(name), "").expect("a file");
        }
        let mut folder = Folder::claim(&path, Existing::Resume).expect("claimed");
        assert_eq!(folder.state(), State::New);
        folder.begin("[run]").expect("begun");
        let mut left = entries(&path).expect("entries");
        left.sort();
        assert_eq!(left, [LOCK, RECIPE]);
        drop(folder);
        fs::write(path.join("thesis.tex"), "").expect("a file");
        fs::remove_file(path.join(RECIPE)).expect("removed");
        assert!(Folder::claim(&path, Existing::Resume).is_err());
        fs::remove_dir_all(&path).expect("removed");
    }

    /// What a second look under the lock sees of a run that began, or even ended, since the first one.
    #[test]
    fn a_run_that_came_in_between_is_not_cleared() {
        let path = std::env::temp_dir().join(format!("kd-folder-between-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        fs::write(path.join(LOCK), "").expect("a file");
        assert_eq!(inspect(&path, Existing::Refuse).expect("blank"), State::New);
        fs::write(path.join(RECIPE), "").expect("a file");
        assert!(inspect(&path, Existing::Refuse).is_err());
        assert_eq!(inspect(&path, Existing::Resume).expect("a run"), State::Begun);
        fs::write(path.join(EVIDENCE), "").expect("a file");
        assert!(inspect(&path, Existing::Refuse).is_err());
        assert_eq!(inspect(&path, Existing::Resume).expect("a run"), State::Finished);
        fs::remove_dir_all(&path).expect("removed");
    }
}
