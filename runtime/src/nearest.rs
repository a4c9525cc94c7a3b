//! The known name nearest to a mistyped one, for messages that end with ``did you mean `x`?``.

use alloc::vec::Vec;

/// The nearest of `known`, if it is near enough to be meant: at most one edit in three characters, or a prefix.
/// The first of equally near ones. Names longer than 64 characters are compared by their first 64.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut best: Option<(usize, &'a str)> = None;
    for &candidate in known {
        let letters: Vec<char> = candidate.chars().take(64).collect();
        let prefix =
            name.len() >= 2 && (letters.starts_with(&name) || name.starts_with(&letters) && letters.len() >= 2);
        let distance = if prefix { 1 } else { edits(&name, &letters) };
        let near = distance <= (name.len().max(letters.len()) / 3).max(1);
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbors that turn `a` into `b` (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i);
        for j in 1..=b.len() {
            let mut least = (above[j - 1] + usize::from(a[i - 1] != b[j - 1])).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = core::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_was_meant() {
        let known = ["weight", "temperature", "adamw", "sgd", "resnet8", "resnet20", "kd", "ce"];
        let cases = [
            ("wieght", Some("weight")),
            ("Weight", Some("weight")),
            ("temp", Some("temperature")),
            ("adam", Some("adamw")),
            ("resnet", Some("resnet8")),
            ("resnet-20", Some("resnet20")),
            ("dk", Some("kd")),
            ("banana", None),
            ("", None),
        ];
        let failed: Vec<_> = cases.iter().filter(|(name, expected)| nearest(name, &known) != *expected).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
