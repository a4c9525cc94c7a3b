//! Puts the model and the inputs that `KD_MODEL` and `KD_INPUTS` name where the program includes them.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (variable, name) in [("KD_MODEL", "model.onnx"), ("KD_INPUTS", "inputs.f32")] {
        println!("cargo:rerun-if-env-changed={variable}");
        let path = env::var_os(variable).unwrap_or_else(|| panic!("set {variable} to a file"));
        println!("cargo:rerun-if-changed={}", PathBuf::from(&path).display());
        fs::copy(&path, out.join(name)).unwrap_or_else(|e| panic!("{}: {e}", PathBuf::from(&path).display()));
    }
    fs::copy("memory.x", out.join("memory.x")).expect("memory.x is beside this file");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=memory.x");
}
