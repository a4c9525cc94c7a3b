//! The arguments; doc comments are the help.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, value_parser};

use crate::data::sources;

/// Measure a model on this device and say whether it meets its budget
#[derive(Debug, Parser)]
#[command(
    name = "kd-bench",
    version,
    max_term_width = 100,
    allow_negative_numbers = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Exit status: 0 pass, 1 fail, 2 refused, 3 this machine lacks something, 4 undecided.
Example:     kd-bench runs/digits/export --budget budgets/demo.toml --data digits"
)]
pub struct Args {
    /// What else it does.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The measurement.
    #[command(flatten)]
    pub bench: Bench,
}

impl Args {
    /// The format of results and errors.
    pub fn format(&self) -> Format {
        match &self.command {
            Some(Command::Check(check)) => check.format,
            None => self.bench.format,
        }
    }
}

/// What else `kd-bench` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare the outputs of every backend that is present, on seeded random inputs
    Check(Check),
}

/// A measurement.
#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// .onnx file, export folder (as kd-export writes it) or run folder (as kd-train writes it)
    #[arg(value_name = "MODEL", required = true)]
    pub model: Option<PathBuf>,
    /// Limits to judge by, a TOML file
    #[arg(long, value_name = "FILE")]
    pub budget: Option<PathBuf>,
    /// Data for accuracy and inputs
    #[arg(long, value_name = "FORMAT:PATH", help = format!("Data for accuracy and inputs: {}", sources()))]
    pub data: Option<String>,
    /// What goes in and comes out; default: contract.json beside the model
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// Which file of an export folder; default: int8 if it is there
    #[arg(long, value_name = "float|int8", hide_possible_values = true)]
    pub precision: Option<Precision>,
    /// What runs the model: native, ort, candle
    #[arg(long, value_name = "NAME", default_value = "native")]
    pub backend: String,
    /// ONNX Runtime's library, for --backend ort
    #[arg(long, value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,
    /// Threads that compute one inference; default: the budget's, or 1
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Time that is spent on latency samples at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u32).range(1..=86_400))]
    pub max_time: u32,
    /// How results and errors are written
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Where the report goes; default: standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A comparison of backends.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// .onnx file, export folder or run folder
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Random inputs to compare on
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub inputs: u32,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Which file of an export folder; default: int8 if it is there
    #[arg(long, value_name = "float|int8", hide_possible_values = true)]
    pub precision: Option<Precision>,
    /// ONNX Runtime's library
    #[arg(long, value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,
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

/// Which of an export's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// model.onnx.
    Float,
    /// model.int8.onnx.
    Int8,
}
