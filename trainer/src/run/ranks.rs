//! What training one network in several processes adds to [`fit`](super::fit): each has a part of every batch, all begin
//! alike, and stay so.

use std::path::Path;
use std::sync::Arc;

use kd_runtime::{Result, files};
use sha2::{Digest, Sha256};

use super::checkpoint::{self, Progress};
use super::fit::Job;
use crate::exec::{Parameter, Share};
use crate::group::Group;
use crate::optim::stepper::Stepper;
use crate::recipe::Train;
use crate::schemes::learner::Learner;

/// Room for what a checkpoint holds beside its arrays: a line for each epoch.
const MOST_HISTORY_BYTES: usize = 64 << 20;

/// How this process trains: with its part of each batch.
pub fn part(job: &Job<'_>) -> Train {
    let whole = job.train.batch.min(job.data.train.len());
    let batch = job.group.map_or(job.train.batch, |group| whole.div_ceil(group.of()));
    Train { batch, ..job.train.clone() }
}

/// Its parts of all batches. Where there is none for it, it runs the first sample, which counts nowhere.
pub fn parts(group: &Group, batches: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let part = |batch: &Vec<usize>| match group.part(batch.len()) {
        own if own.is_empty() => batch[..1].to_vec(),
        own => batch[own].to_vec(),
    };
    batches.iter().map(part).collect()
}

/// Its share of a batch of so many samples.
pub fn share(group: &Arc<Group>, samples: usize) -> Share {
    let own = group.part(samples);
    Share { group: Arc::clone(group), first: own.start, samples: own.len() }
}

/// Goes on where rank 0 does: with its checkpoint, if it has one. Refuses ranks whose parameters differ.
pub fn begin_alike(
    group: &Group,
    job: &Job<'_>,
    path: &Path,
    learner: &mut Learner,
    stepper: &mut Stepper,
    progress: &mut Progress,
) -> Result<()> {
    let begun = !progress.history.is_empty();
    let mut bytes = Vec::new();
    if begun && group.leads() {
        bytes = checkpoint::encode(path, job.fingerprint, learner.executor.parameters(), stepper, progress)?;
    }
    let arrays: usize = learner.executor.parameters().iter().map(|p| 2 * size_of_val(&p.value[..])).sum();
    let state: usize = stepper.state().iter().map(|(_, values)| size_of_val(*values)).sum();
    group.broadcast(&mut bytes, arrays + state + MOST_HISTORY_BYTES)?;
    if !bytes.is_empty() && !group.leads() {
        let parameters = learner.executor.parameters_mut();
        *progress = checkpoint::decode(Path::new("rank 0"), &bytes, job.fingerprint, parameters, stepper)?;
    }
    agree(group, job.name, learner.executor.parameters())
}

/// Refuses ranks whose parameters differ from those of rank 0.
pub fn agree(group: &Group, network: &str, parameters: &[Parameter<f32>]) -> Result<()> {
    let mut hash = Sha256::new();
    for parameter in parameters {
        parameter.value.iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    group.agree(&format!("parameters of {network}"), &hash, "report this as a bug")
}

/// Does something on rank 0, and then on all others.
pub fn first_rank_first<T>(group: Option<&Arc<Group>>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(group) = group else { return work() };
    if group.leads() {
        let done = work()?;
        group.gather(&[])?;
        return Ok(done);
    }
    group.gather(&[])?;
    work()
}

/// Refuses ranks that learn from other samples than rank 0.
pub fn same_data(group: &Group, data: &crate::data::Prepared) -> Result<()> {
    let parts = [&data.train, &data.validation, &data.test].map(|samples| samples.sha256());
    group.agree("data", &files::sha256(parts.concat().as_bytes()), "give all ranks the same files")
}
