//! Folds and quantizes a network, and writes it as ONNX and safetensors.

use std::process::ExitCode;

fn main() -> ExitCode {
    kd_exporter::cli::main()
}
