//! Stratified choices: the same share of every class, at random, the same for every run with the seed.

use std::collections::BTreeMap;

use crate::rng::{Purpose, Rng};

/// Draws `count(n)` of the n places of each class out of `places`; the drawn ones and the rest, each in ascending order.
/// What is drawn of one class does not depend on the others.
pub fn draw(
    labels: &[usize],
    places: &[usize],
    seed: u64,
    purpose: Purpose,
    count: impl Fn(usize) -> usize,
) -> (Vec<usize>, Vec<usize>) {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &place in places {
        classes.entry(labels[place]).or_default().push(place);
    }
    let (mut drawn, mut rest) = (Vec::new(), Vec::new());
    for (class, mut places) in classes {
        Rng::new(seed, purpose, class as u64, 0).shuffle(&mut places);
        let (first, others) = places.split_at(count(places.len()).min(places.len()));
        drawn.extend_from_slice(first);
        rest.extend_from_slice(others);
    }
    drawn.sort_unstable();
    rest.sort_unstable();
    (drawn, rest)
}
