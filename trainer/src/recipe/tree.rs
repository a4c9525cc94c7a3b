//! TOML with a place for everything: where in the file it stands, or which override it came from.

use std::fmt;

use kd_runtime::{Refusal, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::options::Quoted;

/// Longest recipe, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub struct Node {
    /// `recipe.toml:12`, or ``override `train.epochs=3` ``.
    pub at: String,
    /// What it is.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Vec<Entry>),
    /// What no recipe holds: a date, a number that is too large.
    Other(String),
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the key stands.
    pub at: String,
    /// What it is set to.
    pub node: Node,
}

impl Node {
    /// Parses a document; `at` is what messages call it.
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        if text.len() > MOST_BYTES {
            let expected = format!("a recipe of at most {MOST_BYTES} bytes");
            return Err(Refusal::new(at, expected, format!("{} bytes", text.len()), "check the path"));
        }
        let starts: Vec<usize> = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1).collect();
        let place = |offset: usize| format!("{at}:{}", 1 + starts.partition_point(|&start| start <= offset));
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or_else(|| at.to_string(), |span| place(span.start));
            Refusal::new(at, "TOML", first_line(error.message()), "correct the recipe")
        })?;
        Ok(Self { at: at.to_string(), value: Value::Table(entries(table.get_ref(), &place)) })
    }

    /// Sets what `key=value` says: keys and places in lists, joined by dots; the value as TOML, else as text.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let at = format!("override `{}`", shortened(assignment));
        let Some((path, value)) = assignment.split_once('=').filter(|(path, _)| !path.is_empty()) else {
            return Err(Refusal::new(at, "KEY=VALUE", "no key or no `=`", "write it as train.epochs=3"));
        };
        let value = match DeValue::parse(value) {
            Ok(parsed) => value_of(parsed.get_ref(), &|_| at.clone()),
            Err(_) => Value::Text(value.into()),
        };
        let mut node = self;
        for (i, key) in path.split('.').enumerate() {
            let parent = path.split('.').take(i).collect::<Vec<_>>().join(".");
            node = node.child(key.trim(), &parent, &at)?;
        }
        *node = Self { at, value };
        Ok(())
    }

    /// The value of a key, made if it is missing; or the element of a list.
    fn child(&mut self, key: &str, parent: &str, at: &str) -> Result<&mut Self> {
        let found = self.to_string();
        match &mut self.value {
            Value::Table(entries) => {
                let i = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
                    let node = Self { at: at.to_string(), value: Value::Table(Vec::new()) };
                    entries.push(Entry { key: key.into(), at: at.into(), node });
                    entries.len() - 1
                });
                Ok(&mut entries[i].node)
            }
            Value::List(list) => {
                let len = list.len();
                let element = key.parse().ok().and_then(|i: usize| list.get_mut(i));
                element.ok_or_else(|| {
                    let expected = match len {
                        0 => format!("elements in the list `{parent}`"),
                        len => format!("a place from 0 to {} in the list `{parent}`", len - 1),
                    };
                    let action = format!("correct it, or give the whole list as {parent}=[…]");
                    Refusal::new(at, expected, format!("`{key}`"), action)
                })
            }
            _ => {
                let expected = format!("a table or a list at `{parent}`");
                Err(Refusal::new(at, expected, found, "shorten the key"))
            }
        }
    }
}

fn entries(table: &DeTable<'_>, place: &dyn Fn(usize) -> String) -> Vec<Entry> {
    let mut sorted: Vec<_> = table.iter().collect();
    sorted.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let at = place(key.span().start);
        // A table under a header has the span of the header; one that grew from dotted keys may have none.
        let start = value.span().start.max(key.span().start);
        let node = Node { at: place(start), value: value_of(value.get_ref(), place) };
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        Entry { key: key.to_string(), at, node }
    };
    sorted.into_iter().map(entry).collect()
}

/// Recursion is as deep as the parser allows values to be nested (80).
fn value_of(value: &DeValue<'_>, place: &dyn Fn(usize) -> String) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => {
            let whole = i64::from_str_radix(n.as_str(), n.radix());
            whole.map_or_else(|_| Value::Other(n.to_string()), Value::Whole)
        }
        DeValue::Float(x) => x.as_str().parse().map_or_else(|_| Value::Other(x.to_string()), Value::Number),
        DeValue::Boolean(yes) => Value::Flag(*yes),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(list) => {
            let node = |item: &Spanned<DeValue<'_>>| Node {
                at: place(item.span().start),
                value: value_of(item.get_ref(), place),
            };
            Value::List(list.iter().map(node).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, place)),
    }
}

impl fmt::Display for Node {
    /// For messages: short, in backticks where it is what stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(f, "`{}`", Quoted(&shortened(text))),
            Value::Whole(n) => write!(f, "`{n}`"),
            Value::Number(x) => write!(f, "`{x:?}`"),
            Value::Flag(yes) => write!(f, "`{yes}`"),
            Value::List(list) if list.is_empty() => f.write_str("an empty list"),
            Value::List(list) => write!(f, "a list of {}", list.len()),
            Value::Table(_) => f.write_str("a table"),
            Value::Other(text) => write!(f, "`{}`", shortened(text)),
        }
    }
}

/// At most 60 letters of a text.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

fn first_line(text: &str) -> String {
    shortened(text.lines().next().unwrap_or_default())
}
