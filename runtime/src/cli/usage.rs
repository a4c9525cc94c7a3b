//! How a program of `kd` ends: usage errors and refusals in one line, results on standard output, a closed pipe is fine.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};

use crate::error::{Exit, Refusal, Result};
use crate::report::json;

/// Answers help and version on standard output, and a usage error with one line and status 2.
pub fn answer(error: &clap::Error, program: &str) -> ExitCode {
    if matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion) {
        return finish(print(&error.to_string()).map(|()| ExitCode::SUCCESS), false);
    }
    finish(Err(refusal(error, program)), false)
}

/// A usage error as a refusal.
pub fn refusal(error: &clap::Error, program: &str) -> Refusal {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg);
    let suggested = context(ContextKind::SuggestedArg).or_else(|| context(ContextKind::SuggestedValue));
    let suggested = suggested.or_else(|| context(ContextKind::SuggestedSubcommand));
    let action = match suggested {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("see `{program} --help`"),
    };
    let rendered = error.to_string();
    let first = rendered.lines().find(|line| !line.trim().is_empty()).unwrap_or("usage");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let (at, expected, found) = match (error.kind(), argument) {
        (ClapKind::MissingRequiredArgument, Some(argument)) => ("command line".into(), argument, "nothing".into()),
        (ClapKind::UnknownArgument, Some(argument)) => {
            ("command line".into(), "an argument that is known".to_string(), format!("`{argument}`"))
        }
        (ClapKind::InvalidValue | ClapKind::ValueValidation, Some(argument)) => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let valid = context(ContextKind::ValidValue).filter(|valid| !valid.is_empty());
            let valid = valid.map(|valid| format!("one of {valid}"));
            if value.is_empty() {
                return Refusal::new(argument, valid.unwrap_or("a value".into()), "none", action);
            }
            let reason = first.rsplit_once("': ").map(|(_, reason)| match reason.split_once(" is not in ") {
                Some((_, range)) => format!("a number in {range}"),
                None if reason.starts_with("invalid digit") => "a whole number".to_string(),
                None => reason.to_string(),
            });
            (argument, valid.or(reason).unwrap_or("a valid value".into()), format!("`{value}`"))
        }
        _ => ("command line".into(), "what the usage says".to_string(), first.to_string()),
    };
    Refusal::new(at, expected, found, action)
}

/// Prints results; a reader that went away is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(crate::files::refuse_write("standard output".as_ref(), &e)),
        _ => Ok(()),
    }
}

/// Ends a program: a refusal goes to standard error, as a line or (`as_json`) as an object.
pub fn finish(result: Result<ExitCode>, as_json: bool) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(refusal) => {
            let line = if as_json { json::refusal(&refusal) } else { format!("error: {refusal}") };
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitCode::from(refusal.exit as u8)
        }
    }
}

/// The exit status of a verdict.
pub fn status(verdict: Option<crate::budget::Verdict>) -> ExitCode {
    use crate::budget::Verdict;
    match verdict {
        None | Some(Verdict::Pass) => ExitCode::SUCCESS,
        Some(Verdict::Fail) => ExitCode::from(Exit::VerdictFailed as u8),
        Some(Verdict::Undecided) => ExitCode::from(Exit::Undecided as u8),
    }
}
