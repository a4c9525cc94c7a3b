//! `cargo xtask cuda-check` and `cuda-bundle`: the GPU side, on a machine without GPU or toolkit.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shell::{built, capture, run as execute};
use crate::{Failure, setup};

/// What the bundle may take, compressed.
const MOST_BYTES: u64 = 40 << 20;
const BUNDLE: &str = "target/cuda-bundle";

/// `cargo xtask cuda-check`.
pub fn check(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(format!("cuda-check: expected no argument, found `{arg}`").into());
    }
    setup::install_environment()?;
    Ok(compiled()?)
}

/// Compiles every kernel for every compute capability that is named in the test.
pub fn compiled() -> Result<(), String> {
    let print = "import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], 'lib'))";
    let library = capture(Command::new(setup::PYTHON).args(["-c", print]))?;
    let mut command = Command::new("cargo");
    let test = ["test", "--locked", "-p", "kd-trainer", "--test", "kernels", "--", "--ignored", "--nocapture"];
    execute(command.args(test).env("LD_LIBRARY_PATH", library.trim()))
}

/// Makes one folder that runs where the driver and CUDA's libraries are, and tries what can be tried without them.
pub fn bundle(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(format!("cuda-bundle: expected no argument, found `{arg}`").into());
    }
    let build = ["build", "--release", "--locked", "-p", "kd-trainer", "-p", "kd-benchmarks", "--bins"];
    execute(Command::new("cargo").args(build))?;
    let bundle = Path::new(BUNDLE);
    if bundle.exists() {
        fs::remove_dir_all(bundle).map_err(|e| format!("{BUNDLE}: {e}"))?;
    }
    fs::create_dir_all(bundle).map_err(|e| format!("{BUNDLE}: {e}"))?;
    for name in ["kd-train", "training_step"] {
        let program = bundle.join(name);
        execute(Command::new("strip").arg("-o").arg(&program).arg(built(name)?))?;
    }
    let program = bundle.join("kd-train");
    let copies = [
        ("benchmarks/peers/torch_recipe.py", "torch_recipe.py"),
        ("benchmarks/peers/torch_training.py", "torch_training.py"),
        ("recipes/resnet8-cifar10.toml", "resnet8-cifar10.toml"),
        ("ci/cuda/README.md", "README.md"),
        ("ci/cuda/libraries.sh", "libraries.sh"),
        ("ci/cuda/prove.sh", "prove.sh"),
        ("ci/cuda/run.sh", "run.sh"),
    ];
    for (from, to) in copies {
        fs::copy(from, bundle.join(to)).map_err(|e| format!("{from}: {e}"))?;
    }
    let archive = format!("{BUNDLE}.tar.gz");
    execute(Command::new("tar").args(["-czf", &archive, "-C", "target", "cuda-bundle"]))?;
    let bytes = fs::metadata(&archive).map_err(|e| format!("{archive}: {e}"))?.len();
    println!("{archive}: {bytes} bytes");
    if bytes > MOST_BYTES {
        return Err(format!("{archive}: expected at most {MOST_BYTES} bytes, found {bytes}").into());
    }
    print!("{}", capture(Command::new(&program).args(["selftest", "--device", "cpu"]))?);
    without_driver(&program)
}

/// A machine without driver is told so in one line; one that has it runs the test there.
fn without_driver(program: &Path) -> Result<(), Failure> {
    let mut command = Command::new(program);
    let output = command.args(["selftest", "--device", "cuda:0"]).output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}{said}", String::from_utf8_lossy(&output.stdout));
    match output.status.code() {
        Some(0) => Ok(()),
        Some(3) if said.lines().count() == 1 => Ok(()),
        code => Err(format!("{}: expected 0, or 3 and one line, found {code:?}", program.display()).into()),
    }
}
