//! The exits of a network that is its own teacher: each as a network of its own, all together, and leaving at the first one
//! that is sure.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::results::{Early, Exit, Exits, Score};
use super::session::Session;
use super::{insight, saved};
use crate::data::Samples;
use crate::losses::pair::cut;
use crate::losses::rows::log_sum_exp;
use crate::teacher::largest;

/// Thresholds of the largest probability that are tried.
const THRESHOLDS: [f32; 10] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];

/// What the exits say of samples, from the shallowest to the network's own output.
struct Said {
    /// Of each sample and exit: the largest probability, and whether its class is right.
    exits: Vec<Vec<(f32, bool)>>,
    /// Samples that the mean of all logits answers rightly.
    together: usize,
}

/// Asks all exits; `names` are their logits, the network's output the last.
fn ask(session: &Session<'_>, graph: &Graph, names: &[String], samples: &Samples) -> Result<Said> {
    let mut said = Said { exits: Vec::with_capacity(samples.len()), together: 0 };
    session.ask(graph, names, samples, |logits, labels| {
        let classes = logits[0].len() / labels.len().max(1);
        for (i, &label) in labels.iter().enumerate() {
            let rows: Vec<&[f32]> = logits.iter().map(|logits| &logits[i * classes..][..classes]).collect();
            let sure = |row: &&[f32]| {
                let best = largest(row);
                ((row[best] - log_sum_exp(row, 1.0)).exp(), best == label)
            };
            said.exits.push(rows.iter().map(sure).collect());
            let sum: Vec<f32> = (0..classes).map(|k| rows.iter().map(|row| row[k]).sum()).collect();
            said.together += usize::from(largest(&sum) == label);
        }
        Ok(())
    })?;
    Ok(said)
}

/// What leaving at the first exit that is surer than `threshold` gives: right answers, and how many leave at each exit.
fn leave(said: &Said, threshold: f32) -> (usize, Vec<u64>) {
    let mut left = vec![0; said.exits.first().map_or(0, Vec::len)];
    let mut right = 0;
    for exits in &said.exits {
        let at = exits.iter().position(|(sure, _)| *sure >= threshold).unwrap_or(exits.len() - 1);
        left[at] += 1;
        right += usize::from(exits[at].1);
    }
    (right, left)
}

/// The mean over samples that leave like this.
fn mean_macs(left: &[u64], macs: &[u64]) -> f64 {
    let all = left.iter().sum::<u64>().max(1);
    left.iter().zip(macs).map(|(&n, &macs)| n as f64 * macs as f64).sum::<f64>() / all as f64
}

/// Multiply-accumulates until the logits of each exit are there, those of the exits before it included.
fn macs_until(graph: &Graph, names: &[String]) -> Result<Vec<u64>> {
    let mut macs = Vec::with_capacity(names.len());
    for n in 1..=names.len() {
        let mut part = graph.clone();
        part.outputs = names[..n].iter().filter_map(|name| part.find(name)).collect();
        part.prune();
        macs.push(part.stats()?.macs);
    }
    Ok(macs)
}

/// Reports the exits of a kept network on the test samples, and writes each as a network below that of `name` if wished.
/// The threshold is chosen on the validation samples: the one that costs the least and answers as many of them rightly as
/// the network's own output does; none without any.
pub(super) fn report(
    session: &Session<'_>,
    name: &str,
    graph: &Graph,
    exits: &[String],
    write: bool,
) -> Result<Option<Exits>> {
    if exits.is_empty() {
        return Ok(None);
    }
    let output = &session.data.contract.output.name;
    let mut each = Vec::new();
    for (i, exit) in exits.iter().enumerate() {
        let graph = cut(graph, exit, output)?;
        let answers = session.answers(&graph, &session.data.test)?;
        let score = Score::new(answers.right, session.data.test.len());
        let exit = format!("exit-{}", i + 1);
        if write {
            saved::write_network(&session.folder, &format!("{name}/{exit}"), &graph, &session.data.contract)?;
        }
        each.push(Exit { name: exit, size: saved::size(&graph)?, score });
    }
    let names: Vec<String> = exits.iter().chain([output]).cloned().collect();
    let macs = macs_until(graph, &names)?;
    let (test, n) = (ask(session, graph, &names, &session.data.test)?, session.data.test.len());
    let validation = match session.data.validation.len() {
        0 => None,
        _ => Some(ask(session, graph, &names, &session.data.validation)?),
    };
    let mut chosen: Option<(f64, f32)> = None;
    for threshold in THRESHOLDS.into_iter().filter(|_| validation.is_some()) {
        let Some(said) = &validation else { continue };
        let (right, left) = leave(said, threshold);
        let (own, cost) = (leave(said, f32::INFINITY).0, mean_macs(&left, &macs));
        if right >= own && chosen.is_none_or(|(least, _)| cost < least) {
            chosen = Some((cost, threshold));
        }
    }
    let early = THRESHOLDS.into_iter().map(|confidence| {
        let (right, left) = leave(&test, confidence);
        let mean_macs = mean_macs(&left, &macs);
        Early { confidence, score: Score::new(right, n), mean_macs, left }
    });
    let ece = |exit: usize| insight::calibration_error(test.exits.iter().map(|exits| exits[exit]));
    Ok(Some(Exits {
        each,
        ece: (0..names.len()).map(ece).collect(),
        together: Score::new(test.together, n),
        early: early.collect(),
        chosen: chosen.map(|(_, confidence)| confidence),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_leave_at_the_first_exit_that_is_sure() {
        let exits =
            vec![vec![(0.9, true), (0.6, false)], vec![(0.4, false), (0.95, true)], vec![(0.7, false), (0.3, true)]];
        let said = Said { exits, together: 0 };
        assert_eq!(leave(&said, 0.5), (2, vec![2, 1]));
        assert_eq!(leave(&said, 0.8), (3, vec![1, 2]));
        assert_eq!(leave(&said, f32::INFINITY), (2, vec![0, 3]));
        assert_eq!(mean_macs(&[1, 2], &[10, 40]), 30.0);
    }
}
