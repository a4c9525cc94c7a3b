//! The one error type: where, what was expected, what was found, what to do; and the exit code that goes with it.

use alloc::string::{String, ToString};
use core::fmt;

/// Every fallible function of the three programs returns this.
pub type Result<T> = core::result::Result<T, Refusal>;

/// What a program's exit status means; `docs/architecture.md` §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and a verdict fails.
    VerdictFailed = 1,
    /// Usage, recipe, file or data were refused; nothing was written.
    Refused = 2,
    /// This machine lacks something: a library, a GPU, memory, disk.
    Lacking = 3,
    /// The samples cannot tell, or the measurement is not valid.
    Undecided = 4,
    /// Stopped by SIGINT; state saved.
    Interrupted = 130,
    /// Stopped by SIGTERM; state saved.
    Terminated = 143,
}

/// One line: `AT: expected EXPECTED, found FOUND; ACTION`. Text and JSON are two views of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where: a file, a line, a node, a key.
    pub at: String,
    /// What would have been right.
    pub expected: String,
    /// What was there, with its numbers.
    pub found: String,
    /// What the user can do.
    pub action: String,
    /// The exit status that a program ends with.
    pub exit: Exit,
}

impl Refusal {
    /// A refusal of input ([`Exit::Refused`]). Control characters of all four parts are escaped when shown.
    pub fn new(
        at: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
        action: impl fmt::Display,
    ) -> Self {
        Self {
            at: at.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
            action: action.to_string(),
            exit: Exit::Refused,
        }
    }

    /// The same refusal, ending the program with another exit status.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same refusal, its place prefixed: `OUTER: INNER`.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.at = if self.at.is_empty() { outer.to_string() } else { alloc::format!("{outer}: {}", self.at) };
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", Shown(&self.at))?;
        }
        write!(f, "expected {}, found {}; {}", Shown(&self.expected), Shown(&self.found), Shown(&self.action))
    }
}

impl core::error::Error for Refusal {}

/// Shows text that came from outside: control characters (and the escape character's relatives that terminals act
/// on) are written as `\u{..}`, so that a hostile name can neither move the cursor nor add a line.
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || bidi {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_one_line_whatever_the_names_hold() {
        let refusal = Refusal::new("a\nb", "x", "\u{1b}[31m", "do y");
        assert_eq!(refusal.to_string(), "a\\u{a}b: expected x, found \\u{1b}[31m; do y");
    }
}
