//! Comparisons of `kd` with other software: golden values, ONNX's node tests, speed. Each is a function here (so that
//! tests call it too) and a program of the same name that prints a line per case.

pub mod args;
pub mod conformance;
pub mod golden_quant;
pub mod golden_train;
pub mod scratch;
pub mod study;
pub mod training;

use std::path::{Path, PathBuf};

/// As `kd-train` does, whose steps are timed here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The folder that an environment variable names, or else `../shared/PLACE` beside the checkout; `None` if there is none.
pub fn material(variable: &str, place: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(variable) {
        return Some(PathBuf::from(folder));
    }
    shared(place)
}

/// `../shared/PLACE` beside the checkout; `None` if it is not there.
pub fn shared(place: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(place);
    shared.exists().then_some(shared)
}
