//! `cargo xtask data cifar10 [SHEETS [OUTPUT]]`: data sets in the layouts that our readers take.

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::shell::given;

/// Where the sheets are looked for.
pub const SHEETS: &str = "../shared/data/cifar10";
/// Where the batches go; recipes read them there.
pub const OUTPUT: &str = "data/cifar10";

/// Runs the command.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let (sheets, output) = match args {
        [name] if name == "cifar10" => (SHEETS.to_string(), OUTPUT.to_string()),
        [name, sheets] if name == "cifar10" => (given(sheets), OUTPUT.to_string()),
        [name, sheets, output] if name == "cifar10" => (given(sheets), given(output)),
        _ => return Err(format!("data: expected cifar10 [SHEETS [OUTPUT]], found `{}`", args.join(" ")).into()),
    };
    if Path::new(&output).exists() {
        println!("{output} is there; remove it to make it again");
        return Ok(());
    }
    if let Some(parent) = Path::new(&output).parent() {
        std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    }
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", "cifar10_sheets", "--"]);
    let status = command.args([&sheets, &output]).status().map_err(|e| format!("cifar10_sheets: {e}"))?;
    if !status.success() {
        return Err(Failure::Exit(status.code().map_or(1, |code| code as u8)));
    }
    println!("read it as cifar:{output}");
    Ok(())
}
