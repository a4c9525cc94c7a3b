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
    let done = rows::check().and_then(|()| answer(&args, &usage::print));
    usage::finish(done.map(|()| ExitCode::SUCCESS), json)
}

/// Does what is asked, and prints what that gives, whole; also where it then refuses: a report of what failed, a template.
fn answer(args: &args::Args, print: &dyn Fn(&str) -> Result<()>) -> Result<()> {
    let mut out = Vec::new();
    let done = match &args.command {
        Command::Run(run) => run::run(run, &mut out),
        Command::Check(check) => check::run(check, &mut out),
        Command::Eval(eval) => eval::run(eval, &mut out),
        Command::Selftest(asked) => selftest::run(asked, &mut out),
        Command::Archs(list) => tables::archs(list, &mut out),
        Command::Methods(list) => methods::run(list, &mut out),
    };
    let printed = if out.is_empty() { Ok(()) } else { print(&String::from_utf8_lossy(&out)) };
    done.and(printed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use kd_runtime::contract::Contract;
    use kd_runtime::onnx;

    use super::*;
    use crate::options::Options;
    use crate::recipe::Choice;
    use crate::zoo::{self, Site, table::ARCHS};

    #[test]
    fn what_a_refused_command_has_to_say_is_printed() {
        let folder = std::env::temp_dir().join(format!("kd-template-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let row = ARCHS.iter().find(|row| row.name == "mlp").unwrap();
        let arch = Choice { name: row.name, options: Options::defaults(row.options) };
        let graph = zoo::build(&arch, &Site { input: vec![1, 8, 8], classes: 10 }, 1).unwrap();
        let path = folder.join("model.onnx");
        std::fs::write(&path, onnx::write(&graph)).unwrap();
        let printed = RefCell::new(String::new());
        let print = |text: &str| {
            printed.borrow_mut().push_str(text);
            Ok(())
        };
        let words = ["kd-train", "eval", path.to_str().unwrap(), "--data", "digits"];
        let message = answer(&args::Args::try_parse_from(words).unwrap(), &print).unwrap_err().to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(message.ends_with("complete the template on standard output, save it and pass it with --contract"));
        Contract::parse(&printed.borrow()).unwrap().check_model(&graph).unwrap();
        // One that has nothing to say prints nothing.
        printed.borrow_mut().clear();
        let words = ["kd-train", "check", "no such recipe"];
        assert!(answer(&args::Args::try_parse_from(words).unwrap(), &print).is_err() && printed.borrow().is_empty());
    }
}
