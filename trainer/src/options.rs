//! Options of table entries: architectures, methods, optimizers, schedules and augmentations all declare theirs as a
//! list of [`Spec`], so that the recipe checks them, `kd-train archs|methods` prints them, and no second list exists.

use std::collections::BTreeMap;
use std::fmt;

use kd_runtime::{Refusal, Result};

/// The most elements of any list in a recipe.
pub const MOST_ELEMENTS: usize = 256;

/// One option of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Its key in the recipe.
    pub name: &'static str,
    /// What it does, with its unit, on one line.
    pub about: &'static str,
    /// What it may be, and what it is when left out.
    pub kind: Kind,
}

/// What an option may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A finite number.
    Number {
        /// When left out.
        default: f64,
        /// What it may be.
        range: Range,
    },
    /// A whole number.
    Count {
        /// When left out.
        default: usize,
        /// Smallest.
        least: usize,
        /// Largest.
        most: usize,
    },
    /// A list of whole numbers; may be empty if the default is or if `least_len` is 0.
    Counts {
        /// When left out.
        default: &'static [usize],
        /// Fewest elements.
        least_len: usize,
        /// Smallest element.
        least: usize,
        /// Largest element.
        most: usize,
    },
    /// Yes or no.
    Flag {
        /// When left out.
        default: bool,
    },
    /// One of a few words.
    Choice {
        /// When left out.
        default: &'static str,
        /// The words.
        known: &'static [&'static str],
    },
    /// Any text: the name of a tap.
    Text {
        /// When left out.
        default: &'static str,
    },
    /// A list of texts; none when left out.
    Texts,
    /// What has no value of its own when left out: what another option decides, or what means nothing without it.
    Optional {
        /// What it may be; its default does not count.
        kind: &'static Kind,
        /// What holds when it is left out.
        left_out: &'static str,
    },
}

/// An interval of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// Above 0.
    Positive,
    /// 0 or above.
    NotNegative,
    /// From 0 to below 1: probabilities of dropping, momenta.
    BelowOne,
    /// From 0 to 1.
    Share,
    /// Above 0 and up to 1.
    PositiveShare,
    /// Any finite number.
    Finite,
}

impl Range {
    /// Whether a number is in it; NaN and infinities never are.
    pub fn holds(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Self::Positive => x > 0.0,
                Self::NotNegative => x >= 0.0,
                Self::BelowOne => (0.0..1.0).contains(&x),
                Self::Share => (0.0..=1.0).contains(&x),
                Self::PositiveShare => x > 0.0 && x <= 1.0,
                Self::Finite => true,
            }
    }

    /// For messages: `a number above 0`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Positive => "a number above 0",
            Self::NotNegative => "a number of 0 or above",
            Self::BelowOne => "a number from 0 to below 1",
            Self::Share => "a number from 0 to 1",
            Self::PositiveShare => "a number above 0 and up to 1",
            Self::Finite => "a finite number",
        }
    }
}

/// The value of one option.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Setting {
    Number(f64),
    Count(usize),
    Counts(Vec<usize>),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
}

impl Kind {
    /// The value when the option is left out, if it then has one.
    pub fn default(&self) -> Option<Setting> {
        Some(match *self {
            Self::Number { default, .. } => Setting::Number(default),
            Self::Count { default, .. } => Setting::Count(default),
            Self::Counts { default, .. } => Setting::Counts(default.to_vec()),
            Self::Flag { default } => Setting::Flag(default),
            Self::Choice { default, .. } | Self::Text { default } => Setting::Text(default.to_string()),
            Self::Texts => Setting::Texts(Vec::new()),
            Self::Optional { .. } => return None,
        })
    }

    /// What holds when the option is left out: the value as a recipe writes it, or words.
    pub fn left_out(&self) -> String {
        match *self {
            Self::Optional { left_out, .. } => left_out.into(),
            _ => self.default().map_or_else(String::new, |default| default.to_string()),
        }
    }

    /// What it may be, for messages and docs: `a whole number from 1 to 31`.
    pub fn words(&self) -> String {
        match *self {
            Self::Number { range, .. } => range.words().into(),
            Self::Count { least, most, .. } => format!("a whole number {}", bounds(least, most)),
            Self::Counts { least_len, least, most, .. } => {
                let len = if least_len == 0 { String::new() } else { format!("at least {least_len} and ") };
                format!("a list of {len}at most {MOST_ELEMENTS} whole numbers {}", bounds(least, most))
            }
            Self::Flag { .. } => "true or false".into(),
            Self::Choice { known, .. } => format!("one of {}", known.join(", ")),
            Self::Text { .. } => "a text".into(),
            Self::Texts => "a list of texts".into(),
            Self::Optional { kind, .. } => kind.words(),
        }
    }
}

fn bounds(least: usize, most: usize) -> String {
    if most >= usize::MAX >> 1 { format!("of at least {least}") } else { format!("from {least} to {most}") }
}

impl fmt::Display for Setting {
    /// As a recipe writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(x) => write!(f, "{x:?}"),
            Self::Count(n) => write!(f, "{n}"),
            Self::Counts(list) => write!(f, "{list:?}"),
            Self::Flag(yes) => write!(f, "{yes}"),
            Self::Text(text) => write!(f, "{}", Quoted(text)),
            Self::Texts(list) => {
                let list: Vec<String> = list.iter().map(|text| Quoted(text).to_string()).collect();
                write!(f, "[{}]", list.join(", "))
            }
        }
    }
}

/// A text as TOML writes it, on one line.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// The values of all options of one entry. A getter panics if the entry did not declare the option with that kind,
/// which no input can bring about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(pub BTreeMap<&'static str, Setting>);

impl Options {
    /// Every option as it is when left out.
    pub fn defaults(specs: &[Spec]) -> Self {
        Self(specs.iter().filter_map(|spec| Some((spec.name, spec.kind.default()?))).collect())
    }

    /// Whether an option has a value: one of [`Kind::Optional`] has one only if it is set.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What a getter reads of an option, if it has a value: `options.optional("delta", Options::number)`.
    pub fn optional<'o, T>(&'o self, name: &str, get: fn(&'o Self, &str) -> T) -> Option<T> {
        self.has(name).then(|| get(self, name))
    }

    /// Refuses the first of these options that is set: it means nothing with `found`; it goes with `expected`.
    pub fn refuse_set(&self, names: &[&str], expected: &str, found: &str) -> Result<()> {
        match names.iter().find(|name| self.has(name)) {
            None => Ok(()),
            Some(name) => {
                let action = format!("set that, or leave `{name}` out");
                Err(Refusal::new(format!("option `{name}`"), format!("{expected} with it"), found, action))
            }
        }
    }

    /// The same with one option set; for tests and callers that need no recipe.
    #[must_use]
    pub fn with(mut self, name: &'static str, setting: Setting) -> Self {
        self.0.insert(name, setting);
        self
    }

    /// A [`Kind::Number`].
    pub fn number(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Setting::Number(x)) => *x,
            other => panic!("option `{name}` is no declared number: {other:?}"),
        }
    }

    /// A [`Kind::Count`].
    pub fn count(&self, name: &str) -> usize {
        match self.0.get(name) {
            Some(Setting::Count(n)) => *n,
            other => panic!("option `{name}` is no declared count: {other:?}"),
        }
    }

    /// A [`Kind::Counts`].
    pub fn counts(&self, name: &str) -> &[usize] {
        match self.0.get(name) {
            Some(Setting::Counts(list)) => list,
            other => panic!("option `{name}` is no declared list: {other:?}"),
        }
    }

    /// A [`Kind::Flag`].
    pub fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Setting::Flag(yes)) => *yes,
            other => panic!("option `{name}` is no declared flag: {other:?}"),
        }
    }

    /// A [`Kind::Texts`].
    pub fn texts(&self, name: &str) -> &[String] {
        match self.0.get(name) {
            Some(Setting::Texts(list)) => list,
            other => panic!("option `{name}` is no declared list of texts: {other:?}"),
        }
    }

    /// A [`Kind::Choice`] or [`Kind::Text`].
    pub fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Setting::Text(text)) => text,
            other => panic!("option `{name}` is no declared text: {other:?}"),
        }
    }
}
