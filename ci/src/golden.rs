//! `cargo xtask golden` and `conformance`: the programs of `benchmarks/` that compare us with others.

use std::process::Command;

use crate::Failure;

/// The engine and the trainer against golden values; all programs run, then the worst decides.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let quant = program("golden_quant", args);
    let train = program("golden_train", args);
    quant.and(train)
}

/// The engine against ONNX's own node tests.
pub fn conformance(args: &[String]) -> Result<(), Failure> {
    program("conformance", args)
}

fn program(name: &str, args: &[String]) -> Result<(), Failure> {
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--locked", "-p", "kd-benchmarks", "--bin", name, "--"]).args(args);
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Exit(status.code().map_or(1, |code| code as u8))) }
}
