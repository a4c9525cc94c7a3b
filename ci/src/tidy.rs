//! `cargo xtask tidy`: house rules that a program can check.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::licences::{list, metadata};
use crate::metrics::tree;
use crate::sources::{Source, all, unsafe_items, unsafes};
use crate::{Failure, documents};

/// Which crate of ours may be built from which, by design.
const ARROWS: &[(&str, &[&str])] = &[
    ("kd-runtime", &[]),
    ("kd-exporter", &["kd-runtime"]),
    ("kd-trainer", &["kd-runtime", "kd-exporter"]),
    ("kd-benchmarks", &["kd-runtime", "kd-exporter", "kd-trainer"]),
    ("xtask", &[]),
];

/// Inside `runtime/src`: a room and the rooms that it must not name.
const ROOMS: &[(&str, &[&str])] = &[
    ("graph", &["onnx", "engine", "backend", "measure", "cli", "report", "budget", "data", "contract", "files"]),
    ("ops", &["onnx", "engine", "backend", "measure", "cli", "report", "budget", "data", "contract", "files"]),
    ("onnx", &["engine", "backend", "measure", "cli", "report", "budget", "data", "contract", "files"]),
    ("engine", &["onnx", "backend", "measure", "cli", "report", "budget", "data", "contract", "files"]),
    ("backend", &["measure", "cli", "report", "budget"]),
    ("measure", &["cli", "report"]),
    ("report", &["cli"]),
];

/// Where `unsafe` may stand: kernels, what lends memory, signals and counters, and tests of them.
const UNSAFE: &[&str] = &[
    "runtime/src/engine/arena.rs",
    "runtime/src/engine/kernels/",
    "runtime/src/engine/mod.rs",
    "runtime/src/measure/",
    "runtime/src/ops/frame.rs",
    "runtime/tests/",
    "trainer/src/gpu/",
    "trainer/src/ops/",
    "trainer/src/teacher/cache.rs",
    "trainer/tests/",
    "firmware/src/main.rs",
];

const MOST_LINES: usize = 600;

/// Runs the command.
pub fn run(args: &[String]) -> Result<(), Failure> {
    match args {
        [] => Ok(check()?),
        _ => Err(format!("tidy: expected no argument, found `{}`", args.join(" ")).into()),
    }
}

/// All rules; all complaints, a line each.
pub fn check() -> Result<(), String> {
    let sources = all()?;
    let mut complaints = files(&sources);
    complaints.extend(rooms(&sources));
    complaints.extend(arrows(&metadata(&["--no-deps"])?));
    complaints.extend(heavy_crates()?);
    complaints.extend(documents::check()?);
    println!("tidy: {} files", sources.len());
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

/// Sizes, `unsafe`, and what is left to do.
fn files(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let unfinished = [concat!("to", "do!("), concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimplemen", "ted!(")];
    for source in sources {
        let path = &source.path;
        if source.lines() > MOST_LINES {
            complaints
                .push(format!("{path}: expected at most {MOST_LINES} lines, found {}; split by job", source.lines()));
        }
        let allowed = UNSAFE.iter().any(|place| path.starts_with(place));
        for i in unsafe_items(&source.text).into_iter().filter(|_| !allowed) {
            complaints.push(format!("{path}:{}: an unsafe item outside kernels and arena; use what they offer", i + 1));
        }
        for (i, said) in unsafes(&source.text) {
            if !allowed {
                complaints.push(format!("{path}:{}: unsafe outside kernels and arena; use what they offer", i + 1));
            } else if !said {
                complaints.push(format!("{path}:{}: expected a SAFETY comment above, found none", i + 1));
            }
        }
        for (i, line) in source.text.lines().enumerate() {
            if let Some(word) = unfinished.iter().find(|word| line.contains(**word)) {
                complaints.push(format!("{path}:{}: found `{word}`; do it or leave it out", i + 1));
            }
        }
    }
    complaints
}

/// The order of rooms inside the runtime.
fn rooms(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (room, forbidden) in ROOMS {
        let (folder, file) = (format!("runtime/src/{room}/"), format!("runtime/src/{room}.rs"));
        for source in sources.iter().filter(|s| s.path.starts_with(&folder) || s.path == file) {
            for (i, line) in code_lines(&source.text) {
                let names = |other: &&&str| line.contains(&format!("crate::{other}"));
                if let Some(other) = forbidden.iter().find(names) {
                    complaints.push(format!("{}:{}: `{room}` must not know `{other}`", source.path, i + 1));
                }
            }
        }
    }
    complaints
}

/// Lines before the tests of a file, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The arrows between our crates, and candle where it must not be.
fn arrows(metadata: &Value) -> Vec<String> {
    let packages = list(&metadata["packages"]);
    let mut complaints = Vec::new();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            complaints
                .push(format!("{name}: expected a crate of the design, found another; say in tidy.rs who it may know"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let other = dependency["name"].as_str().unwrap_or("?");
            if ours.contains(other) && !allowed.contains(&other) {
                complaints.push(format!("{name}: must not depend on {other}"));
            }
            if name == "kd-exporter" && other.starts_with("candle") {
                complaints.push(format!("{name}: must not name {other}"));
            }
        }
    }
    complaints
}

/// What the default build of the runtime must not be made of, build scripts' own crates included.
fn heavy_crates() -> Result<Vec<String>, String> {
    let built = tree("kd-runtime", &["-e", "normal,build"])?;
    let forbidden = ["candle", "prost", "tokenizers", "ort ", "protoc"];
    let heavy = built.iter().filter(|name| forbidden.iter().any(|word| name.starts_with(word)));
    Ok(heavy.map(|name| format!("kd-runtime: expected a default build without it, found {name}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn our_own_tree_is_tidy() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the workspace");
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let block = concat!("unsafe", " { f() }");
        let said = format!("// SAFETY: nobody else holds it.\n{block}\n");
        let function = concat!("pub unsafe", " fn f() {}\n");
        let of_functions = concat!("type F = unsafe", " extern \"C\" fn(i32);\n");
        let foreign = concat!("unsafe", " extern \"C\" {}\n");
        let todo = concat!("to", "do!()");
        let long = "x\n".repeat(601);
        #[rustfmt::skip]
        let cases = [
            ("unsafe out of its place", source("exporter/src/a.rs", &said), 1),
            ("unsafe without a reason", source("runtime/src/engine/arena.rs", block), 1),
            ("unsafe with a reason",    source("runtime/src/engine/arena.rs", &said), 0),
            ("an unsafe function",      source("exporter/src/a.rs", function), 1),
            ("a foreign block",         source("exporter/src/a.rs", foreign), 1),
            ("one among the kernels",   source("trainer/src/ops/a.rs", function), 0),
            ("a type of functions",     source("exporter/src/a.rs", of_functions), 0),
            ("something left to do",    source("exporter/src/a.rs", todo), 1),
            ("a long file",             source("exporter/src/a.rs", &long), 1),
            ("the graph knows onnx",    source("runtime/src/graph/a.rs", "use crate::onnx::read;"), 1),
            ("onnx knows the graph",    source("runtime/src/onnx/a.rs", "use crate::graph::Graph;"), 0),
            ("a comment names onnx",    source("runtime/src/graph/a.rs", "// as crate::onnx does"), 0),
        ];
        let failed: Vec<String> = cases
            .into_iter()
            .map(|(name, source, expected)| {
                let source = [source];
                (name, files(&source).len() + rooms(&source).len(), expected)
            })
            .filter(|(_, found, expected)| found != expected)
            .map(|(name, found, expected)| format!("{name}: expected {expected}, found {found}"))
            .collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    #[test]
    fn an_arrow_upward_is_found() {
        let package = |name: &str, on: &str| serde_json::json!({ "name": name, "dependencies": [{ "name": on }] });
        let metadata = |packages: &[Value]| serde_json::json!({ "packages": packages });
        let good = metadata(&[package("kd-runtime", "libm"), package("kd-exporter", "kd-runtime")]);
        assert_eq!(arrows(&good), Vec::<String>::new());
        let bad = metadata(&[package("kd-runtime", "kd-exporter"), package("kd-exporter", "candle-core")]);
        assert_eq!(arrows(&bad).len(), 2);
    }
}
