//! PyTorch's side of a case: a child process that steps when it is asked to.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use kd_runtime::{Exit, Refusal, Result};

/// A peer in a child process.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// What it says of its version.
    pub version: String,
    /// The forms that it can run the case in.
    pub forms: Vec<String>,
    /// Those that it cannot, and why.
    pub failed: Vec<(String, String)>,
}

impl Peer {
    /// Starts PyTorch with a case on a device, and waits until it is ready.
    pub fn start(python: &Path, script: &Path, case: &str, threads: usize, on: [&str; 2]) -> Result<Self> {
        let mut command = Command::new(python);
        command.arg(script).args([case, &threads.to_string()]).args(on).stdin(Stdio::piped()).stdout(Stdio::piped());
        let lacking = |error: &dyn std::fmt::Display| {
            let action = "make one by `cargo xtask peers`, or name another by --python";
            Refusal::new(python.display(), "a Python with torch", error, action).with_exit(Exit::Lacking)
        };
        let mut child = command.spawn().map_err(|e| lacking(&e))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(lacking(&"no pipes"));
        };
        let (from, version) = (BufReader::new(from), String::new());
        let mut peer = Self { child, to, from, version, forms: Vec::new(), failed: Vec::new() };
        let mut line = peer.line()?;
        while let Some((form, why)) = line.strip_prefix("failed ").and_then(|rest| rest.split_once(' ')) {
            peer.failed.push((form.into(), why.into()));
            line = peer.line()?;
        }
        let mut words = line.split(' ').map(String::from);
        if words.next().as_deref() != Some("ready") {
            return Err(lacking(&"no `ready`"));
        }
        peer.version = words.next().unwrap_or_default();
        peer.forms = words.collect();
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim().to_string()),
            _ => Err(Refusal::new("peer", "a line", "its end", "read its messages above").with_exit(Exit::Lacking)),
        }
    }

    /// Times of so many steps in one form, in ms; of a GPU their mean alone.
    pub fn steps_ms(&mut self, form: &str, n: usize) -> Result<Vec<f64>> {
        let sent = writeln!(self.to, "{form} {n}").and_then(|()| self.to.flush());
        sent.map_err(|e| Refusal::new("peer", "a process that listens", e, "read its messages above"))?;
        let line = self.line()?;
        let times: std::result::Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        times.map_err(|e| Refusal::new("peer", "times", e, "read its messages above"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
