//! Checked values of keys and entries of tables.

use kd_runtime::nearest::nearest;
use kd_runtime::{Refusal, Result};

use super::Choice;
use super::keys::{Form, Key, LeftOut, Table};
use super::tree::{Entry, Node, Value, shortened};
use crate::options::{Kind, MOST_ELEMENTS, Options, Setting, Spec};

/// A table of the recipe whose keys are all known.
pub struct Keys<'a> {
    /// Its dotted path: `train`, `distill.terms.0`.
    pub path: String,
    /// Where it stands.
    pub at: &'a str,
    entries: &'a [Entry],
}

impl<'a> Keys<'a> {
    /// Opens a table with any keys; [`Keys::only`] checks them.
    pub fn open(node: &'a Node, path: &str) -> Result<Self> {
        match &node.value {
            Value::Table(entries) => Ok(Self { path: path.into(), at: &node.at, entries }),
            _ => {
                let action =
                    if path.contains('.') { "write it as { … }".into() } else { format!("write it as [{path}]") };
                Err(Refusal::new(place(&node.at, path), "a table of keys", node, action))
            }
        }
    }

    /// A table that is not there, in the file `at`.
    pub fn none(at: &'a str, path: &str) -> Self {
        Self { path: path.into(), at, entries: &[] }
    }

    /// Refuses a key that is not known; `what` says whose keys these are.
    pub fn only(self, known: &[&str], what: &str) -> Result<Self> {
        match self.entries.iter().find(|entry| !known.contains(&&*entry.key)) {
            None => Ok(self),
            Some(entry) => Err(Refusal::new(
                self.place_of(&entry.key),
                format!("a key of {what}"),
                format!("`{}`", shortened(&entry.key)),
                suggest(&entry.key, known),
            )),
        }
    }

    /// What a key is set to.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The path of a key.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { shortened(key) } else { format!("{}.{}", self.path, shortened(key)) }
    }

    /// Where a key stands (the table, if it is not there), and its path: how a message begins.
    pub fn place_of(&self, key: &str) -> String {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        place(entry.map_or(self.at, |entry| &entry.at), &self.path_of(key))
    }

    /// The value of a key: as it is set, or as it is when left out; `None` where nothing is set then.
    fn setting(&self, key: &Key) -> Result<Option<Setting>> {
        let Form::Setting(kind) = key.form else { return Ok(None) };
        match (self.get(key.name), key.left_out) {
            (Some(node), _) => setting(&kind, node, &self.path_of(key.name), hint(key)).map(Some),
            (None, LeftOut::Default) => Ok(kind.default()),
            (None, LeftOut::Required) => {
                Err(Refusal::new(self.place_of(key.name), key.about, "nothing", format!("set `{}`", key.name)))
            }
            (None, _) => Ok(None),
        }
    }

    /// The values of all keys of [`Form::Setting`] for which something is set.
    pub fn settings(&self, keys: &[Key]) -> Result<Options> {
        let mut options = Options::default();
        for key in keys {
            if let Some(setting) = self.setting(key)? {
                options.0.insert(key.name, setting);
            }
        }
        Ok(options)
    }

    /// All options of an entry.
    pub fn options(&self, specs: &[Spec]) -> Result<Options> {
        let mut options = Options::defaults(specs);
        for spec in specs {
            if let Some(node) = self.get(spec.name) {
                let action = format!("correct it, or leave it out for {}", spec.kind.left_out());
                options.0.insert(spec.name, setting(&spec.kind, node, &self.path_of(spec.name), action)?);
            }
        }
        Ok(options)
    }

    /// The entry that this table names by the table's key, among whose options other keys (`beside`) may stand.
    pub fn choice(self, table: &'static Table, beside: &[&str]) -> Result<(Choice, Self)> {
        let path = self.path_of(table.key);
        let Some(node) = self.get(table.key) else {
            let expected = format!("{} ({})", table.singular(), table.names().join(", "));
            let action = format!("name one with `{}`", table.key);
            return Err(Refusal::new(place(self.at, &path), expected, "nothing", action));
        };
        let name = text(node, &path, table.what)?;
        let names = table.names();
        let refuse = || Refusal::new(place(&node.at, &path), table.singular(), node, suggest(name, &names));
        let row = table.row(name).ok_or_else(refuse)?;
        let options = row.options.iter().map(|spec| spec.name);
        let known: Vec<&str> = std::iter::once(table.key).chain(beside.iter().copied()).chain(options).collect();
        let keys = self.only(&known, &format!("{} `{}`", table.what, row.name))?;
        Ok((Choice { name: row.name, options: keys.options(row.options)? }, keys))
    }
}

/// How a message begins: where it stands, and its path.
pub fn place(at: &str, path: &str) -> String {
    if path.is_empty() { at.into() } else { format!("{at}: {path}") }
}

/// What to do about an unknown name.
pub fn suggest(name: &str, known: &[&str]) -> String {
    let longer = known.iter().filter(|known| name.len() > 3 && known.contains(name));
    let longer: Vec<String> = longer.map(|known| format!("`{known}`")).collect();
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if !longer.is_empty() => format!("did you mean {}?", longer.join(" or ")),
        None => format!("known are {}", known.join(", ")),
    }
}

fn hint(key: &Key) -> String {
    match key.left_out {
        LeftOut::Required => "correct it".into(),
        LeftOut::Words(words) => format!("correct it, or leave it out ({words})"),
        _ => format!("correct it, or leave it out for {}", key.default_words().replace('`', "")),
    }
}

/// A text.
pub fn text<'a>(node: &'a Node, path: &str, what: &str) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(Refusal::new(place(&node.at, path), format!("a text: {what}"), node, "put it in quotes")),
    }
}

/// The elements of a list that is not too long.
pub fn list<'a>(node: &'a Node, path: &str, words: &str) -> Result<&'a [Node]> {
    let refuse = |found: String| Err(Refusal::new(place(&node.at, path), words, found, "correct the recipe"));
    match &node.value {
        Value::List(list) if list.len() <= MOST_ELEMENTS => Ok(list),
        Value::List(list) => refuse(format!("{} elements, above {MOST_ELEMENTS}", list.len())),
        _ => refuse(node.to_string()),
    }
}

/// A value of this kind; `action` says what to do about another.
fn setting(kind: &Kind, node: &Node, path: &str, action: String) -> Result<Setting> {
    if let Kind::Optional { kind, .. } = kind {
        return setting(kind, node, path, action);
    }
    let refuse = |node: &Node| Refusal::new(place(&node.at, path), kind.words(), node, &action);
    let whole = |node: &Node, least: usize, most: usize| match node.value {
        Value::Whole(n) => usize::try_from(n).ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| refuse(node)),
        _ => Err(refuse(node)),
    };
    match (*kind, &node.value) {
        (Kind::Number { range, .. }, Value::Number(x)) if range.holds(*x) => Ok(Setting::Number(*x)),
        (Kind::Number { range, .. }, Value::Whole(n)) if range.holds(*n as f64) => Ok(Setting::Number(*n as f64)),
        (Kind::Count { least, most, .. }, _) => whole(node, least, most).map(Setting::Count),
        (Kind::Counts { least_len, least, most, .. }, Value::List(items)) => {
            if items.len() < least_len || items.len() > MOST_ELEMENTS {
                return Err(refuse(node));
            }
            items.iter().map(|item| whole(item, least, most)).collect::<Result<_>>().map(Setting::Counts)
        }
        (Kind::Flag { .. }, Value::Flag(yes)) => Ok(Setting::Flag(*yes)),
        (Kind::Choice { known, .. }, Value::Text(text)) => match known.contains(&&**text) {
            true => Ok(Setting::Text(text.clone())),
            false => Err(Refusal { action: suggest(text, known), ..refuse(node) }),
        },
        (Kind::Text { .. }, Value::Text(text)) => Ok(Setting::Text(text.clone())),
        (Kind::Texts, Value::List(items)) if items.len() <= MOST_ELEMENTS => {
            let text = |item: &Node| match &item.value {
                Value::Text(text) => Ok(text.clone()),
                _ => Err(refuse(item)),
            };
            items.iter().map(text).collect::<Result<_>>().map(Setting::Texts)
        }
        _ => Err(refuse(node)),
    }
}
