//! What this machine needs for `cargo xtask ci`: says what is missing, and installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{capture, run as execute};

/// The interpreter of the environment that [`install`] makes.
pub const PYTHON: &str = "target/venv/bin/python";
/// Marks an environment whose packages are all there; its text is their list.
const STAMP: &str = "target/venv/kd-packages.txt";
/// The last one is NVIDIA's compiler of kernels, the library alone.
const PACKAGES: &[&str] =
    &["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0", "safetensors==0.8.0", "nvidia-cuda-nvrtc==13.0.88"];

/// Debian packages, each with a program or file that it is there for.
type Packages = &'static [(&'static str, &'static str)];
/// What the checks need.
const CI: Packages = &[("protobuf-compiler", "protoc")];
/// What emulated devices need.
pub const CROSS: Packages = &[
    ("qemu-user-static", "qemu-aarch64-static"),
    ("qemu-system-arm", "qemu-system-arm"),
    ("libc6-armhf-cross", "/usr/arm-linux-gnueabihf/lib/ld-linux-armhf.so.3"),
];
/// The target of a microcontroller.
pub const BARE_METAL: &str = "thumbv7em-none-eabihf";

const ORT_VERSION: &str = "1.32.0";
/// sha256 of the wheel's `libonnxruntime.so`, by architecture.
const ORT_SHA256: &[(&str, &str)] = &[
    ("x86_64", "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"),
    ("aarch64", "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a"),
];

/// Prints what is missing and installs nothing.
pub fn report() -> Result<(), String> {
    let missing = missing()?;
    for line in &missing {
        println!("missing: {line}");
    }
    if missing.is_empty() {
        println!("nothing is missing");
    }
    Ok(())
}

fn missing() -> Result<Vec<String>, String> {
    let mut missing: Vec<String> = missing_packages(CI).iter().map(|name| format!("Debian package {name}")).collect();
    missing.extend(missing_targets(&[BARE_METAL])?.iter().map(|target| format!("Rust target {target}")));
    if !environment_is_whole() {
        missing.push(format!("Python packages {} in target/venv", PACKAGES.join(", ")));
    }
    if !library()?.is_file() {
        missing.push(format!("ONNX Runtime {ORT_VERSION} at {}", library()?.display()));
    }
    Ok(missing)
}

/// Installs what is missing, each with a line that says so.
pub fn install() -> Result<(), String> {
    for line in missing()? {
        println!("ci: installs {line}");
    }
    install_packages(CI)?;
    install_targets(&[BARE_METAL])?;
    install_environment()?;
    if library()?.is_file() { Ok(()) } else { unpack_library(&library()?) }
}

/// Makes the Python environment, unless it is whole.
pub fn install_environment() -> Result<(), String> {
    if environment_is_whole() {
        return Ok(());
    }
    execute(Command::new("python3").args(["-m", "venv", "--clear", "target/venv"]))?;
    execute(Command::new(PYTHON).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    fs::write(STAMP, PACKAGES.join("\n")).map_err(|e| format!("{STAMP}: {e}"))
}

/// Installs what is missing of a list of Debian packages.
pub fn install_packages(packages: Packages) -> Result<(), String> {
    let missing = missing_packages(packages);
    if missing.is_empty() {
        return Ok(());
    }
    println!("installs with apt-get: {}", missing.join(" "));
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], &missing[..]].concat())
}

/// Installs what is missing of a list of Rust targets.
pub fn install_targets(targets: &[&str]) -> Result<(), String> {
    for target in missing_targets(targets)? {
        execute(Command::new("rustup").args(["--quiet", "target", "add", &target]))?;
    }
    Ok(())
}

fn missing_packages(packages: Packages) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An absolute path stays as it is when it is joined.
    let there = |file: &str| std::env::split_paths(&path).any(|folder| folder.join(file).is_file());
    packages.iter().filter(|(_, file)| !there(file)).map(|(package, _)| *package).collect()
}

fn missing_targets(targets: &[&str]) -> Result<Vec<String>, String> {
    let installed = capture(Command::new("rustup").args(["target", "list", "--installed"]))?;
    let missing = targets.iter().filter(|target| !installed.lines().any(|line| line == **target));
    Ok(missing.map(ToString::to_string).collect())
}

fn environment_is_whole() -> bool {
    fs::read_to_string(STAMP).is_ok_and(|packages| packages == PACKAGES.join("\n")) && Path::new(PYTHON).exists()
}

/// apt-get as root, or through sudo.
fn apt(args: &[&str]) -> Result<(), String> {
    let root = capture(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.arg("apt-get");
    }
    execute(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Where `kd-bench` looks for the library.
fn library() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let data = data.ok_or("expected XDG_DATA_HOME or HOME, found neither; set one")?;
    Ok(data.join(format!("kd/libonnxruntime.so.{ORT_VERSION}")))
}

/// Copies the library out of the installed wheel, if its sha256 is the one that is known.
fn unpack_library(to: &Path) -> Result<(), String> {
    let arch = std::env::consts::ARCH;
    let expected = ORT_SHA256.iter().find(|(name, _)| *name == arch).map(|(_, sha256)| *sha256);
    let expected = expected.ok_or_else(|| format!("ONNX Runtime: expected x86_64 or aarch64, found {arch}"))?;
    let print = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let packages = capture(Command::new(PYTHON).args(["-c", print]))?;
    let from = Path::new(packages.trim()).join(format!("onnxruntime/capi/libonnxruntime.so.{ORT_VERSION}"));
    let found = capture(Command::new("sha256sum").arg(&from))?;
    let found = found.split_whitespace().next().unwrap_or_default();
    if found != expected {
        return Err(format!("{}: expected sha256 {expected}, found {found}; not installed", from.display()));
    }
    let partial = to.with_extension("partial");
    let folder = to.parent().unwrap_or(Path::new("."));
    let copied =
        fs::create_dir_all(folder).and_then(|()| fs::copy(&from, &partial)).and_then(|_| fs::rename(&partial, to));
    copied.map_err(|e| format!("{}: {e}", to.display()))
}
