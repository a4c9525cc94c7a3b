//! What an epoch's steps come to: means over its samples.

use crate::schemes::learner::StepValues;

/// Values of steps, as far as they are known.
pub struct Means {
    /// Of each term: its values and its weighted values, both times what they count, and that.
    terms: Vec<[f64; 3]>,
    samples: usize,
    labelled: usize,
    right: usize,
}

impl Means {
    /// Of so many terms, before any step.
    pub fn new(terms: usize) -> Self {
        Self { terms: vec![[0.0; 3]; terms], samples: 0, labelled: 0, right: 0 }
    }

    /// Takes in a step.
    pub fn add(&mut self, step: &StepValues) {
        self.samples += step.samples;
        self.labelled += step.labelled;
        self.right += step.right;
        let values = step.terms.iter().zip(&step.weights).zip(&step.counts);
        for ([sum, weighted, counted], ((value, weight), count)) in self.terms.iter_mut().zip(values) {
            *sum += value * count;
            *weighted += weight * value * count;
            *counted += count;
        }
    }

    /// The mean of each term: of cross-entropy over the samples whose class is known, however they lie in batches.
    pub fn terms(&self) -> impl Iterator<Item = f64> {
        self.terms.iter().map(|[sum, _, counted]| over(*sum, *counted))
    }

    /// The sum of the weighted terms' means.
    pub fn loss(&self) -> f64 {
        self.terms.iter().map(|[_, weighted, counted]| over(*weighted, *counted)).sum()
    }

    /// Share of right answers among the samples whose class is known, 0 where there is none.
    pub fn accuracy(&self) -> f64 {
        over(self.right as f64, self.labelled as f64)
    }
}

fn over(sum: f64, counted: f64) -> f64 {
    if counted > 0.0 { sum / counted } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_by_what_its_values_are_means_of() {
        let mut means = Means::new(2);
        // A batch without labels says nothing of the first term; the second one begins with the second batch.
        let step = |labelled: usize, terms: [f64; 2], second: f64| StepValues {
            samples: 4,
            labelled,
            right: labelled / 2,
            terms: terms.to_vec(),
            weights: vec![0.5, second],
            counts: vec![labelled as f64, 4.0],
            ..StepValues::default()
        };
        means.add(&step(0, [0.0, 0.0], 0.0));
        means.add(&step(4, [3.0, 2.0], 1.0));
        means.add(&step(2, [6.0, 4.0], 1.0));
        assert_eq!(means.terms().collect::<Vec<_>>(), [4.0, 2.0]);
        assert_eq!((means.loss(), means.accuracy()), (0.5 * 4.0 + 2.0, 0.5));
        assert_eq!((Means::new(1).loss(), Means::new(1).accuracy()), (0.0, 0.0));
    }
}
