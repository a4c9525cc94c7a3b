//! `kd-export`, the command line.

mod args;
mod export;
mod source;
mod text;

use std::process::ExitCode;

use clap::Parser;
use kd_runtime::cli::usage;

/// Runs `kd-export`; the exit status is that of `docs/architecture.md` §6.
pub fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage::answer(&error, "kd-export"),
    };
    usage::finish(export::run(&args), args.format == args::Format::Json)
}
