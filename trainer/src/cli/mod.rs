//! `kd-train`, the command line.

pub mod args;
pub mod check;
mod eval;
pub mod methods;
mod run;
mod selftest;
pub mod tables;

use std::process::ExitCode;

use clap::Parser;
use kd_runtime::Result;
use kd_runtime::cli::usage;

use args::Command;

use crate::ops::kernels::rows;

/// Runs `kd-train`; the exit status is that of `docs/architecture.md` §6.
pub fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage::answer(&error, "kd-train"),
    };
    let json = args.json();
    usage::finish(rows::check().and_then(|()| dispatch(&args)).map(|()| ExitCode::SUCCESS), json)
}

fn dispatch(args: &args::Args) -> Result<()> {
    // What is printed is whole: nothing stands on standard output beside an error.
    let mut out = Vec::new();
    match &args.command {
        Command::Run(run) => run::run(run, &mut out)?,
        Command::Check(check) => check::run(check, &mut out)?,
        Command::Eval(eval) => eval::run(eval, &mut out)?,
        Command::Selftest(asked) => selftest::run(asked, &mut out)?,
        Command::Archs(list) => tables::archs(list, &mut out)?,
        Command::Methods(list) => methods::run(list, &mut out)?,
    }
    usage::print(&String::from_utf8_lossy(&out))
}
