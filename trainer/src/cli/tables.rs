//! `kd-train archs`: the table of architectures as text or JSON.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use kd_runtime::report::json;
use kd_runtime::{Result, files};
use serde::Serialize;

use super::args::{Format, List};
use crate::options::Spec;
use crate::zoo::table::ARCHS;

/// A table as JSON.
#[derive(Serialize)]
struct Table {
    schema: &'static str,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    options: Vec<Row>,
}

/// One option.
#[derive(Serialize)]
pub struct Row {
    /// Its key.
    pub name: &'static str,
    /// What it does.
    pub about: String,
    /// What it may be.
    pub values: String,
    /// What holds when it is left out: the value as a recipe writes it, or words.
    pub default: String,
}

/// Prints the architectures.
pub fn archs(args: &List, out: &mut dyn Write) -> Result<()> {
    let entries = ARCHS.iter().map(|arch| entry(arch.name, arch.about, arch.options)).collect();
    print(args, Table { schema: "kd.archs/1", entries }, out)
}

fn entry(name: &'static str, about: &'static str, options: &[Spec]) -> Entry {
    Entry { name, about, options: rows(options) }
}

/// Options as rows.
pub fn rows(options: &[Spec]) -> Vec<Row> {
    let row = |spec: &Spec| Row {
        name: spec.name,
        about: spec.about.into(),
        values: spec.kind.words(),
        default: spec.kind.left_out(),
    };
    options.iter().map(row).collect()
}

fn print(args: &List, table: Table, out: &mut dyn Write) -> Result<()> {
    let text = match args.format {
        Format::Text => text(&table),
        Format::Json => json::pretty(&table),
    };
    out.write_all(text.as_bytes()).map_err(|e| files::refuse_write(Path::new("standard output"), &e))
}

fn text(table: &Table) -> String {
    let mut text = String::new();
    for entry in &table.entries {
        let _ = writeln!(text, "{}: {}", entry.name, entry.about);
        for Row { name, about, values, default } in &entry.options {
            let _ = writeln!(text, "  {name} = {default}: {about}; {values}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_and_option_is_listed_in_both_formats() {
        for list in [archs] {
            let [text, json] = [Format::Text, Format::Json].map(|format| {
                let mut out = Vec::new();
                list(&List { format }, &mut out).expect("memory takes all");
                String::from_utf8(out).expect("text")
            });
            let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let entries = json["entries"].as_array().expect("a list");
            assert!(!entries.is_empty());
            for entry in entries {
                assert!(text.contains(&format!("{}: ", entry["name"].as_str().expect("a name"))), "{entry}");
                for option in entry["options"].as_array().expect("a list") {
                    let line = format!("  {} = ", option["name"].as_str().expect("a name"));
                    assert!(text.contains(&line), "{line}");
                }
            }
        }
    }
}
