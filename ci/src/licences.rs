//! Licences and sources of every crate in Cargo.lock, ours and the firmware's, as `cargo metadata` tells them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::shell::capture;
use crate::sources::read;

/// Licences that may be combined with MIT OR Apache-2.0 in what we ship.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // Of the certificates that `--features cloud` trusts: data, which may be passed on with this licence's text.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What `cargo metadata` says about the workspace.
pub fn metadata(more: &[&str]) -> Result<Value, String> {
    let text = capture(Command::new("cargo").args(["metadata", "--format-version", "1", "--locked"]).args(more))?;
    serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))
}

/// The elements of a list in JSON; none where it is missing.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Workspaces: what `cargo metadata` takes for each, and its lock file.
const WORKSPACES: &[(&[&str], &str)] =
    &[(&[], "Cargo.lock"), (&["--manifest-path", "firmware/Cargo.toml"], "firmware/Cargo.lock")];

/// Refuses crates from elsewhere than crates.io and this repository, and licences that are not allowed, of every crate that a
/// lock file names: those of optional features and of other systems, too.
pub fn check() -> Result<(), String> {
    let (mut complaints, mut crates) = (Vec::new(), BTreeSet::new());
    for (manifest, lock) in WORKSPACES {
        // Which crates are listed depends on the features; what the firmware takes of ours is in its own lock.
        let metadata = metadata(&[*manifest, &["--all-features"]].concat())?;
        let packages = list(&metadata["packages"]);
        complaints.extend(packages.iter().flat_map(judge));
        complaints.extend(unseen(&read(Path::new(lock))?, packages).iter().map(|name| {
            format!("{lock}: {name}: expected in what cargo metadata lists, found it nowhere; ask for more features")
        }));
        crates.extend(packages.iter().map(named));
    }
    println!("licences and sources: {} crates", crates.len());
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

/// Name and version of a package.
fn named(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or("?").to_string();
    format!("{} {}", text("name"), text("version"))
}

/// What is wrong with a package's source and licence.
fn judge(package: &Value) -> Vec<String> {
    let (name, mut complaints) = (named(package), Vec::new());
    match package["source"].as_str() {
        None | Some(REGISTRY) => {}
        Some(source) => complaints.push(format!("{name}: expected a crate of crates.io, found {source}")),
    }
    match package["license"].as_str() {
        Some(license) if allowed(license) => {}
        license => complaints.push(format!("{name}: expected an allowed licence, found {}", license.unwrap_or("none"))),
    }
    complaints
}

/// Crates of a lock file that are not among the packages.
fn unseen(lock: &str, packages: &[Value]) -> Vec<String> {
    let seen: BTreeSet<String> = packages.iter().map(named).collect();
    let quoted = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_string());
    let lines: Vec<&str> = lock.lines().collect();
    let crates = lines
        .windows(2)
        .filter_map(|pair| Some(format!("{} {}", quoted(pair[0], "name = ")?, quoted(pair[1], "version = \"")?)));
    crates.filter(|name| !seen.contains(name)).collect()
}

/// Whether an SPDX expression can be met with allowed licences: `OR`, `AND`, brackets; the old `/` means `OR`.
fn allowed(expression: &str) -> bool {
    let spaced =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "\u{1}WITH\u{1}");
    let words: Vec<String> =
        spaced.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('\u{1}', " ")).collect();
    let mut at = 0;
    either(&words, &mut at) && at == words.len()
}

fn either(words: &[String], at: &mut usize) -> bool {
    let mut met = both(words, at);
    while words.get(*at).is_some_and(|word| word == "OR") {
        *at += 1;
        met |= both(words, at);
    }
    met
}

fn both(words: &[String], at: &mut usize) -> bool {
    let mut met = one(words, at);
    while words.get(*at).is_some_and(|word| word == "AND") {
        *at += 1;
        met &= one(words, at);
    }
    met
}

fn one(words: &[String], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if word != "(" {
        return ALLOWED.contains(&word.as_str());
    }
    let met = either(words, at);
    let closed = words.get(*at).is_some_and(|word| word == ")");
    *at += 1;
    met && closed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_crate_of_a_lock_file_must_be_seen_and_judged() {
        let lock = "version = 4\n\n[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\nsource = \"x\"\n\n[[package]]\nname = \
                    \"libm\"\nversion = \"0.2.15\"\n";
        let package = |name: &str, version: &str, license: &str, source: &str| json!({ "name": name, "version": version, "license": license, "source": source });
        let libm = package("libm", "0.2.15", "MIT", REGISTRY);
        assert_eq!(unseen(lock, std::slice::from_ref(&libm)), ["ring 0.17.14"]);
        let ring = package("ring", "0.17.14", "Apache-2.0 AND ISC", REGISTRY);
        assert!(unseen(lock, &[libm.clone(), ring.clone()]).is_empty());
        assert!(judge(&libm).is_empty() && judge(&ring).is_empty());
        assert_eq!(judge(&package("gpl", "1.0.0", "GPL-3.0", "git+https://example.org")).len(), 2);
    }

    #[test]
    fn the_crates_of_both_lock_files_are_read() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for (_, lock) in WORKSPACES {
            let text = read(&Path::new(here).join(lock)).unwrap();
            assert!(!unseen(&text, &[]).is_empty(), "{lock}: its crates are not read");
        }
    }

    #[test]
    fn an_expression_is_allowed_if_its_terms_are() {
        let cases = [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
            ("(MIT", false),
            ("MIT)", false),
            ("", false),
        ];
        let failed: Vec<&str> =
            cases.iter().filter(|(text, expected)| allowed(text) != *expected).map(|c| c.0).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
