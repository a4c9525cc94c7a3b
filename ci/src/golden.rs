//! `cargo xtask golden` and `conformance`: the programs of `benchmarks/` that compare us with others.

use std::process::Command;

use crate::Failure;

/// The engine and the trainer against golden values; all programs run, then the worst decides.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let quant = program("golden_quant", args);
    let train = program("golden_train", args);
    worst(quant, train)
}

/// Of two outcomes the worse: material that is missing (3) hides no difference.
fn worst(a: Result<(), Failure>, b: Result<(), Failure>) -> Result<(), Failure> {
    match (a, b) {
        (Ok(()), other) | (Err(Failure::Exit(3)), other @ Err(_)) => other,
        (failed, _) => failed,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_worse_than_missing_material() {
        let exit = |code| if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) };
        for (a, b, expected) in [(0, 0, 0), (3, 1, 1), (1, 3, 1), (3, 0, 3), (0, 3, 3), (0, 1, 1), (1, 0, 1), (3, 3, 3)]
        {
            let code = match worst(exit(a), exit(b)) {
                Ok(()) => 0,
                Err(Failure::Exit(code)) => code,
                Err(Failure::Line(_)) => 255,
            };
            assert_eq!(code, expected, "{a} and {b}");
        }
    }
}
