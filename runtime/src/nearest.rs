//! The nearest known name, for "did you mean".

use alloc::vec::Vec;

/// The one of `known` that `name` was probably meant to be: at most a third of its letters (and at least one) differ by
/// insertions, deletions, changes or swaps of neighbours; the first of the nearest. `None` if nothing is near.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let near = known.iter().map(|&candidate| {
        let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let allowed = (name.len().max(letters.len()) / 3).max(1);
        (distance(&name, &letters), allowed, candidate)
    });
    near.filter(|(d, allowed, _)| d <= allowed).min_by_key(|&(d, _, _)| d).map(|(_, _, candidate)| candidate)
}

/// Optimal string alignment distance, three rows at a time.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = alloc::vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = change.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = core::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let known = ["weight", "temperature", "student", "lr"];
        let cases = [
            ("wieght", Some("weight")),
            ("Temperatur", Some("temperature")),
            ("lr", Some("lr")),
            ("rl", Some("lr")),
            ("momentum", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }
}
