//! `cargo xtask metrics`: how large the source is, in the terms in which we read others'.

use std::collections::BTreeSet;
use std::process::Command;

use crate::Failure;
use crate::shell::capture;
use crate::sources::{all, unsafes};

/// Runs the command.
pub fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(format!("metrics: expected no argument, found `{arg}`").into());
    }
    let sources = all()?;
    let mut lines: Vec<usize> = sources.iter().map(|source| source.lines()).collect();
    lines.sort_unstable();
    let rank = |share: f64| lines[((lines.len() as f64 * share).ceil() as usize).clamp(1, lines.len()) - 1];
    let found: Vec<bool> = sources.iter().flat_map(|source| unsafes(&source.text)).map(|(_, said)| said).collect();
    let macros: usize = sources.iter().map(|source| source.text.matches(concat!("macro_rules", "! ")).count()).sum();
    println!("files                          {}", sources.len());
    println!("lines                          {}", lines.iter().sum::<usize>());
    println!("median / p90 / longest file    {} / {} / {}", rank(0.5), rank(0.9), rank(1.0));
    println!("files above 600 lines          {}", lines.iter().filter(|&&n| n > 600).count());
    println!("unsafe blocks : with SAFETY    {} : {}", found.len(), found.iter().filter(|said| **said).count());
    println!("macro_rules!                   {macros}");
    println!("crates in tree, kd-runtime     {}", crates("kd-runtime", &[])?);
    println!("  of them without std          {}", crates("kd-runtime", &["--no-default-features"])?);
    println!("crates in tree, kd-exporter    {}", crates("kd-exporter", &[])?);
    println!("crates in tree, kd-trainer     {}", crates("kd-trainer", &[])?);
    Ok(())
}

/// Crates that a package is built from, itself left out.
pub fn crates(package: &str, more: &[&str]) -> Result<usize, String> {
    Ok(tree(package, more)?.len() - 1)
}

/// Names and versions of a package and all that it is built from here, without build scripts' and tests' own.
pub fn tree(package: &str, more: &[&str]) -> Result<BTreeSet<String>, String> {
    let mut command = Command::new("cargo");
    command.args(["tree", "--locked", "-e", "normal", "--prefix", "none", "-p", package]).args(more);
    let text = capture(&mut command)?;
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(text.lines().filter(|line| !line.is_empty()).map(name).collect())
}
