//! What a run proves: arms × seeds on the test samples. `results.json`, schema `kd.results/1`; it holds no time and no
//! place, so that two runs of one seed are the same byte for byte.

use kd_runtime::budget::ALPHA;
use kd_runtime::measure::stats;
use serde::{Deserialize, Serialize};

use crate::recipe::Keep;

/// The value of `schema`.
pub const SCHEMA: &str = "kd.results/1";

/// All results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// The recipe's `run.name`.
    pub name: String,
    /// The recipe's `train.keep`: which epoch's networks are in the run folder, and are compared.
    pub keep: Kept,
    /// What selects an epoch: `validation` samples, or `last` where there are none.
    #[serde(default)]
    pub selected_on: String,
    /// Who taught.
    pub teachers: Vec<Teacher>,
    /// What was trained, the distilled student first.
    pub arms: Vec<Arm>,
    /// The distilled student against the same student alone, where both were trained.
    pub comparison: Option<Comparison>,
    /// How sure the kept networks of the first seed are: the student, the one alone, and the teachers.
    #[serde(default)]
    pub insights: Vec<Insight>,
    /// How soft what the teachers say is.
    #[serde(default)]
    pub softness: Vec<Softness>,
}

/// How sure a network is of its answers to the test samples, and what it takes for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Insight {
    /// `student`, `baseline`, or `teacher, ` and where it came from.
    pub name: String,
    /// Expected calibration error.
    pub ece: f64,
    /// By the largest probability, in ascending order; those that hold samples.
    pub bins: Vec<Bin>,
    /// Samples by their class and by the class that they are taken for; empty where there are many classes.
    pub confusion: Vec<Vec<u64>>,
}

/// Samples that a network is about as sure of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Mean of the largest probabilities.
    pub confidence: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Samples.
    pub n: u64,
}

/// How soft a teacher's answers to the test samples are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Softness {
    /// Its name.
    pub teacher: String,
    /// What its logits are divided by.
    pub temperature: f64,
    /// Mean entropy of its probabilities.
    pub entropy_nats: f64,
    /// That of no knowledge at all: `ln classes`.
    pub most_nats: f64,
}

/// Which epoch's network is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The selected one.
    Selected,
    /// The last.
    Last,
}

impl From<Keep> for Kept {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Selected => Self::Selected,
            Keep::Last => Self::Last,
        }
    }
}

/// What a network costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Weights and biases.
    pub parameters: u64,
    /// Multiply-accumulates of one sample.
    pub macs: u64,
    /// Of its model.onnx.
    pub bytes: u64,
}

/// Right answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Samples answered rightly.
    pub right: u64,
    /// Samples.
    pub n: u64,
    /// `right / n`.
    pub accuracy: f64,
    /// Two-sided 95 % interval of Clopper and Pearson.
    pub ci: (f64, f64),
}

impl Score {
    /// Of a count.
    pub fn new(right: usize, n: usize) -> Self {
        let (right, n) = (right as u64, n as u64);
        let accuracy = right as f64 / n.max(1) as f64;
        Self { right, n, accuracy, ci: stats::share_interval(right, n, ALPHA) }
    }
}

/// A network that taught.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Teacher {
    /// Where it came from: `run DIR`, `onnx FILE`, `arch NAME`.
    pub name: String,
    /// Of the model file.
    pub sha256: String,
    /// Its share in the mean of all teachers.
    pub weight: f64,
    /// What it costs.
    #[serde(flatten)]
    pub size: Size,
    /// What it was judged on before step 0: `validation`, or `train` where there are no validation samples.
    pub judged_on: String,
    /// Its accuracy there.
    pub judged: Score,
    /// The recipe's `must_reach`.
    pub must_reach: Option<f64>,
    /// On the test samples: reported, never chosen by.
    pub test: Score,
}

/// One way of training the student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// `student` or `baseline`.
    pub name: String,
    /// `distilled` or `alone`.
    pub about: String,
    /// What the network costs.
    #[serde(flatten)]
    pub size: Size,
    /// A run a seed.
    pub seeds: Vec<SeedRun>,
    /// Test accuracy of the last epoch over the seeds.
    pub last: Summary,
    /// Test accuracy of the selected epoch over the seeds.
    pub selected: Summary,
}

/// One seed of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedRun {
    /// The seed.
    pub seed: u64,
    /// Epochs that were trained.
    pub epochs: usize,
    /// Steps of the optimizer in all of them; a replica takes as many as the student alone.
    #[serde(default)]
    pub steps: usize,
    /// The selected one, from 1.
    pub selected_epoch: usize,
    /// On the test samples, after the last epoch.
    pub last: Score,
    /// On the test samples, after the selected epoch.
    pub selected: Score,
    /// Where replicas taught each other: what they are side by side. The run is that of the one which the validation
    /// samples chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Where the network has exits: what they are side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
}

/// Replicas side by side, on the test samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replicas {
    /// The kept network of each.
    pub each: Vec<Score>,
    /// The architecture of each.
    #[serde(default)]
    pub archs: Vec<String>,
    /// Which one is the student, from 1.
    pub chosen: usize,
    /// What training all of them costs, as a multiple of the student alone with as many steps, by multiply-accumulates.
    #[serde(default)]
    pub compute: f64,
    /// By the mean of their probabilities.
    pub ensemble: Score,
    /// Share of samples that two of them answer differently, the mean over all pairs.
    pub churn: f64,
    /// Mean absolute difference of two replicas' probabilities.
    pub distance: f64,
    /// Expected calibration error of each.
    #[serde(default)]
    pub ece: Vec<f64>,
    /// What each costs.
    #[serde(default)]
    pub sizes: Vec<Size>,
}

/// Exits side by side, on the test samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exits {
    /// Each as a network of its own, from the shallowest; the network's own output is not among them.
    pub each: Vec<Exit>,
    /// Expected calibration error of each, and last that of the network's own output.
    #[serde(default)]
    pub ece: Vec<f64>,
    /// By the mean of all logits, the network's own among them.
    pub together: Score,
    /// Samples leaving at the first exit that is sure, by how sure it must be.
    pub early: Vec<Early>,
    /// The one of them that the validation samples choose, if there are any and one of them loses none of their right
    /// answers.
    pub chosen: Option<f32>,
}

/// Leaving at the first exit that is sure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Early {
    /// The largest probability that an exit must give.
    pub confidence: f32,
    /// Right answers.
    pub score: Score,
    /// Multiply-accumulates of a sample, the mean, with those of exits that were not sure.
    pub mean_macs: f64,
    /// Samples that left at each exit; the last number is the network's own output.
    pub left: Vec<u64>,
}

/// An exit as a network of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Its folder below that of the network: `exit-1`.
    pub name: String,
    /// What it costs.
    #[serde(flatten)]
    pub size: Size,
    /// Of the kept network, on the test samples.
    pub score: Score,
}

impl Exits {
    /// What leaving early gives as it was chosen.
    pub fn chosen_early(&self) -> Option<&Early> {
        self.early.iter().find(|early| Some(early.confidence) == self.chosen)
    }
}

impl SeedRun {
    /// Of the network that is kept.
    pub fn kept(&self, keep: Kept) -> Score {
        match keep {
            Kept::Selected => self.selected,
            Kept::Last => self.last,
        }
    }
}

impl Arm {
    /// An arm of its runs, at least one.
    pub fn new(name: &str, about: &str, size: Size, seeds: Vec<SeedRun>) -> Self {
        let over = |of: fn(&SeedRun) -> f64| Summary::of(&seeds.iter().map(of).collect::<Vec<_>>());
        let (last, selected) = (over(|run| run.last.accuracy), over(|run| run.selected.accuracy));
        Self { name: name.into(), about: about.into(), size, seeds, last, selected }
    }

    /// Test accuracy of the kept networks over the seeds.
    pub fn kept(&self, keep: Kept) -> Summary {
        match keep {
            Kept::Selected => self.selected,
            Kept::Last => self.last,
        }
    }
}

/// A figure over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Over the seeds.
    pub mean: f64,
    /// Sample standard deviation; `null` of one seed.
    pub std: Option<f64>,
    /// Seeds.
    pub n: usize,
}

impl Summary {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let (mean, std) = stats::mean_std(values).unwrap_or((0.0, 0.0));
        Self { mean, std: (values.len() > 1).then_some(std), n: values.len() }
    }
}

/// The distilled student against the same student alone: kept networks on the test samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// A pair a seed.
    pub seeds: Vec<Pair>,
    /// Accuracy of the distilled minus that of the one alone, over the seeds.
    pub difference: Summary,
    /// Two-sided 95 % interval of the mean difference by Student's t; `null` of one seed.
    pub ci: Option<(f64, f64)>,
}

/// Two networks of one seed, sample by sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The seed of both.
    pub seed: u64,
    /// Test samples that only the distilled one answered rightly.
    pub only_distilled: u64,
    /// Test samples that only the one alone answered rightly.
    pub only_alone: u64,
    /// Test samples.
    pub n: u64,
    /// McNemar's exact two-sided p-value that both err alike.
    pub mcnemar_p: f64,
}

impl Pair {
    /// Compares predictions of the same samples.
    pub fn new(seed: u64, labels: &[usize], distilled: &[usize], alone: &[usize]) -> Self {
        let only = |yes: &[usize], no: &[usize]| {
            let rows = labels.iter().zip(yes).zip(no);
            rows.filter(|((label, yes), no)| label == yes && label != no).count() as u64
        };
        let (only_distilled, only_alone) = (only(distilled, alone), only(alone, distilled));
        let mcnemar_p = stats::mcnemar(only_distilled, only_alone);
        Self { seed, only_distilled, only_alone, n: labels.len() as u64, mcnemar_p }
    }
}

impl Comparison {
    /// Of at least one pair.
    pub fn new(seeds: Vec<Pair>) -> Self {
        let difference = |pair: &Pair| (pair.only_distilled as f64 - pair.only_alone as f64) / pair.n.max(1) as f64;
        let differences: Vec<f64> = seeds.iter().map(difference).collect();
        let ci = stats::mean_bounds(&differences, ALPHA / 2.0);
        Self { seeds, difference: Summary::of(&differences), ci }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_count_the_samples_that_only_one_got_right() {
        let labels = [0, 1, 2, 0, 1, 2, 0, 1];
        let distilled = [0, 1, 2, 0, 1, 0, 1, 0];
        let alone = [0, 0, 0, 1, 1, 2, 2, 2];
        let pair = Pair::new(7, &labels, &distilled, &alone);
        assert_eq!((pair.only_distilled, pair.only_alone, pair.n), (3, 1, 8));
        // 2 * (C(4, 0) + C(4, 1)) / 2^4.
        assert!((pair.mcnemar_p - 0.625).abs() < 1e-12);
        let one = Comparison::new(vec![pair.clone()]);
        assert_eq!((one.difference.mean, one.difference.std, one.ci), (0.25, None, None));
        let two = Comparison::new(vec![pair.clone(), Pair { seed: 8, only_alone: 3, ..pair }]);
        assert_eq!((two.difference.mean, two.difference.n), (0.125, 2));
        assert!(two.ci.is_some_and(|(low, high)| low < 0.0 && high > 0.25), "{:?}", two.ci);
    }

    #[test]
    fn a_summary_has_the_sample_deviation() {
        let summary = Summary::of(&[0.9, 0.92, 0.94]);
        assert!((summary.mean - 0.92).abs() < 1e-12 && (summary.std.unwrap_or_default() - 0.02).abs() < 1e-12);
        assert_eq!(Summary::of(&[0.5]), Summary { mean: 0.5, std: None, n: 1 });
    }
}
