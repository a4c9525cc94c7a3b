//! What a run is to do: `recipe.toml`, checked, with every default filled in.
//!
//! [`read`](parse::read) makes a [`Recipe`] of a file and `key=value` overrides; [`Recipe::to_toml`] writes it complete.

pub mod keys;
pub mod parse;
pub mod precheck;

mod cross;
pub mod stages;
#[cfg(test)]
mod tests;
mod tree;
mod values;
mod write;

pub use cross::check_parts;
pub(crate) use values::suggest;

use std::path::PathBuf;

use crate::gpu::Precision;
use crate::optim::groups::Group;
use crate::options::Options;
use crate::teacher::CacheWish;

/// An entry of a table (architecture, method, optimizer, schedule, augmentation) with checked options.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The entry's name.
    pub name: &'static str,
    /// All its options.
    pub options: Options,
}

/// A checked recipe. Keys are those of the file; see `docs/recipes.md`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// `[run]`
    pub run: Run,
    /// `[data]`
    pub data: Data,
    /// `[teacher]` or `[[teacher]]`; none for training alone.
    pub teachers: Vec<Teacher>,
    /// `[student]`: an entry of `zoo::table::ARCHS`.
    pub student: Choice,
    /// `[train]`
    pub train: Train,
    /// `[distill]`
    pub distill: Distill,
    /// `[compare]`
    pub compare: Compare,
    /// `[budget] file`, relative to the working directory.
    pub budget: Option<PathBuf>,
}

/// `[run]`
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// For people, and the default name of the run folder `runs/NAME`.
    pub name: String,
    /// Decides every random number.
    pub seed: u64,
    /// Where it is computed.
    pub device: Device,
    /// Threads; the result does not depend on it.
    pub threads: usize,
    /// Threads that load batches ahead of the step; the result does not depend on it.
    pub loaders: usize,
    /// Of products on a GPU.
    pub precision: Precision,
}

/// Where a run is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// This machine's processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// `[data]`
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// A name of `kd_runtime::data::FORMATS`.
    pub format: String,
    /// A file or folder, relative to the working directory; empty for embedded data.
    pub path: PathBuf,
    /// How files become samples: an entry of `data::reading::READINGS`; none: as the format does by itself.
    pub read: Option<Choice>,
    /// How raw values are scaled for networks that are made for this data.
    pub normalize: Normalize,
    /// Share of the training samples that is kept (stratified), above 0 and up to 1.
    pub subset: f64,
    /// Names of classes whose training samples are left out.
    pub exclude_classes: Vec<String>,
    /// Share of the training samples whose label the losses see, above 0 and up to 1 (stratified).
    pub labelled: f64,
    /// Share of the training samples that is held out to select an epoch, from 0 to below 1 (stratified).
    pub validation: f64,
    /// Augmentations in order: entries of `data::augment::table::AUGMENTATIONS`.
    pub augment: Vec<Choice>,
}

/// How raw values are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// Raw values as they are.
    None,
    /// To 0..1 where the format knows its range.
    Unit,
    /// As `Unit`, then to mean 0 and deviation 1 per channel of the training samples, of a table per column.
    Standard,
    /// Each channel of a sample to mean 0 and deviation 1 over its own values.
    Sample,
}

/// One teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// Where it comes from.
    pub source: TeacherSource,
    /// Share of right answers on the validation samples (on the training samples without any) below which it is refused.
    pub must_reach: Option<f64>,
    /// Its share in the mean of several teachers; the shares are divided by their sum.
    pub weight: f64,
    /// Whether and how its answers are kept.
    pub cache: CacheWish,
}

/// Where a teacher comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum TeacherSource {
    /// `run = DIR`: the student of another run.
    Run(PathBuf),
    /// `onnx = FILE`, `contract = FILE` (else `contract.json` beside it).
    Onnx {
        /// The model.
        path: PathBuf,
        /// Its contract.
        contract: Option<PathBuf>,
    },
    /// `arch = NAME` and its options: trained first; `epochs`, `batch`, `optimizer`, `schedule` replace those of `[train]`.
    Arch {
        /// The architecture.
        arch: Choice,
        /// How it is trained.
        train: Box<Train>,
    },
}

/// `[train]`
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Batches of a step.
    pub accumulate: usize,
    /// An entry of `optim::table::OPTIMIZERS`.
    pub optimizer: Choice,
    /// An entry of `optim::schedule::SCHEDULES`.
    pub schedule: Choice,
    /// Whether weight decay also acts on biases and normalisations.
    pub decay_norm_and_bias: bool,
    /// Label smoothing of the task's cross-entropy.
    pub label_smoothing: f64,
    /// How much the task's cross-entropy weighs the classes.
    pub class_weights: ClassWeights,
    /// Largest size of an element of the gradient; none: not clipped.
    pub clip_value: Option<f64>,
    /// Largest 2-norm of all gradients together; none: not clipped.
    pub clip_norm: Option<f64>,
    /// Largest 2-norm of the incoming weights of one unit; none: no limit.
    pub max_norm: Option<f64>,
    /// Decay of the moving average of the parameters that is evaluated and kept instead of them; none: no average.
    pub ema: Option<f64>,
    /// Whether that average follows faster at first.
    pub ema_warmup: bool,
    /// What holds for parameters by their names; empty for the teachers that a recipe trains.
    pub groups: Vec<Group>,
    /// Epochs without a better validation accuracy after which training ends; none: never.
    pub patience: Option<usize>,
    /// Which epoch's network is kept as the result.
    pub keep: Keep,
}

/// How much the task's cross-entropy weighs the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassWeights {
    /// Every sample alike.
    Equal,
    /// Every class alike: [`balanced`](crate::losses::ce::balanced).
    Balanced,
}

/// Which epoch's network is kept. Both are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The best by validation accuracy (the last without validation samples); ties go to the lower validation loss.
    Selected,
    /// The last.
    Last,
}

/// `[distill]`
#[derive(Clone, Debug, PartialEq)]
pub struct Distill {
    /// Who teaches.
    pub scheme: Scheme,
    /// Architectures of the replicas that teach each other but for the first, which is the student; empty: all are like it.
    pub peers: Vec<Choice>,
    /// Networks between the teachers and the student, each taught like the student by the one before it; trained first.
    pub assistants: Vec<Choice>,
    /// Epochs before those of `[train]` in which only the terms of the stage `init` count.
    pub init_epochs: usize,
    /// Factor of the task's cross-entropy.
    pub task_weight: f64,
    /// Whether the gradient of each term is measured at the first step of each epoch.
    pub diagnose: bool,
    /// What is handed over.
    pub terms: Vec<Term>,
}

/// Who teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Frozen teachers, or none: methods that need none.
    Offline,
    /// Replicas of the student, or unlike peers, that teach each other.
    Codistill(Codistill),
}

/// How replicas of the student teach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codistill {
    /// How many, at least 2.
    pub replicas: usize,
    /// Steps before any listens to the others; none: those of one epoch.
    pub burn_in_steps: Option<usize>,
    /// Steps between exchanges of parameters, counted from the begin of each epoch; 1: every step sees the others as they are.
    pub exchange_steps: usize,
    /// What each learns from.
    pub shards: Shards,
}

/// Which training samples a replica sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// A share of its own.
    Disjoint,
    /// All of them.
    Same,
}

/// When a term counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the epochs of `[train]`, with the task's loss.
    Main,
    /// In the `init_epochs` before them.
    Init,
    /// In both.
    Both,
}

/// One loss in the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// An entry of `losses::table::METHODS`.
    pub method: Choice,
    /// Its factor.
    pub weight: f64,
    /// When it counts.
    pub stage: Stage,
    /// Multiplies the weight over time: an entry of `optim::schedule::SCHEDULES`.
    pub schedule: Option<Choice>,
}

/// `[compare]`
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Whether the same student is also trained alone, for as many epochs as with its first stage.
    pub baseline: bool,
    /// Seeds of the students; empty: `run.seed` alone. The first one's networks are kept in the run folder.
    pub seeds: Vec<u64>,
}

impl Recipe {
    /// Whether students learn from more than the labels.
    pub fn distills(&self) -> bool {
        !self.distill.terms.is_empty()
    }

    /// The architecture of a replica, from 0: that of `[student]` where no peer has its place.
    pub fn replica(&self, number: usize) -> &Choice {
        number.checked_sub(1).and_then(|i| self.distill.peers.get(i)).unwrap_or(&self.student)
    }

    /// The seeds that are trained, at least one.
    pub fn seeds(&self) -> Vec<u64> {
        if self.compare.seeds.is_empty() { vec![self.run.seed] } else { self.compare.seeds.clone() }
    }
}
