//! A report as JSON: readable, with long lists of numbers on one line.

use serde::Serialize;

use crate::error::Refusal;

/// The text of a report or of any other result.
pub fn pretty(value: &impl Serialize) -> String {
    let mut text = String::new();
    let mut list: Option<String> = None;
    for line in serde_json::to_string_pretty(value).unwrap_or_default().lines() {
        match &mut list {
            Some(open) => {
                let item = line.trim();
                let closes = item.starts_with(']');
                if !closes && !open.ends_with('[') {
                    open.push(' ');
                }
                open.push_str(item);
                if closes {
                    text.push_str(open);
                    text.push('\n');
                    list = None;
                }
            }
            None if line.ends_with("\"samples\": [") || line.ends_with("\"ci\": [") => list = Some(line.to_string()),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// A refusal as an object on one line.
pub fn refusal(refusal: &Refusal) -> String {
    let Refusal { at, expected, found, action, exit } = refusal;
    let exit = *exit as u8;
    serde_json::json!({ "error": { "at": at, "expected": expected, "found": found, "action": action, "exit": exit } })
        .to_string()
}
