//! Codistillation: replicas of the student, each with first weights, samples and order of its own, train side by side, in
//! this process or in several, and listen to each other every few steps (Anil et al. 2018, arXiv 1804.03235, algorithm 1).

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result, files};

use super::fit::{self, Epoch, Fitted};
use super::monitor::Monitor;
use super::report::Curve;
use super::session::Session;
use crate::data::{self, Samples};
use crate::exec::random::mix;
use crate::losses::rows::log_sum_exp;
use crate::recipe::precheck::replica_name;
use crate::recipe::{Codistill, Shards};
use crate::rng::{Purpose, Rng};
use crate::schemes::exchange::{self, Exchange, Place};
use crate::schemes::learner::Learner;
use crate::schemes::meeting::{Meeting, Snapshot};
use crate::teacher::{CacheWish, Network, largest};

/// One replica's part, as [`fit`](super::fit::fit) sees it.
pub struct Replica<'a> {
    /// Where the others are met.
    pub peers: Peers<'a>,
    /// How often they meet and when they begin to listen.
    pub scheme: Codistill,
    /// Places of the training samples that it learns from, in no order.
    pub shard: &'a [usize],
    /// Its number, from 0.
    pub me: usize,
}

/// Where the others are.
pub enum Peers<'a> {
    /// In this process, each in a thread of its own: all meet at the same steps.
    Here(&'a Meeting),
    /// In other processes, whatever step they are at.
    Elsewhere(&'a Mutex<Exchange>),
}

impl Replica<'_> {
    /// The fewest epochs that any replica has done: where all in this process go on from.
    pub fn agree(&self, epochs: usize) -> Result<usize> {
        let Peers::Here(meeting) = self.peers else { return Ok(epochs) };
        let others = meeting.exchange(self.me, vec![("epochs".into(), vec![epochs as f32])])?;
        Ok(others.iter().filter_map(|other| other.first()?.1.first()).fold(epochs, |least, &n| least.min(n as usize)))
    }

    /// Whether all replicas are where this one is when they go on after a kill.
    pub fn goes_on_together(&self) -> bool {
        matches!(self.peers, Peers::Here(_))
    }

    /// Leaves the parameters of this step and gives what is new of each other replica.
    pub fn exchange(
        &self,
        step: usize,
        learner: &Learner,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Option<Snapshot>>> {
        match self.peers {
            Peers::Here(meeting) => Ok(meeting.exchange(self.me, learner.snapshot())?.into_iter().map(Some).collect()),
            Peers::Elsewhere(exchange) => {
                Ok(locked(exchange).exchange(step as u64, &learner.left(), &learner.listened_to(), note))
            }
        }
    }

    /// Of a replica that was finished before this process began: looks for what the others have left, for the report.
    pub fn listen(&self, learner: &Learner, note: &mut dyn FnMut(&str)) {
        if let Peers::Elsewhere(exchange) = self.peers {
            locked(exchange).listen(&learner.listened_to(), note);
        }
    }

    /// The batches of an epoch: as many as an epoch over all `samples` has, so that a replica takes the steps of a network
    /// that learns alone. Its share is passed over as often as that takes, each time in another order and with other
    /// augmentations; no batch reaches into the next pass. [`places_and_pass`] says what the numbers mean.
    pub fn batches(&self, samples: usize, batch: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
        let mut mine = vec![false; samples];
        self.shard.iter().for_each(|&place| mine[place] = true);
        let steps = fit::batches(&data::order(samples, seed, epoch), batch).len();
        let passes = steps.div_ceil(fit::batches(self.shard, batch).len().max(1));
        let pass = |pass: usize| {
            let mut order = data::order(samples, seed, pass);
            order.retain(|&place| mine[place]);
            order.iter_mut().for_each(|place| *place += pass * samples);
            fit::batches(&order, batch)
        };
        (epoch * passes..(epoch + 1) * passes).flat_map(pass).take(steps).collect()
    }

    /// For each other replica by how many steps what was last heard of it is older than `step`; none in this process.
    pub fn ages(&self, step: usize) -> Vec<(String, f64)> {
        let Peers::Elsewhere(exchange) = self.peers else { return Vec::new() };
        locked(exchange).ages(step as u64).into_iter().map(|(replica, age)| (replica_name(replica - 1), age)).collect()
    }
}

fn locked(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A seed that no two of a run's networks of one kind share, and that is the run's own for the first.
pub fn seed(run: u64, number: usize) -> u64 {
    if number == 0 { run } else { mix(mix(run) ^ number as u64) >> 1 }
}

/// The places that each replica learns from: all of them, or shares of one size that have none in common.
pub fn shards(samples: usize, scheme: &Codistill, run: u64) -> Result<Vec<Vec<usize>>> {
    let all: Vec<usize> = (0..samples).collect();
    if scheme.shards == Shards::Same {
        return Ok(vec![all; scheme.replicas]);
    }
    let each = samples / scheme.replicas;
    if each == 0 {
        let expected = format!("at least {} training samples, one a replica", scheme.replicas);
        let action = "use fewer replicas, or shards = \"same\"";
        return Err(Refusal::new("distill.replicas", expected, samples, action));
    }
    let mut order = all;
    Rng::new(run, Purpose::Shard, 0, 0).shuffle(&mut order);
    Ok(order.chunks_exact(each).take(scheme.replicas).map(<[usize]>::to_vec).collect())
}

/// What the numbers of a replica's batch mean: the samples' places, and which pass over its share it is; they count on from
/// pass to pass.
pub fn places_and_pass(batch: &[usize], samples: usize) -> (Vec<usize>, usize) {
    (batch.iter().map(|place| place % samples).collect(), batch.first().map_or(0, |place| place / samples))
}

/// What training all replicas costs, as a multiple of as many steps of replica `student` alone, by multiply-accumulates:
/// a step is a forward pass and a backward pass of twice its cost, and from the end of the burn-in on a forward pass of
/// each other replica. `listening` is the share of the steps behind the burn-in.
pub fn compute(macs: &[u64], student: usize, listening: f64) -> f64 {
    let all = macs.iter().sum::<u64>() as f64;
    let one = |own: &u64| 3.0 * *own as f64 + listening * (all - *own as f64);
    macs.iter().map(one).sum::<f64>() / (3.0 * macs[student].max(1) as f64)
}

/// Trains all replicas of a seed to their ends; an error of one ends all.
pub(super) fn fit_all(session: &mut Session<'_>, scheme: Codistill, run: u64) -> Result<Vec<Fitted>> {
    let shards = shards(session.data.train.len(), &scheme, run)?;
    let first: Vec<Graph> = (0..scheme.replicas).map(|i| session.first_replica(i, run)).collect::<Result<_>>()?;
    let meeting = Meeting::new(scheme.replicas);
    let (jobs, shared) = session.share();
    let monitor = Mutex::new(shared);
    let fitted: Vec<Result<Fitted>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..scheme.replicas)
            .map(|me| {
                let (meeting, monitor, first, shard, jobs) = (&meeting, &monitor, &first, &shards[me], &jobs);
                scope.spawn(move || {
                    let _guard = meeting.guard();
                    let replica = Replica { peers: Peers::Here(meeting), me, scheme, shard };
                    let mut forward = Forward { monitor, shows: me == 0 };
                    let peers = peers(first, me, jobs.contract());
                    let name = replica_name(me);
                    let train = &jobs.recipe.train;
                    let fitted = jobs.fit(&name, &first[me], train, Some(&peers), run, Some(replica), &mut forward);
                    if let Err(error) = &fitted {
                        meeting.end(&error.to_string());
                    }
                    fitted
                })
            })
            .collect();
        let lost = || Err(Refusal::new("replica", "an end", "a panic", "report this as a bug"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let shown: Vec<String> = (0..scheme.replicas).map(|me| jobs.shown(&replica_name(me), run)).collect();
    // The first error is that of the replica that ended the others; theirs only say so.
    let told = |error: &Refusal| error.at == "codistillation";
    let mut errors: Vec<Refusal> = Vec::new();
    let mut all = Vec::new();
    for (name, result) in shown.into_iter().zip(fitted) {
        match result {
            Ok(fitted) => {
                session.curves.push(Curve { name, history: fitted.history.clone() });
                all.push(fitted);
            }
            Err(error) => errors.push(error),
        }
    }
    errors.sort_by_key(told);
    errors.into_iter().next().map_or(Ok(all), Err)
}

/// Trains one replica of a seed while others train in other processes, and gives the networks of the others as they were
/// last heard, in their order; `None` of one that never was.
pub(super) fn fit_one(
    session: &mut Session<'_>,
    scheme: Codistill,
    run: u64,
    place: &Place,
) -> Result<(Fitted, Vec<Option<Graph>>)> {
    let me = place.me - 1;
    let shards = shards(session.data.train.len(), &scheme, run)?;
    let first: Vec<Graph> = (0..scheme.replicas).map(|i| session.first_replica(i, run)).collect::<Result<_>>()?;
    let of = [session.recipe.fingerprint(), session.data.description.sha256.clone()].join(" ");
    let (kept, start) = start_of(session, me, run);
    let is_new = start.is_none();
    let start = start.unwrap_or_else(exchange::new_start);
    // A place that never answered is no place; later an outage stops nothing.
    let must = is_new && session.curves.is_empty();
    let exchange = Exchange::open(place, &files::sha256(of.as_bytes()), &format!("seed-{run}"), &start, must)?;
    if is_new {
        session.folder.write(&kept, start.as_bytes())?;
    }
    let exchange = Mutex::new(exchange);
    let (jobs, monitor) = session.share();
    let peers = peers(&first, me, jobs.contract());
    let replica = Replica { peers: Peers::Elsewhere(&exchange), me, scheme, shard: &shards[me] };
    let (name, shown) = (replica_name(me), jobs.shown(&replica_name(me), run));
    let fitted = jobs.fit(&name, &first[me], &jobs.recipe.train, Some(&peers), run, Some(replica), monitor)?;
    let heard = locked(&exchange);
    let others = heard.heard().map(|(replica, snapshot)| {
        let mut graph = first[replica - 1].clone();
        for (name, values) in snapshot?.iter() {
            let tensor = graph.find(name).and_then(|id| graph.initializers.get_mut(&id));
            if let Some(tensor) = tensor.and_then(|tensor| tensor.get_mut::<f32>()) {
                tensor.copy_from_slice(values);
            }
        }
        Some(graph)
    });
    let others = others.collect();
    drop(heard);
    session.curves.push(Curve { name: shown, history: fitted.history.clone() });
    Ok((fitted, others))
}

/// Where the folder keeps the name of a replica's start, and that name where the replica is resumed.
fn start_of(session: &Session<'_>, me: usize, run: u64) -> (String, Option<String>) {
    let name = format!("checkpoints/{}-seed{run}/start", replica_name(me));
    let kept = fs::read_to_string(session.folder.path().join(&name)).ok();
    (name, kept.filter(|start| exchange::is_start(start)))
}

/// The networks that a replica listens to: what they are before the first meeting.
fn peers(first: &[Graph], me: usize, contract: &kd_runtime::contract::Contract) -> Vec<Network> {
    let others = first.iter().enumerate().filter(|(i, _)| *i != me);
    let peer = |(i, graph): (usize, &Graph)| Network {
        name: format!("replica {}", i + 1),
        graph: graph.clone(),
        contract: contract.clone(),
        sha256: String::new(),
        weight: 1.0 / (first.len() - 1) as f64,
        cache: CacheWish::OFF,
        notes: Vec::new(),
    };
    others.map(peer).collect()
}

/// One monitor for all replicas: the first one moves its bar.
struct Forward<'a, 'm> {
    monitor: &'a Mutex<&'m mut dyn Monitor>,
    shows: bool,
}

impl Forward<'_, '_> {
    fn with(&self, f: impl FnOnce(&mut dyn Monitor)) {
        f(&mut **self.monitor.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Monitor for Forward<'_, '_> {
    fn begin(&mut self, name: &str, epoch: usize, epochs: usize, samples: usize) {
        if self.shows {
            self.with(|monitor| monitor.begin(name, epoch, epochs, samples));
        }
    }

    fn step(&mut self, samples: usize, terms: &[(&str, f64)], accuracy: f64) {
        if self.shows {
            self.with(|monitor| monitor.step(samples, terms, accuracy));
        }
    }

    fn epoch(&mut self, name: &str, epoch: &Epoch) {
        self.with(|monitor| monitor.epoch(name, epoch));
    }

    fn note(&mut self, text: &str) {
        if self.shows {
            self.with(|monitor| monitor.note(text));
        }
    }
}

/// What several networks answer together.
pub struct Together {
    /// Predicted class of each sample by the mean of their probabilities.
    pub predicted: Vec<usize>,
    /// Samples that the mean of their probabilities answers rightly.
    pub right: usize,
    /// Prediction churn: share of samples that two of them answer differently, the mean over all pairs.
    pub churn: f64,
    /// Mean over pairs, samples and classes of the absolute difference of their probabilities.
    pub distance: f64,
}

/// Asks several networks of one contract about the same samples.
pub(super) fn together(session: &Session<'_>, graphs: &[Graph], samples: &Samples) -> Result<Together> {
    let output = &session.data.contract.output;
    let classes = output.classes.len().max(1);
    let (mut probabilities, mut labels) = (Vec::with_capacity(graphs.len()), Vec::new());
    for graph in graphs {
        let mut own: Vec<f32> = Vec::with_capacity(samples.len() * classes);
        labels.clear();
        session.ask(graph, std::slice::from_ref(&output.name), samples, |values, of| {
            for row in values[0].chunks_exact(classes) {
                let shift = log_sum_exp(row, 1.0);
                own.extend(row.iter().map(|z| (z - shift).exp()));
            }
            labels.extend_from_slice(of);
            Ok(())
        })?;
        probabilities.push(own);
    }
    let mut out = Together { predicted: Vec::with_capacity(samples.len()), right: 0, churn: 0.0, distance: 0.0 };
    for (i, &label) in labels.iter().enumerate() {
        let rows: Vec<&[f32]> = probabilities.iter().map(|own| &own[i * classes..(i + 1) * classes]).collect();
        let mean: Vec<f32> =
            (0..classes).map(|k| rows.iter().map(|row| row[k]).sum::<f32>() / rows.len() as f32).collect();
        out.predicted.push(largest(&mean));
        out.right += usize::from(largest(&mean) == label);
        for (a, one) in rows.iter().enumerate() {
            for other in &rows[..a] {
                out.churn += f64::from(u8::from(largest(one) != largest(other)));
                let off = one.iter().zip(*other).map(|(p, q)| f64::from((p - q).abs()));
                out.distance += off.sum::<f64>() / classes as f64;
            }
        }
    }
    let pairs = (graphs.len() * graphs.len().saturating_sub(1) / 2).max(1) * samples.len().max(1);
    out.churn /= pairs as f64;
    out.distance /= pairs as f64;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_of_one_size_and_share_no_sample() {
        let scheme = Codistill { replicas: 3, burn_in_steps: Some(0), exchange_steps: 1, shards: Shards::Disjoint };
        let shards = shards(20, &scheme, 1).unwrap();
        let mut all: Vec<usize> = shards.concat();
        assert!(shards.iter().all(|shard| shard.len() == 6) && all.len() == 18);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 18);
        assert!(super::shards(2, &scheme, 1).is_err());
        assert_eq!(super::shards(2, &Codistill { shards: Shards::Same, ..scheme }, 1).unwrap()[2], [0, 1]);
    }

    #[test]
    fn a_replica_takes_as_many_steps_as_a_network_alone_and_sees_its_share_alone() {
        let meeting = Meeting::new(3);
        for (samples, replicas, batch) in [(86, 3, 32), (86, 3, 16), (50, 3, 16), (9, 2, 64), (33, 2, 16), (7, 1, 2)] {
            let scheme = Codistill { replicas, burn_in_steps: None, exchange_steps: 1, shards: Shards::Disjoint };
            let shards = shards(samples, &scheme, 5).unwrap();
            let replica = Replica { peers: Peers::Here(&meeting), scheme, shard: &shards[0], me: 0 };
            let alone = fit::batches(&data::order(samples, 5, 1), batch);
            let mut passes = std::collections::BTreeMap::<usize, Vec<usize>>::new();
            for epoch in 0..3 {
                let batches = replica.batches(samples, batch, 5, epoch);
                assert_eq!(batches.len(), alone.len(), "{samples} {replicas} {batch}");
                for of in batches.iter() {
                    let (places, pass) = places_and_pass(of, samples);
                    assert!(of.iter().all(|place| place / samples == pass), "a batch in two passes");
                    passes.entry(pass).or_default().extend(places);
                }
            }
            for places in passes.values_mut() {
                places.sort_unstable();
                assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "a sample twice in a pass");
                assert!(places.iter().all(|place| shards[0].contains(place)), "a sample of another share");
            }
            // All samples: the batches of a network alone, epoch by epoch.
            let all = (0..samples).collect::<Vec<_>>();
            let same = Replica { shard: &all, ..replica };
            let batches = same.batches(samples, batch, 5, 1).into_iter().map(|of| places_and_pass(&of, samples));
            assert_eq!(batches.collect::<Vec<_>>(), alone.into_iter().map(|of| (of, 1)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_replicas_compute_is_told_in_steps_of_the_student_alone() {
        assert_eq!(compute(&[10, 10], 0, 0.0), 2.0);
        assert_eq!(compute(&[10, 10], 1, 1.0), 8.0 / 3.0);
        assert_eq!(compute(&[10, 30], 0, 0.5), (3.0 * 40.0 + 0.5 * 40.0) / 30.0);
    }

    #[test]
    fn replicas_have_seeds_of_their_own() {
        let seeds: std::collections::BTreeSet<u64> = (0..8).map(|i| seed(5, i)).collect();
        assert!(seeds.len() == 8 && seeds.contains(&5));
    }
}
