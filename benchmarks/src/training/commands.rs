//! Programs that a comparison of whole runs starts.

use std::path::Path;
use std::process::{Command, Stdio};

use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::Value;

use crate::args::Args;

/// Writes what `kd-train check RECIPE --format json` says of a recipe with the overrides of a command line.
pub fn checked(args: &Args, recipe: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new(args.get("kd-train").unwrap_or("kd-train"));
    command.arg("check").arg(recipe).args(args.rest()).args(["--format", "json"]);
    let said = answer(&mut command)?;
    files::write_atomic(to, said.to_string().as_bytes())
}

/// What a command prints as JSON on standard output; its messages are shown.
pub fn answer(command: &mut Command) -> Result<Value> {
    let name = command.get_program().to_string_lossy().into_owned();
    let lacking = |found: &dyn std::fmt::Display| {
        Refusal::new(&name, "an answer in JSON", found, "read its messages above").with_exit(Exit::Lacking)
    };
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| lacking(&e))?;
    if !output.status.success() {
        return Err(lacking(&output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| lacking(&e))
}
