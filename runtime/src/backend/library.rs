//! Where ONNX Runtime's shared library is: `--ort-lib`, `ORT_DYLIB_PATH`, beside the executable, `$XDG_DATA_HOME/kd/`.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Exit, Refusal, Result};

/// The library to load. What the flag or the variable names is taken or refused, never passed over.
pub(super) fn find(flag: Option<&Path>) -> Result<PathBuf> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    for (at, path) in [("--ort-lib", flag.map(Path::to_path_buf)), ("ORT_DYLIB_PATH", variable.map(PathBuf::from))] {
        let Some(path) = path else { continue };
        return if path.is_file() { loadable(&path) } else { Err(missing(at, &[path])) };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").filter(|d| !d.is_empty()).map(PathBuf::from).or_else(home);
    let folders: Vec<PathBuf> = beside.into_iter().chain(data.map(|data| data.join("kd"))).collect();
    let name = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
    for folder in &folders {
        let plain = folder.join(&name);
        if plain.is_file() {
            return loadable(&plain);
        }
        if let Some(versioned) = newest(folder, &format!("{name}.")) {
            return loadable(&versioned);
        }
    }
    let tried: Vec<PathBuf> = folders.iter().map(|folder| folder.join(&name)).collect();
    Err(missing("backend ort", &tried))
}

/// The last, by name, of the files that begin with `prefix`: `libonnxruntime.so.1.32.0`.
fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let matching = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    matching.map(|entry| entry.path()).filter(|path| path.is_file()).max()
}

fn missing(at: &str, tried: &[PathBuf]) -> Refusal {
    let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
    let found = format!("none at {}", tried.join(", "));
    let action =
        "put it there, or name it with --ort-lib or ORT_DYLIB_PATH (it is inside the onnxruntime Python wheel)";
    Refusal::new(at, "ONNX Runtime's library", found, action).with_exit(Exit::Lacking)
}

/// Refuses a file for another processor: the loader would only say that there is no such file.
fn loadable(path: &Path) -> Result<PathBuf> {
    let mut head = [0; 20];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    let ours: Option<u16> = match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "arm" => Some(40),
        _ => None,
    };
    let machine = u16::from_le_bytes([head[18], head[19]]);
    if cfg!(target_os = "linux") && (read.is_err() || head[..4] != *b"\x7fELF" || ours.is_some_and(|m| m != machine)) {
        let found = match read {
            Ok(()) if head[..4] == *b"\x7fELF" => format!("one for ELF machine {machine}"),
            _ => "another file".into(),
        };
        let expected = format!("a shared library for {}", std::env::consts::ARCH);
        let refusal = Refusal::new(path.display(), expected, found, "take the library of this machine's wheel");
        return Err(refusal.with_exit(Exit::Lacking));
    }
    fs::canonicalize(path).map_err(|e| crate::files::refuse_read(path, &e))
}
