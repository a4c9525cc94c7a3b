//! `cargo xtask cross`: builds kd-bench for the devices, and runs the demo's int8 student on emulated ones.
//!
//! Outputs are compared as text of their bits with those of this machine: on Linux programs under qemu-user as
//! Cortex-A72, Cortex-A76 and Armv7, and on a bare-metal Cortex-M7 under qemu-system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{built, capture, run as execute, target};
use crate::{Failure, setup};

/// The oldest C library that the builds for glibc must start on: ONNX Runtime's own floor.
const GLIBC: &str = "2.28";
/// What the static build may take, stripped.
const MOST_MUSL_BYTES: u64 = 3_000_000;
/// Test images that every machine computes.
const SAMPLES: &str = "64";

const MUSL: &str = "aarch64-unknown-linux-musl";
const AARCH64: &str = "aarch64-unknown-linux-gnu";
const ARMV7: &str = "armv7-unknown-linux-gnueabihf";

/// Runs the command.
pub fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(format!("cross: expected no argument, found `{arg}`").into());
    }
    setup::install_packages(setup::CROSS)?;
    let zigbuild = install_zigbuild()?;
    let built = [
        build(AARCH64, Some(&zigbuild), &["-p", "kd-runtime", "--bin", "kd-bench"])?,
        build(ARMV7, Some(&zigbuild), &["-p", "kd-runtime", "--bin", "kd-bench"])?,
        build(MUSL, None, &["-p", "kd-runtime", "--bin", "kd-bench"])?,
    ];
    println!("{:32} {:>12}  needs", "kd-bench", "bytes");
    for (target, folder) in [AARCH64, ARMV7, MUSL].iter().zip(&built) {
        let path = folder.join("kd-bench");
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let needs = highest_glibc(&bytes).map_or("nothing: static".to_string(), |(a, b)| format!("glibc {a}.{b}"));
        println!("{target:32} {:>12}  {needs}", bytes.len());
        if highest_glibc(&bytes) > Some((2, 28)) {
            return Err(format!("{}: expected glibc {GLIBC} at most, found {needs}", path.display()).into());
        }
        if *target == MUSL && bytes.len() as u64 > MOST_MUSL_BYTES {
            let at = path.display();
            return Err(format!("{at}: expected at most {MOST_MUSL_BYTES} bytes, found {}", bytes.len()).into());
        }
    }
    Ok(compare_outputs(&zigbuild)?)
}

/// cargo-zigbuild and zig from PyPI, in an environment of their own.
fn install_zigbuild() -> Result<PathBuf, String> {
    let environment = PathBuf::from("target/zig-venv");
    let program = environment.join("bin/cargo-zigbuild");
    if !program.exists() {
        println!("cross: installs ziglang 0.17.1 and cargo-zigbuild 0.24.0 from PyPI into {}", environment.display());
        execute(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let pip = environment.join("bin/pip");
        execute(Command::new(pip).args(["install", "--quiet", "ziglang==0.17.1", "cargo-zigbuild==0.24.0"]))?;
    }
    setup::install_targets(&[AARCH64, ARMV7, MUSL, setup::BARE_METAL])?;
    fs::canonicalize(program).map_err(|e| format!("cargo-zigbuild: {e}"))
}

/// Builds with profile `dist`, through zig where it is given; the folder of the result.
fn build(triple: &str, zigbuild: Option<&Path>, what: &[&str]) -> Result<PathBuf, String> {
    let folder = target().join(triple).join("dist");
    let mut command = match zigbuild {
        Some(program) => {
            let bin = program.parent().unwrap_or(Path::new("."));
            let path = std::env::var("PATH").unwrap_or_default();
            let mut command = Command::new(program);
            command.arg("zigbuild").env("PATH", format!("{}:{path}", bin.display()));
            command.args(["--target", &format!("{triple}.{GLIBC}")]);
            command
        }
        None => {
            let mut command = Command::new("cargo");
            let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
            command.args(["build", "--target", triple]).env(linker, "rust-lld");
            command
        }
    };
    execute(command.args(["--quiet", "--locked", "--profile", "dist"]).args(what))?;
    Ok(folder)
}

/// The highest `GLIBC_a.b` symbol version that a program names; `None` if it names none.
fn highest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    let text = b"GLIBC_";
    let versions = program.windows(text.len() + 4).filter(|window| window.starts_with(text)).filter_map(|window| {
        let version = std::str::from_utf8(&window[text.len()..]).ok()?.trim_end_matches(|c: char| !c.is_ascii_digit());
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    versions.max()
}

fn compare_outputs(zigbuild: &Path) -> Result<(), String> {
    let export = Path::new("target/demo/export");
    if !export.join("model.int8.onnx").exists() {
        println!("cross: makes the demo's student first");
        execute(Command::new("cargo").args(["xtask", "demo"]))?;
    }
    let absolute = |path: &Path| fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()));
    let model = absolute(&export.join("model.int8.onnx"))?;
    let outputs = ["-p", "kd-runtime", "--example", "outputs"];
    execute(Command::new("cargo").args(["build", "--quiet", "--locked", "--release"]).args(outputs))?;
    let inputs = Path::new("target/demo/inputs.f32");
    let contract = export.join("contract.json");
    let program = built("examples/outputs")?;
    execute(Command::new(&program).args(["--inputs", "digits", SAMPLES]).arg(inputs).arg(contract))?;
    let inputs = absolute(inputs)?;
    let here = capture(Command::new(&program).arg(&model).arg(&inputs))?;
    if here.trim().is_empty() {
        return Err("cross: expected outputs of the demo's student, found none".to_string());
    }
    let aarch64 = build(MUSL, None, &outputs)?.join("examples/outputs");
    let armv7 = build(ARMV7, Some(zigbuild), &outputs)?.join("examples/outputs");
    let mut machines: Vec<(&str, Command)> = Vec::new();
    for cpu in ["cortex-a72", "cortex-a76"] {
        let mut command = Command::new("qemu-aarch64-static");
        command.args(["-cpu", cpu]).arg(&aarch64).arg(&model).arg(&inputs);
        machines.push((if cpu == "cortex-a72" { "Cortex-A72, Linux" } else { "Cortex-A76, Linux" }, command));
    }
    let mut command = Command::new("qemu-arm-static");
    command.args(["-L", "/usr/arm-linux-gnueabihf"]).arg(&armv7).arg(&model).arg(&inputs);
    machines.push(("Armv7, Linux", command));
    let mut firmware = Command::new("cargo");
    firmware.args(["run", "--quiet", "--release"]).current_dir("firmware");
    firmware.env("KD_MODEL", &model).env("KD_INPUTS", &inputs).env_remove("CARGO_TARGET_DIR");
    machines.push(("Cortex-M7, bare metal", firmware));
    for (machine, mut command) in machines {
        let there = capture(&mut command)?;
        let differing = here.lines().zip(there.lines()).filter(|(a, b)| a.trim() != b.trim()).count();
        let (lines, expected) = (there.lines().count(), here.lines().count());
        if differing > 0 || lines != expected {
            return Err(format!(
                "{machine}: expected the outputs of this machine, found {differing} of {expected} samples different, {lines} lines"
            ));
        }
        println!("{machine:24} {expected} samples, bit for bit as on {}", std::env::consts::ARCH);
    }
    Ok(())
}
