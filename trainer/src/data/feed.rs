//! Batches of an epoch in their order, loaded ahead of the step by threads of their own.
//!
//! A batch depends on nothing but its places, so any number of threads gives the same bits. Loader k of n makes the
//! batches k, k + n, k + 2n, …; each has a short queue that the step empties in turn, and gets its buffers back.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, scope};
use std::time::{Duration, Instant};

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};

use super::RawBatch;

/// Batches that wait for the step in each loader's queue.
const AHEAD: usize = 2;

/// Batches that there are at once with so many loaders: in queues, being loaded, and the step's.
pub fn most_batches(loaders: usize) -> usize {
    if loaders == 0 { 1 } else { loaders * (AHEAD + 2) }
}

/// Loads the samples of these places into a batch.
pub type Load<'a> = dyn Fn(&[usize], &mut RawBatch) -> Result<()> + Sync + 'a;

/// Where a step gets its batches from.
pub struct Feed<'a> {
    batches: &'a [Vec<usize>],
    load: &'a Load<'a>,
    /// One a loader; none: each step loads its own.
    lanes: Vec<Lane>,
    at: usize,
    spare: RawBatch,
    began: Instant,
    waited: Duration,
}

/// A loader as the step sees it.
struct Lane {
    loaded: Receiver<Result<RawBatch>>,
    empty: Sender<RawBatch>,
}

/// Runs `steps` with a feed of these batches and so many loaders (0: each step loads its own). Loaders end when `steps`
/// returns, however many batches are left. Refuses a machine that gives no thread (exit 3).
pub fn with<T>(
    loaders: usize,
    batches: &[Vec<usize>],
    load: &Load<'_>,
    steps: impl FnOnce(&mut Feed<'_>) -> Result<T>,
) -> Result<T> {
    scope(|scope| {
        let n = loaders.min(batches.len());
        let lanes = (0..n).map(|k| Lane::start(scope, batches, load, k, n)).collect::<Result<_>>()?;
        let (spare, began) = (RawBatch::default(), Instant::now());
        steps(&mut Feed { batches, load, lanes, at: 0, spare, began, waited: Duration::ZERO })
    })
}

impl Lane {
    fn start<'s>(
        scope: &'s Scope<'s, '_>,
        batches: &'s [Vec<usize>],
        load: &'s Load<'s>,
        first: usize,
        step: usize,
    ) -> Result<Self> {
        let (send, loaded) = sync_channel(AHEAD);
        let (empty, back) = channel();
        let work = move || run(batches.iter().skip(first).step_by(step), load, &send, &back);
        Builder::new().name("kd-load".into()).spawn_scoped(scope, work).map_err(|error| {
            Refusal::new("run.loaders", "a thread that loads", error, "use fewer loaders").with_exit(Exit::Lacking)
        })?;
        Ok(Self { loaded, empty })
    }
}

/// What a loader does: until there is nothing left, nobody takes it, or one could not be loaded.
fn run<'s>(
    batches: impl Iterator<Item = &'s Vec<usize>>,
    load: &Load<'_>,
    loaded: &SyncSender<Result<RawBatch>>,
    empty: &Receiver<RawBatch>,
) {
    for places in batches {
        let mut batch = empty.try_recv().unwrap_or_default();
        let result = load(places, &mut batch).map(|()| batch);
        let failed = result.is_err();
        if loaded.send(result).is_err() || failed {
            return;
        }
    }
}

impl Feed<'_> {
    /// The next batch, or why it could not be loaded: after all batches before it.
    pub fn take(&mut self) -> Result<RawBatch> {
        let began = Instant::now();
        let (at, n) = (self.at, self.lanes.len());
        self.at += 1;
        let batch = match at.checked_rem(n).and_then(|k| self.lanes.get(k)) {
            Some(lane) => lane.loaded.recv().unwrap_or_else(|_| Err(ended(at))),
            None => {
                let mut batch = std::mem::take(&mut self.spare);
                let places = self.batches.get(at).ok_or_else(|| ended(at))?;
                (self.load)(places, &mut batch).map(|()| batch)
            }
        };
        self.waited += began.elapsed();
        batch
    }

    /// Gives back the buffers of the batch that came last.
    pub fn recycle(&mut self, batch: RawBatch) {
        match self.at.checked_sub(1).and_then(|at| at.checked_rem(self.lanes.len())).and_then(|k| self.lanes.get(k)) {
            // A loader that has ended needs none.
            Some(lane) => drop(lane.empty.send(batch)),
            None => self.spare = batch,
        }
    }

    /// Share of the time so far that went into waiting for batches.
    pub fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn ended(at: usize) -> Refusal {
    Refusal::new(format!("batch {at}"), "a batch of the epoch", "none", "this is a defect of kd-train: report it")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn batches(n: usize) -> Vec<Vec<usize>> {
        (0..n).map(|i| vec![3 * i, 3 * i + 1, i]).collect()
    }

    /// A batch that says which places it was made of.
    fn load(places: &[usize], batch: &mut RawBatch) -> Result<()> {
        batch.labels.clear();
        batch.labels.extend_from_slice(places);
        batch.values.resize(64, 0.0);
        Ok(())
    }

    #[test]
    fn batches_come_in_order_from_any_number_of_loaders_in_few_buffers() {
        let batches = batches(23);
        for loaders in [0, 1, 2, 3, 40] {
            let mut seen = Vec::new();
            let mut buffers = BTreeSet::new();
            let done = with(loaders, &batches, &load, |feed| {
                for _ in 0..batches.len() {
                    let batch = feed.take()?;
                    seen.push(batch.labels.clone());
                    buffers.insert(batch.values.as_ptr() as usize);
                    feed.recycle(batch);
                }
                assert!((0.0..=1.0).contains(&feed.wait_share()));
                Ok(())
            });
            assert_eq!((done, &seen), (Ok(()), &batches), "{loaders} loaders");
            assert!(buffers.len() <= most_batches(loaders), "{} buffers of {loaders} loaders", buffers.len());
        }
    }

    #[test]
    fn an_error_comes_after_the_batches_before_it_and_ends_the_loader() {
        let batches = batches(12);
        let fail = |places: &[usize], batch: &mut RawBatch| match places {
            [15, ..] => Err(Refusal::new("sample 15", "an image", "none", "copy it again")),
            _ => load(places, batch),
        };
        for loaders in [0, 1, 2, 5] {
            let mut seen = 0;
            let result = with::<()>(loaders, &batches, &fail, |feed| {
                loop {
                    feed.take()?;
                    seen += 1;
                }
            });
            assert_eq!(seen, 5, "{loaders} loaders");
            assert_eq!(result.err().map(|e| e.at), Some("sample 15".into()));
        }
    }

    #[test]
    fn a_step_that_ends_early_waits_for_no_loader() {
        let batches = batches(1000);
        for loaders in [0, 1, 3] {
            let result: Result<()> = with(loaders, &batches, &load, |feed| {
                feed.take()?;
                Err(Refusal::new("student", "training to end", "SIGTERM", "go on with --resume"))
            });
            assert_eq!(result.err().map(|e| e.at), Some("student".into()), "{loaders} loaders");
        }
    }
}
