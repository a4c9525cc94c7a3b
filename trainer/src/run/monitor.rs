//! What a person sees of a run: bars on a terminal, plain lines otherwise; and `metrics.jsonl`.

use super::fit::Epoch;

/// Is told how training goes.
pub trait Monitor {
    /// A network begins (or goes on) at `epoch` (from 0) of `epochs`, with so many samples an epoch.
    fn begin(&mut self, name: &str, epoch: usize, epochs: usize, samples: usize);
    /// So many samples were just done; the means so far of the epoch's terms, and the accuracy so far.
    fn step(&mut self, samples: usize, terms: &[(&str, f64)], accuracy: f64);
    /// An epoch is done and saved.
    fn epoch(&mut self, name: &str, epoch: &Epoch);
    /// A remark of one line.
    fn note(&mut self, text: &str);
}
