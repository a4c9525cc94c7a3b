//! Trains one network, epoch by epoch, from wherever its checkpoint left it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kd_runtime::data::Description;
use kd_runtime::error::Exit;
use kd_runtime::files::refuse_write;
use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Progress};
use super::means::Means;
use super::monitor::{Monitor, lopsided};
use super::ranks;
use super::replicas::{self, Replica};
use super::signals::Stop;
use crate::data::augment::{self, Augment};
use crate::data::feed::{self, Feed};
use crate::data::{self, Counts, Prepared};
use crate::exec::Compute;
use crate::exec::random::mix;
use crate::gpu::Gpu;
use crate::group::Group;
use crate::optim::schedule::SCHEDULES;
use crate::optim::stepper::Stepper;
use crate::recipe::{Data, Distill, Train};
use crate::schemes::learner::Learner;
use crate::schemes::{self, At};
use crate::teacher::{self, Network, Pace};

/// One network to train.
pub struct Job<'a> {
    /// What progress and metrics call it: `teacher`, `student`, `baseline`, with ` seed N` where there are several seeds.
    pub name: &'a str,
    /// The network with its first weights.
    pub graph: &'a Graph,
    /// How.
    pub train: &'a Train,
    /// The section that names the augmentations.
    pub data_section: &'a Data,
    /// What it learns from others; none: from the labels alone.
    pub distill: Option<(&'a Distill, &'a [Network])>,
    /// The data, with the contract of the network.
    pub data: &'a Prepared,
    /// Of order, augmentation and dropout.
    pub seed: u64,
    /// What computes.
    pub compute: Compute<'a>,
    /// Threads that load batches ahead of the step; 0: each step loads its own.
    pub loaders: usize,
    /// Its part where it is one of several that teach each other.
    pub replica: Option<Replica<'a>>,
    /// Who trains it with this process; none: it is alone.
    pub group: Option<&'a Arc<Group>>,
    /// Folder of what its teachers said (made if needed).
    pub caches: &'a Path,
    /// Folder of its checkpoints (made if missing): `state.safetensors`
    pub checkpoints: &'a Path,
    /// Ties a checkpoint to what made it: it is refused by a job with another one.
    pub fingerprint: &'a str,
    /// How long after a checkpoint an epoch's end writes the next one: epochs of small data take milliseconds, and a
    /// checkpoint holds all that went before. The first and the last epoch are always written.
    pub checkpoint_after: Duration,
}

/// One line of an epoch, as `metrics.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Sum of the weighted terms' means over the epoch's samples.
    pub loss: f64,
    /// Mean value of each term, by name.
    pub terms: Vec<(String, f64)>,
    /// Share of right answers while training.
    pub train_accuracy: f64,
    /// On the validation samples; none without.
    pub validation_accuracy: Option<f64>,
    /// Cross-entropy on the validation samples, in nats; none without.
    pub validation_loss: Option<f64>,
    /// Factor of the learning rate at the last step.
    pub lr_factor: f64,
    /// Share of the time of its steps that went into waiting for batches: measured, unlike all else.
    #[serde(default)]
    pub data_wait_share: f64,
    /// The learning rate itself, without the factors of groups.
    pub lr: f64,
    /// The 2-norm of each weighted term's gradient by the student's parameters at the first step, the task's (`ce`) first;
    /// empty unless the recipe asks for it.
    pub gradients: Vec<(String, f64)>,
    /// Where replicas in other processes are listened to: the steps by which what is known of each is older than this one's,
    /// the mean over the epoch's exchanges.
    #[serde(default)]
    pub stale_steps: Vec<(String, f64)>,
}

/// The mean of each name over the lists that have it, in the order of the names.
fn means_by_name(lists: &[Vec<(String, f64)>]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (name, value) in lists.iter().flatten() {
        let (sum, n) = sums.entry(name).or_default();
        (*sum, *n) = (*sum + value, *n + 1.0);
    }
    sums.into_iter().map(|(name, (sum, n))| (name.to_string(), sum / n)).collect()
}

/// A trained network.
pub struct Fitted {
    /// After the last epoch, with the adapters of its terms.
    pub last: Graph,
    /// The same of the selected epoch.
    pub selected: Graph,
    /// Which epoch was selected, from 1.
    pub selected_epoch: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// All epochs.
    pub history: Vec<Epoch>,
    /// Values of both graphs that answer as the output does, from the shallowest.
    pub exits: Vec<String>,
}

/// Trains to the end, or until `stop` asks (then the error carries exit 130 or 143, and names the epoch of the
/// last checkpoint). Continues from the folder's checkpoint if there is one, bit for bit as if it had not been interrupted.
///
/// A last batch of one sample is left out if there are others: a batch norm cannot learn from it. A loss or parameter
/// that is not finite ends it with exit 1; the checkpoint before it stays.
pub fn fit(job: &Job<'_>, stop: &Stop, monitor: &mut dyn Monitor) -> Result<Fitted> {
    let own = ranks::part(job);
    let mut learner = Learner::new(
        job.graph,
        &job.data.contract,
        &own,
        job.distill,
        job.compute,
        &Counts::of(&job.data.train, job.data.description.classes.len()),
        job.seed,
    )?;
    let mut stepper = Stepper::new(job.train, &learner.executor)?;
    let Description { shape, raw_max, .. } = &job.data.description;
    let augment = augment::build(&job.data_section.augment, shape, *raw_max)?;
    let path = job.checkpoints.join("state.safetensors");
    let before = job.checkpoints.join("state.before.safetensors");
    let read = |path: &Path, learner: &mut Learner, stepper: &mut Stepper| {
        checkpoint::read(path, job.fingerprint, learner.executor.parameters_mut(), stepper)
    };
    let mut progress = Progress::default();
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if !job.leads() {
        // What rank 0 has comes from it.
    } else if exists(&path) {
        progress = read(&path, &mut learner, &mut stepper)?;
    } else if exists(&before) {
        progress = read(&before, &mut learner, &mut stepper)?;
    } else {
        fs::create_dir_all(job.checkpoints).map_err(|error| refuse_write(job.checkpoints, &error))?;
    }
    if let Some(group) = job.group {
        ranks::begin_alike(group, job, &path, &mut learner, &mut stepper, &mut progress)?;
    }
    if let Some(replica) = &job.replica {
        let least = replica.agree(progress.history.len())?;
        if least < progress.history.len() {
            // A kill came between the checkpoints of two replicas.
            progress = read(&before, &mut learner, &mut stepper)?;
            if least == progress.history.len() {
                // Another kill before all have written the next one finds it again.
                fs::rename(&before, &path).map_err(|error| refuse_write(&path, &error))?;
            }
        }
        if least != progress.history.len() {
            let expected = format!("a checkpoint of {least} epochs, as another replica has");
            let found = format!("one of {}", progress.history.len());
            return Err(Refusal::new(job.checkpoints.display(), expected, found, "begin anew with --force"));
        }
        if progress.history.is_empty() {
            let parameters = learner.executor.parameters();
            progress.selected = parameters.iter().map(|p| p.value.to_vec()).collect();
            checkpoint::write(&path, job.fingerprint, parameters, &stepper, &progress)?;
        }
    }
    if let Some(replica) = job.replica.as_ref().filter(|_| progress.finished) {
        replica.listen(&learner, &mut |text| monitor.note(text));
    }
    if !progress.finished {
        monitor.begin(job.name, progress.history.len(), job.epochs(), job.data.train.len());
    }
    if !progress.finished {
        let augment_text: Vec<String> =
            job.data_section.augment.iter().map(|choice| format!("{} {:?}", choice.name, choice.options)).collect();
        let feed = schemes::Feed {
            samples: &job.data.train,
            augment: &augment,
            augment_text: &augment_text.join("; "),
            seed: job.seed,
            makes: job.leads(),
        };
        ranks::first_rank_first(job.group, || {
            learner.keep_answers(job.caches, &feed, own.batch, &mut |text| monitor.note(text))
        })?;
    }
    let kept = progress.history.len();
    let mut run =
        Run { job, learner: &mut learner, stepper: &mut stepper, augment: &augment, stop, hears: false, kept };
    let mut written: Option<Instant> = None;
    while !progress.finished {
        let epoch = run.epoch(progress.history.len(), monitor)?;
        run.swap_average();
        run.judge(&mut progress, epoch)?;
        run.swap_average();
        if let Some(group) = job.group {
            ranks::agree(group, job.name, run.learner.executor.parameters())?;
        }
        let together = job.replica.as_ref().is_some_and(Replica::goes_on_together);
        if together && exists(&path) {
            // Kept until all replicas have written theirs of this epoch.
            fs::rename(&path, &before).map_err(|error| refuse_write(&before, &error))?;
        }
        let is_due = written.is_none_or(|at| at.elapsed() >= job.checkpoint_after);
        if job.leads() && (is_due || together || progress.finished) {
            checkpoint::write(&path, job.fingerprint, run.learner.executor.parameters(), run.stepper, &progress)?;
            written = Some(Instant::now());
            run.kept = progress.history.len();
        }
        if let Some(epoch) = progress.history.last() {
            monitor.epoch(job.name, epoch);
        }
    }
    run.swap_average();
    let steps_per_epoch = run.batches(0).len().div_ceil(job.train.accumulate);
    learner.check_teachers_unchanged()?;
    let last = learner.executor.to_graph();
    let parameters = learner.executor.parameters_mut();
    parameters.iter_mut().zip(&progress.selected).for_each(|(p, value)| p.value.copy_from_slice(value));
    let selected = learner.executor.to_graph();
    let exits = learner.exits.iter().map(|exit| exit.name.clone()).collect();
    let Progress { selected_epoch, history, .. } = progress;
    Ok(Fitted { last, selected, selected_epoch, steps_per_epoch, history, exits })
}

impl Fitted {
    /// Steps that were taken.
    pub fn steps(&self) -> usize {
        self.steps_per_epoch * self.history.len()
    }
}

impl Job<'_> {
    /// Epochs of the stage `init`.
    fn init_epochs(&self) -> usize {
        self.distill.map_or(0, |(distill, _)| distill.init_epochs)
    }

    /// Whether this process writes what is kept: it is alone, or the first of its group.
    pub fn leads(&self) -> bool {
        self.group.is_none_or(|group| group.leads())
    }

    /// Epochs of both stages.
    fn epochs(&self) -> usize {
        self.init_epochs() + self.train.epochs
    }
}

/// Samples in their order as batches, without a last one of one sample if there are others.
pub(super) fn batches(order: &[usize], batch: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = order.chunks(batch).map(<[usize]>::to_vec).collect();
    if batches.len() > 1 && batches.last().is_some_and(|last| last.len() == 1) {
        batches.pop();
    }
    batches
}

/// Training on its way.
struct Run<'a> {
    job: &'a Job<'a>,
    learner: &'a mut Learner,
    stepper: &'a mut Stepper,
    augment: &'a [Box<dyn Augment>],
    stop: &'a Stop,
    /// Whether anything was ever heard of another replica.
    hears: bool,
    /// Epochs of the last checkpoint.
    kept: usize,
}

impl Run<'_> {
    /// The batches of an epoch.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let (samples, batch, seed) = (self.job.data.train.len(), self.job.train.batch, self.job.seed);
        match &self.job.replica {
            Some(replica) => replica.batches(samples, batch, seed, epoch),
            None => batches(&data::order(samples, seed, epoch), batch),
        }
    }

    /// Runs epoch number `done` (from 0).
    fn epoch(&mut self, done: usize, monitor: &mut dyn Monitor) -> Result<Epoch> {
        let (samples, seed, augment) = (&self.job.data.train, self.job.seed, self.augment);
        let batches = self.batches(done);
        let own = self.job.group.map(|group| ranks::parts(group, &batches));
        let view = self.learner.begin_epoch(done);
        let replica = self.job.replica.as_ref();
        let load = |places: &[usize], batch: &mut data::RawBatch| {
            if let Some(replica) = replica {
                let (places, pass) = replicas::places_and_pass(places, samples.len());
                data::load(samples, Some(replica.shard), &places, augment, seed, pass, batch);
            } else {
                data::load(samples, None, places, augment, seed, view, batch);
            }
            Ok(())
        };
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        let loaded = own.as_ref().unwrap_or(&batches);
        feed::with(self.job.loaders, loaded, &load, |feed| self.steps(done, &sizes, feed, monitor))
    }

    /// The steps of epoch number `done`, which has batches of so many samples.
    fn steps(&mut self, done: usize, sizes: &[usize], feed: &mut Feed<'_>, monitor: &mut dyn Monitor) -> Result<Epoch> {
        let batches = sizes.len();
        let train = self.job.train;
        let failed = |refusal: Refusal| {
            if self.job.group.is_some() && refusal.exit != Exit::Refused {
                // Of another rank, or a signal while it was waited for.
                return refusal;
            }
            if refusal.exit == Exit::Lacking {
                return refusal.within(self.job.name);
            }
            refusal.within(format!("{}: epoch {}", self.job.name, done + 1)).with_exit(Exit::VerdictFailed)
        };
        let steps_per_epoch = batches.div_ceil(train.accumulate);
        let init_epochs = self.job.init_epochs();
        let init = done < init_epochs;
        let (epochs, before) = if init { (init_epochs, done) } else { (train.epochs, done - init_epochs) };
        let (mut lr_factor, mut gradients) = (0.0, Vec::new());
        let mut means = Means::new(self.learner.term_names.len());
        let mut ages = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let (steps, in_stage) = (steps_per_epoch * epochs, before * steps_per_epoch + i / train.accumulate);
            let batch = feed.take().map_err(failed)?;
            let at = At { init, step: in_stage, steps, steps_per_epoch };
            let mut known = Vec::new();
            let seed = mix(mix(self.job.seed) ^ (done * batches + i) as u64);
            if let Some(replica) = &self.job.replica {
                let step = done * steps_per_epoch + i / train.accumulate;
                if i % train.accumulate.saturating_mul(replica.scheme.exchange_steps) == 0 {
                    // Before others are told of it.
                    known.extend(self.learner.settle().map_err(failed)?);
                    let new = replica.exchange(step, self.learner, &mut |text| monitor.note(text)).map_err(failed)?;
                    self.hears = self.learner.hear(&new);
                    ages.push(replica.ages(step));
                }
                let burns_in = step < replica.scheme.burn_in_steps.unwrap_or(steps_per_epoch);
                self.learner.listens = self.hears && !burns_in;
            }
            self.learner.share = self.job.group.map(|group| ranks::share(group, size));
            known.extend(self.learner.queue(&batch, seed, at).map_err(failed)?);
            feed.recycle(batch);
            if i == 0 || i + 1 == batches {
                known.extend(self.learner.settle().map_err(failed)?);
            }
            if i == 0 {
                if in_stage == 0 && !init {
                    self.learner.check_gradients().map_err(failed)?;
                }
                if self.job.distill.is_some_and(|(distill, _)| distill.diagnose) {
                    gradients = self.learner.gradient_norms().map_err(failed)?;
                    for line in lopsided(&gradients).iter().filter(|_| in_stage == 0) {
                        monitor.note(&format!("{}: epoch {}: {line}", self.job.name, done + 1));
                    }
                }
            }
            let moves = self.learner.moves();
            let Learner { executor, task_gradients, .. } = &mut *self.learner;
            self.stepper.gather(executor.parameters(), task_gradients, &moves, size).map_err(failed)?;
            if (i + 1) % train.accumulate == 0 || i + 1 == batches {
                lr_factor = self.lr_factor(at);
                let Learner { executor, task_gradients, .. } = &mut *self.learner;
                let stepper = &mut *self.stepper;
                executor.update(|parameters| stepper.step(parameters, task_gradients, lr_factor));
            }
            for values in known {
                means.add(&values);
                let names = self.learner.term_names.iter().map(String::as_str);
                let terms: Vec<(&str, f64)> = names.zip(means.terms()).collect();
                monitor.step(values.samples, &terms, means.accuracy());
            }
            if let Some((signal, exit)) = self.stop.asked() {
                let found = format!("{signal} after epoch {} of {}", self.kept, self.job.epochs());
                return Err(
                    Refusal::new(self.job.name, "training to end", found, "go on with --resume").with_exit(exit)
                );
            }
        }
        self.learner.executor.gpu().map_or(Ok(()), Gpu::wait).map_err(failed)?;
        self.check_finite().map_err(failed)?;
        Ok(Epoch {
            epoch: done + 1,
            loss: means.loss(),
            terms: self.learner.term_names.iter().cloned().zip(means.terms()).collect(),
            train_accuracy: means.accuracy(),
            validation_accuracy: None,
            validation_loss: None,
            lr_factor,
            data_wait_share: feed.wait_share(),
            lr: lr_factor * train.optimizer.options.number("lr"),
            gradients,
            stale_steps: means_by_name(&ages),
        })
    }

    /// Exchanges the parameters for their average, if there is one, or back.
    fn swap_average(&mut self) {
        self.stepper.swap_average(self.learner.executor.parameters_mut());
    }

    /// Factor of the learning rate.
    fn lr_factor(&self, at: At) -> f64 {
        let train = self.job.train;
        let schedule = SCHEDULES.iter().find(|schedule| schedule.name == train.schedule.name);
        let schedule = schedule.expect("a checked choice names a row");
        (schedule.factor)(&train.schedule.options, at.step, at.steps, at.steps_per_epoch)
    }

    fn check_finite(&self) -> Result<()> {
        for p in self.learner.executor.parameters() {
            if let Some(x) = p.value.iter().find(|x| !x.is_finite()) {
                let at = format!("parameter `{}`", p.name);
                return Err(Refusal::new(at, "finite numbers", x, "lower the learning rate or check the data"));
            }
        }
        Ok(())
    }

    /// Evaluates on the validation samples, selects, and says whether training ends. The test samples are never seen.
    fn judge(&self, progress: &mut Progress, mut epoch: Epoch) -> Result<()> {
        let (job, validation) = (self.job, &self.job.data.validation);
        let (init, mut better) = (job.init_epochs(), true);
        if !validation.is_empty() {
            let mut judged = [0.0; 2];
            if job.leads() {
                let graph = self.learner.network()?;
                let pace = Pace { batch: job.train.batch, compute: job.compute };
                let answers = teacher::evaluate(&graph, &job.data.contract, validation, pace)?;
                judged = [answers.right as f64 / validation.len() as f64, answers.loss];
            }
            job.group.map_or(Ok(()), |group| group.told(&mut judged))?;
            let [accuracy, loss] = judged;
            (epoch.validation_accuracy, epoch.validation_loss) = (Some(accuracy), Some(loss));
            let best = progress.history.get(progress.selected_epoch.wrapping_sub(1));
            // A network of the first stage may never have learned the task: it competes with none of the second.
            let is_first = epoch.epoch > init && progress.selected_epoch <= init;
            better = is_first
                || best.is_none_or(|best| {
                    let (a, l) =
                        (best.validation_accuracy.unwrap_or(0.0), best.validation_loss.unwrap_or(f64::INFINITY));
                    accuracy > a || (accuracy == a && loss < l)
                });
        }
        if better {
            progress.selected_epoch = epoch.epoch;
            progress.selected = self.learner.executor.parameters().iter().map(|p| p.value.to_vec()).collect();
        }
        let waited = epoch.epoch - progress.selected_epoch;
        let impatient = epoch.epoch > init && job.train.patience.is_some_and(|most| waited >= most);
        progress.finished = epoch.epoch >= job.epochs() || impatient;
        progress.history.push(epoch);
        Ok(())
    }
}
