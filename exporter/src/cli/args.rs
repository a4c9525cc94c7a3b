//! The arguments; doc comments are the help.

use std::path::PathBuf;

use clap::{Parser, ValueEnum, value_parser};
use kd_runtime::data::sources;

/// Fold and quantize a network, and write it as ONNX and safetensors
#[derive(Debug, Parser)]
#[command(
    name = "kd-export",
    version,
    max_term_width = 100,
    allow_negative_numbers = true,
    after_help = "\
Exit status: 0 done, 1 parity or --max-drop fails (files kept), 2 refused, 3 this machine lacks something.
Example:     kd-export --int8 runs/digits -o runs/digits/export"
)]
pub struct Args {
    /// Run folder (as kd-train writes it) or .onnx file
    #[arg(value_name = "RUN_OR_ONNX")]
    pub model: PathBuf,
    /// Where the export goes, a folder that does not exist yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Export an exit of the run's network, 1 the earliest, as a network of its own (method byot)
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..))]
    pub exit: Option<u8>,
    /// Quantize to int8 beside the float files; needs data and a contract
    #[arg(long)]
    pub int8: bool,
    /// Data to calibrate on (training part) and to compare on (test part)
    #[arg(long, value_name = "FORMAT:PATH", help = format!(
        "Data to calibrate on (training part) and to compare on (test part): {}; default: the run's", sources()
    ))]
    pub data: Option<String>,
    /// What goes in and comes out; default: contract.json beside the model
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// How ranges are found: minmax, percentile
    #[arg(long, value_name = "METHOD", default_value = "percentile")]
    pub calibration: String,
    /// Training samples that are calibrated on, spread evenly, at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Percentage points of accuracy that int8 may lose
    #[arg(long, value_name = "POINTS", default_value_t = 1.0, value_parser = points)]
    pub max_drop: f64,
    /// Replace the output folder if it exists
    #[arg(long)]
    pub force: bool,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if (0.0..=100.0).contains(&points) => Ok(points),
        _ => Err("a number from 0 to 100".into()),
    }
}
