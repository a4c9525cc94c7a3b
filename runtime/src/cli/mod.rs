//! `kd-bench`, the command line.

mod args;
mod bench;
mod check;
mod judge;
pub mod target;
pub mod usage;

use std::process::ExitCode;

pub use args::Precision;

use clap::Parser;

use crate::error::Result;
use crate::measure::child;

/// Runs `kd-bench`; the exit status is that of `docs/architecture.md` §6.
pub fn main() -> ExitCode {
    // A child that measures must not carry what the command line needs.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == child::ARGUMENT) {
        return child::serve();
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage::answer(&error, "kd-bench"),
    };
    let json = args.format() == args::Format::Json;
    usage::finish(run(&args), json)
}

fn run(args: &args::Args) -> Result<ExitCode> {
    match &args.command {
        Some(args::Command::Check(check)) => check::run(check),
        None => bench::run(&args.bench),
    }
}
