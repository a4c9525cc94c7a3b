//! A measurement in a fresh process: the program runs itself with [`ARGUMENT`], writes one line of JSON (a [`Task`]) to
//! the child's standard input and reads one line, the answer or a refusal, from its standard output.

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Job, accuracy, latency, memory};
use crate::error::{Exit, Refusal, Result, Shown};

/// The hidden argument that makes a program serve one task.
pub const ARGUMENT: &str = "__measure";

/// Variable with a program (and its arguments, between blanks) that runs the child: an emulator that the system does
/// not start by itself.
pub const RUNNER: &str = "KD_RUNNER";

/// What a child is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Peak memory of a process that loads nothing.
    Empty,
    /// Peak memory of loading and running a model.
    Memory(Job),
    /// Time of loading and of inferences.
    Latency(Job, latency::Plan),
    /// Right answers on the test part of the data.
    Accuracy(Job),
}

/// One line of the protocol.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Measured(T),
    Refused { at: String, expected: String, found: String, action: String, exit: u8 },
}

/// Has a fresh process measure; a crash of the child is a refusal.
pub fn ask<T: DeserializeOwned>(task: &Task) -> Result<T> {
    let here = |e: std::io::Error| {
        Refusal::new("kd-bench", "to start itself for a measurement", e, "check that the program may be run")
            .with_exit(Exit::Lacking)
    };
    let program = std::env::current_exe().map_err(here)?;
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut line: Vec<OsString> = runner.split_whitespace().map(OsString::from).collect();
    line.push(program.into_os_string());
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(here)?;
    let request = serde_json::to_string(task).unwrap_or_default();
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died before reading says so by its status.
        let _ = writeln!(stdin, "{request}");
    }
    let output = child.wait_with_output().map_err(here)?;
    let answer = output.stdout.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match serde_json::from_slice(answer) {
        Ok(Answer::Measured(answer)) if output.status.success() => Ok(answer),
        Ok(Answer::Refused { at, expected, found, action, exit }) => {
            let exit = if exit == Exit::Lacking as u8 { Exit::Lacking } else { Exit::Refused };
            Err(Refusal { at, expected, found, action, exit })
        }
        _ => Err(crashed(&output)),
    }
}

fn crashed(output: &std::process::Output) -> Refusal {
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("and said nothing").to_string();
    let found = format!("one that ended with {} `{}`", output.status, said.chars().take(200).collect::<String>());
    Refusal::new("measurement", "a child process that answers", found, "report it with the model, or free memory")
        .with_exit(Exit::Lacking)
}

/// Serves one task: what a program does that was started with [`ARGUMENT`].
pub fn serve() -> ExitCode {
    die_with_parent();
    let mut line = String::new();
    let read = std::io::stdin().lock().take(64 << 20).read_line(&mut line);
    let answer = match serde_json::from_str(&line) {
        Ok(task) if read.is_ok() => perform(&task),
        _ => {
            eprintln_refusal();
            return ExitCode::from(Exit::Refused as u8);
        }
    };
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{answer}").and_then(|()| out.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(Exit::Refused as u8) }
}

fn perform(task: &Task) -> String {
    match task {
        Task::Empty => line(memory::peak_kib()),
        Task::Memory(job) => line(memory::measure(job)),
        Task::Latency(job, plan) => line(latency::measure(job, plan)),
        Task::Accuracy(job) => line(accuracy::measure(job)),
    }
}

fn line<T: Serialize>(result: Result<T>) -> String {
    let answer = match result {
        Ok(answer) => Answer::Measured(answer),
        Err(Refusal { at, expected, found, action, exit }) => {
            Answer::Refused { at, expected, found, action, exit: exit as u8 }
        }
    };
    serde_json::to_string(&answer).unwrap_or_default()
}

/// Somebody typed the hidden argument.
fn eprintln_refusal() {
    let refusal = Refusal::new(ARGUMENT, "a task from kd-bench itself", "none", "leave the argument out");
    let _ = writeln!(std::io::stderr(), "error: {}", Shown(&refusal.to_string()));
}

/// A measurement must not go on when nobody waits for it.
#[cfg(target_os = "linux")]
fn die_with_parent() {
    // SAFETY: this call takes a signal number and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() {}
