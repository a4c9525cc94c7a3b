//! Licences and sources of every crate in Cargo.lock, as `cargo metadata` tells them.

use std::process::Command;

use serde_json::Value;

use crate::shell::capture;

/// Licences that may be combined with MIT OR Apache-2.0 in what we ship.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
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

/// Refuses crates from elsewhere than crates.io and this repository, and licences that are not allowed.
pub fn check() -> Result<(), String> {
    let metadata = metadata(&[])?;
    let packages = list(&metadata["packages"]);
    let mut complaints = Vec::new();
    for package in packages {
        let name =
            format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"));
        match package["source"].as_str() {
            None | Some(REGISTRY) => {}
            Some(source) => complaints.push(format!("{name}: expected a crate of crates.io, found {source}")),
        }
        match package["license"].as_str() {
            Some(license) if allowed(license) => {}
            license => {
                complaints.push(format!("{name}: expected an allowed licence, found {}", license.unwrap_or("none")))
            }
        }
    }
    println!("licences and sources: {} crates", packages.len());
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
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
    use super::allowed;

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
