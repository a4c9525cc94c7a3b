//! Command lines of the comparisons: `--NAME VALUE` options, and words.

use std::str::FromStr;

use kd_runtime::{Refusal, Result};

/// A command line.
pub struct Args {
    options: Vec<(String, String)>,
    words: Vec<String>,
}

impl Args {
    /// Reads this process's; refuses options that are not of `known`.
    pub fn read(known: &[&str]) -> Result<Self> {
        Self::of(std::env::args().skip(1), known)
    }

    /// Reads the words of a command line; refuses options that are not of `known`.
    pub fn of(mut args: impl Iterator<Item = String>, known: &[&str]) -> Result<Self> {
        let (mut options, mut words) = (Vec::new(), Vec::new());
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--") else {
                words.push(arg);
                continue;
            };
            let expected = || known.iter().map(|name| format!("--{name} VALUE")).collect::<Vec<_>>().join(", ");
            match args.next() {
                Some(value) if known.contains(&name) => options.push((name.to_string(), value)),
                _ => return Err(Refusal::new("arguments", expected(), format!("`{arg}`"), "correct it")),
            }
        }
        Ok(Self { options, words })
    }

    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    /// An option's value as a number.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| Refusal::new(format!("--{name}"), "a number", format!("`{text}`"), "correct it"))
    }

    /// An option's value as a count of at least 1: nothing is compared by none.
    pub fn count(&self, name: &str, default: usize) -> Result<usize> {
        match self.number(name, default)? {
            0 => Err(Refusal::new(format!("--{name}"), "at least 1", 0, "correct it")),
            count => Ok(count),
        }
    }

    /// The names that an option lists (separated by commas or semicolons), each once, or all. Refuses a name that is not one of
    /// `all`.
    pub fn chosen(&self, option: &str, all: &[String]) -> Result<Vec<String>> {
        let Some(text) = self.get(option) else { return Ok(all.to_vec()) };
        let mut named: Vec<String> = Vec::new();
        for name in text.split([',', ';']).map(str::trim) {
            if !named.iter().any(|other| other == name) {
                named.push(name.into());
            }
        }
        match named.iter().find(|name| !all.contains(name)) {
            None => Ok(named),
            Some(name) => {
                let expected = format!("some of {}", all.join("; "));
                Err(Refusal::new(format!("--{option}"), expected, format!("`{name}`"), "correct it"))
            }
        }
    }

    /// The first word.
    pub fn first(&self, what: &str) -> Result<&str> {
        let first = self.words.first().map(String::as_str);
        first.ok_or_else(|| Refusal::new("arguments", what, "nothing", "name it"))
    }

    /// The words behind the first.
    pub fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_once_however_often_it_is_named() {
        let line = ["--arms", "kd, alone,kd;alone"].map(String::from);
        let args = Args::of(line.into_iter(), &["arms"]).unwrap();
        let all = ["alone", "ab", "kd"].map(String::from);
        assert_eq!(args.chosen("arms", &all).unwrap(), ["kd", "alone"]);
        let refusal = args.chosen("arms", &all[..2]).err().map(|refusal| refusal.to_string());
        assert_eq!(refusal.as_deref(), Some("--arms: expected some of alone; ab, found `kd`; correct it"));
    }
}
