//! Running other programs; an error is one line that names the command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The folder that the command was given in, where it is another than the workspace.
static ELSEWHERE: OnceLock<PathBuf> = OnceLock::new();

/// Goes to the workspace, which paths of this crate are relative to. Paths of the command line stay what they were: [`given`].
pub fn enter(workspace: &Path) -> Result<(), String> {
    let here = std::env::current_dir().map_err(|e| format!("current folder: {e}"))?;
    std::env::set_current_dir(workspace).map_err(|e| format!("{}: {e}", workspace.display()))?;
    if workspace.canonicalize().ok() != here.canonicalize().ok() {
        ELSEWHERE.get_or_init(|| here);
    }
    Ok(())
}

/// A path of the command line, as it is named from the workspace.
pub fn given(path: &str) -> String {
    from(ELSEWHERE.get().map(PathBuf::as_path), path)
}

fn from(elsewhere: Option<&Path>, path: &str) -> String {
    elsewhere.map_or_else(|| path.to_string(), |folder| folder.join(path).to_string_lossy().into_owned())
}

/// Cargo's folder of what is built.
pub fn target() -> PathBuf {
    target_of(std::env::var_os("CARGO_TARGET_DIR"))
}

fn target_of(named: Option<OsString>) -> PathBuf {
    named.filter(|name| !name.is_empty()).map_or_else(|| "target".into(), PathBuf::from)
}

/// A program that was built with optimization, by its absolute path.
pub fn built(name: &str) -> Result<PathBuf, String> {
    std::path::absolute(target().join("release").join(name)).map_err(|e| format!("{name}: {e}"))
}

/// Runs a command with its output shown.
pub fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Runs a command and gives its standard output as text.
pub fn capture(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}", shown(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{}: expected text, found other bytes", shown(command)))
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_where_cargo_puts_them() {
        assert_eq!(target_of(None), Path::new("target"));
        assert_eq!(target_of(Some("".into())), Path::new("target"));
        assert_eq!(target_of(Some("/cache/kd".into())), Path::new("/cache/kd"));
        let built = built("kd-train").unwrap();
        assert!(built.is_absolute() && built.ends_with("release/kd-train"), "{}", built.display());
    }

    #[test]
    fn a_path_given_elsewhere_names_the_same_file() {
        assert_eq!(from(None, "budgets/tight.toml"), "budgets/tight.toml");
        assert_eq!(from(Some(Path::new("/home/me")), "tight.toml"), "/home/me/tight.toml");
        assert_eq!(from(Some(Path::new("/home/me")), "/etc/tight.toml"), "/etc/tight.toml");
    }
}
