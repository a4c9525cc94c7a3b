//! Our own source files, as `tidy` and `metrics` read them.

use std::fs;
use std::path::Path;

/// A file of Rust source.
pub struct Source {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl Source {
    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }
}

/// Folders of our own crates.
const ROOMS: &[&str] = &["runtime", "exporter", "trainer", "benchmarks", "ci", "firmware"];

/// Every `.rs` file of ours, sorted by path.
pub fn all() -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for room in ROOMS {
        collect(Path::new(room), &mut sources)?;
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(folder: &Path, into: &mut Vec<Source>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(Source { path: slashed(&path), text: read(&path)? });
        }
    }
    Ok(())
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Lines that begin an `unsafe` function, trait or foreign block, counted from 0. Why it is sound stands where it is called.
pub fn unsafe_items(text: &str) -> Vec<usize> {
    let begins = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        let is = |item: &str| code.contains(&format!("{}{item}", concat!("unsafe", " ")));
        // A type of functions has a bracket where a function has its name.
        is("fn ") || is("trait ") || (is("extern ") && !code.contains("fn("))
    };
    text.lines().enumerate().filter(|(_, line)| begins(line)).map(|(i, _)| i).collect()
}

/// Lines with an `unsafe` block or implementation, counted from 0, and whether a comment just above says why it is sound.
pub fn unsafes(text: &str) -> Vec<(usize, bool)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let block = concat!("unsafe", " {");
    let implementation = concat!("unsafe", " impl");
    let is_unsafe = |line: &str| !line.starts_with("//") && (line.contains(block) || line.starts_with(implementation));
    let mut found = Vec::new();
    for (i, _) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
        // The comment may stand above the statement of which the block is a part, or above a run of such blocks.
        let above = lines[i.saturating_sub(12)..i].iter().rev().take_while(|line| !line.is_empty());
        found.push((i, above.clone().any(|line| line.to_uppercase().contains("SAFETY"))));
    }
    found
}
