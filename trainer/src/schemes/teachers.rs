//! What frozen teachers say of a batch: each fed as its own contract scales (or read from what it said once), several of
//! them as one.

use std::path::Path;
use std::time::{Duration, Instant};

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::graph::ValueId;
use kd_runtime::{Refusal, Result};

use crate::data::augment::Augment;
use crate::data::{self, RawBatch, Samples, scale};
use crate::exec::{Compute, Executor, Mode, Parameter, Plan};
use crate::losses::pair::{LOGITS, value_name};
use crate::losses::rows::Average;
use crate::schemes::meeting::Snapshot;
use crate::teacher::cache::{Cache, Key, Precision, fingerprint};
use crate::teacher::{CacheWish, Network, log_probability, parameters_sha256};

/// The largest cache of one teacher.
const MOST_CACHE_BYTES: u64 = 16 << 30;
/// Samples that a teacher is asked about at once while its cache is made.
const ASKED_AT_ONCE: usize = 256;
/// How often it is said how far a cache is.
const BETWEEN_NOTES: Duration = Duration::from_secs(5);

/// All teachers of a learner.
pub(super) struct Teachers {
    members: Vec<Member>,
    soft: Vec<Soft>,
    /// The epoch whose views of the samples caches give.
    epoch: usize,
}

struct Member {
    name: String,
    contract: Contract,
    weight: f64,
    cache: CacheWish,
    /// Of the network; ties a cache to it.
    network_sha256: String,
    /// Values that losses read, by name, and of how many elements for one sample.
    taps: Vec<String>,
    elements: Vec<usize>,
    speaker: Speaker,
}

/// Who answers for a member.
enum Speaker {
    /// The network, at every step.
    Live(Box<Live>),
    /// What it said once; the values of the last batch, a list a tap.
    Kept(Cache, Vec<Vec<f32>>),
}

struct Live {
    executor: Executor<f32>,
    ids: Vec<ValueId>,
    /// [`parameters_sha256`] before training; none of a replica, which changes.
    sha256: Option<String>,
    x: Vec<f32>,
}

/// What a loss reads of the teachers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taught {
    /// A value of the only teacher as it is: the place among its taps.
    Value(usize),
    /// Logits that are made of the teachers' answers: the place of a [`Soft`].
    Soft(usize),
}

/// A value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    /// Its place among the member's taps.
    tap: usize,
    is_answer: bool,
    is_probability: bool,
}

/// Logits made of answers: the logarithm of one teacher's probabilities, or what stands for several teachers: the mean of
/// their logits, or at a temperature T `T · ln Σ w_i softmax(z_i / T)`, whose softmax at T is the weighted mean of the
/// softened answers.
struct Soft {
    /// One a member.
    sources: Vec<Source>,
    temperature: f64,
    average: Average,
    values: Vec<f32>,
    /// Logits of one row of one member, and the mean of a row.
    row: Vec<f32>,
    mean: Vec<f64>,
}

impl Teachers {
    /// Plans the teachers for the values `taps` that losses read of them.
    pub(super) fn new(networks: &[Network], taps: &[&str], batch: usize, compute: Compute<'_>) -> Result<Self> {
        let members =
            networks.iter().map(|network| Member::new(network, taps, batch, compute)).collect::<Result<_>>()?;
        Ok(Self { members, soft: Vec::new(), epoch: 0 })
    }

    /// How a term reads the value `name`, several teachers as one at its temperature. `networks` are those it was planned with.
    pub(super) fn taught(
        &mut self,
        networks: &[Network],
        name: &str,
        temperature: f64,
        average: Average,
    ) -> Result<Taught> {
        let source = |(network, member): (&Network, &Member)| -> Result<Source> {
            let Network { graph, contract, .. } = network;
            let value = value_name(graph, &contract.output.name, name);
            let is_output = value == contract.output.name;
            let is_probability = is_output && contract.output.meaning == Meaning::Probabilities;
            let tap = member.taps.iter().position(|tap| tap == value).ok_or_else(|| {
                let known = member.taps.join(", ");
                Refusal::new("tap", format!("one of {known}"), format!("`{value}`"), "name a planned tap")
            })?;
            Ok(Source { tap, is_answer: is_output || name == LOGITS, is_probability })
        };
        let sources = networks.iter().zip(&self.members).map(source).collect::<Result<Vec<_>>>()?;
        match sources[..] {
            [] => Err(Refusal::new("distill.terms", "a teacher", "none", "add [teacher]")),
            [only] if !only.is_probability => Ok(Taught::Value(only.tap)),
            _ if sources.iter().all(|source| source.is_answer) => {
                Ok(Taught::Soft(self.soften(sources, temperature, average)))
            }
            _ => {
                let expected = "`logits`, the only value that several teachers have a mean of";
                Err(Refusal::new("distill.terms: teacher", expected, format!("`{name}`"), "keep one teacher"))
            }
        }
    }

    /// The place of these logits; terms that read the same at the same temperature share them.
    fn soften(&mut self, sources: Vec<Source>, temperature: f64, average: Average) -> usize {
        let is_same =
            |soft: &Soft| soft.sources == sources && soft.temperature == temperature && soft.average == average;
        self.soft.iter().position(is_same).unwrap_or_else(|| {
            let (values, row, mean) = (Vec::new(), Vec::new(), Vec::new());
            self.soft.push(Soft { sources, temperature, average, values, row, mean });
            self.soft.len() - 1
        })
    }

    /// Keeps, in `folder`, what each teacher that wishes it says of all samples, and asks none of these again. `feed`
    /// tells of the samples; a remark a teacher goes to `note`.
    pub(super) fn keep(
        &mut self,
        folder: &Path,
        feed: &Feed<'_>,
        batch: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let views = |wish: &CacheWish| if feed.augment.is_empty() { 1 } else { wish.views };
        // Epochs take views in turn for all teachers or for none: a teacher asked live sees any view.
        let most = self.members.iter().filter(|m| m.cache.wanted).map(|m| views(&m.cache)).max().unwrap_or(0);
        for (i, member) in self.members.iter_mut().enumerate() {
            if member.cache.wanted && views(&member.cache) == most && most > 0 && !member.taps.is_empty() {
                // Assistants have a teacher each.
                let path = folder.join(format!("teacher-{}-{}.cache", i + 1, &member.network_sha256[..16]));
                member
                    .keep(&path, feed, most, batch, note)
                    .map_err(|e| e.within(format!("teacher `{}`", member.name)))?;
            }
        }
        Ok(())
    }

    /// Says which epoch follows; gives the one whose augmentations its samples are to have: with views in a cache, one of
    /// the first few.
    pub(super) fn begin_epoch(&mut self, epoch: usize) -> usize {
        let kept = self.members.iter().find_map(|member| match &member.speaker {
            Speaker::Kept(cache, _) => Some(cache.view(epoch)),
            Speaker::Live(_) => None,
        });
        self.epoch = epoch;
        kept.unwrap_or(epoch)
    }

    /// Gives the network of each member other parameters, by their names, where there are new ones: replicas that teach
    /// each other change. Those that were ever heard have equal shares from then on, the others none. Says whether any was.
    pub(super) fn hear(&mut self, snapshots: &[Option<Snapshot>]) -> bool {
        for (member, snapshot) in self.members.iter_mut().zip(snapshots) {
            let (Speaker::Live(live), Some(snapshot)) = (&mut member.speaker, snapshot) else { continue };
            live.sha256 = None;
            for parameter in live.executor.parameters_mut() {
                if let Some((_, values)) = snapshot.iter().find(|(name, _)| *name == parameter.name) {
                    parameter.value.copy_from_slice(values);
                }
            }
        }
        let heard = |member: &Member| matches!(&member.speaker, Speaker::Live(live) if live.sha256.is_none());
        let all = self.members.iter().filter(|member| heard(member)).count();
        for member in &mut self.members {
            member.weight = if heard(member) { 1.0 / all as f64 } else { 0.0 };
        }
        all > 0
    }

    /// The parameters of each; none of one whose answers are kept.
    pub(super) fn parameters(&self) -> Vec<&[Parameter<f32>]> {
        let members = self.members.iter().map(|member| match &member.speaker {
            Speaker::Live(live) => live.executor.parameters(),
            Speaker::Kept(..) => &[],
        });
        members.collect()
    }

    /// Lets the teachers answer what is read of this batch, and no more: one of whom nothing is read is not asked.
    pub(super) fn answer(&mut self, batch: &RawBatch, read: &[Taught]) -> Result<()> {
        for (i, member) in self.members.iter_mut().enumerate() {
            let tap = |taught: &Taught| match *taught {
                Taught::Value(tap) => (i == 0).then_some(tap),
                Taught::Soft(place) => Some(self.soft[place].sources[i].tap),
            };
            let taps: Vec<usize> = read.iter().filter_map(tap).collect();
            member.answer(batch, self.epoch, &taps).map_err(|e| e.within(format!("teacher `{}`", member.name)))?;
        }
        let is_read = |place: usize| read.contains(&Taught::Soft(place));
        let soft = self.soft.iter_mut().enumerate().filter(|(place, _)| is_read(*place));
        soft.for_each(|(_, soft)| soft.mix(&self.members));
        Ok(())
    }

    /// What a loss reads, of the last batch.
    pub(super) fn value(&self, taught: Taught) -> &[f32] {
        match taught {
            Taught::Value(tap) => self.members.first().map_or(&[], |member| member.value(tap)),
            Taught::Soft(place) => &self.soft[place].values,
        }
    }

    /// The same, where it lies: a GPU's array for its kernels, or the host's.
    pub(super) fn raw(&self, taught: Taught) -> &[f32] {
        match (taught, self.members.first().map(|member| &member.speaker)) {
            (Taught::Value(tap), Some(Speaker::Live(live))) => live.executor.raw(live.ids[tap]),
            _ => self.value(taught),
        }
    }

    /// Refuses teachers whose parameters are not those they began with. What is kept of a teacher cannot change.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        for member in &self.members {
            let Speaker::Live(live) = &member.speaker else { continue };
            let Some(before) = &live.sha256 else { continue };
            let found = parameters_sha256(&live.executor.to_graph());
            if found != *before {
                let at = format!("teacher `{}`", member.name);
                let expected = format!("its parameters as before training (sha256 {before})");
                return Err(Refusal::new(at, expected, found, "report this as a bug"));
            }
        }
        Ok(())
    }
}

/// Where the samples that teachers are asked about come from.
pub struct Feed<'a> {
    /// The training samples.
    pub samples: &'a Samples,
    /// Their augmentations.
    pub augment: &'a [Box<dyn Augment>],
    /// The augmentations as the recipe names them.
    pub augment_text: &'a str,
    /// Of the augmentations.
    pub seed: u64,
    /// Whether answers that are not kept yet are asked for; else they are refused: another process should have kept them.
    pub makes: bool,
}

impl Member {
    fn new(network: &Network, taps: &[&str], batch: usize, compute: Compute<'_>) -> Result<Self> {
        let Network { name, graph, contract, weight, cache, .. } = network;
        let mut names: Vec<String> = Vec::new();
        for tap in taps {
            let value = value_name(graph, &contract.output.name, tap);
            if !names.iter().any(|name| name == value) {
                names.push(value.to_string());
            }
        }
        let within = |e: Refusal| e.within(format!("teacher `{name}`"));
        let Compute { threads, gpu } = compute;
        let plan = Plan { batch, taps: names.clone(), backward: false, threads, gpu: gpu.cloned() };
        let executor = Executor::new(graph, &plan).map_err(within)?;
        let ids: Vec<ValueId> = names.iter().map(|name| executor.tap(name)).collect::<Result<_>>().map_err(within)?;
        let elements = ids.iter().map(|&id| executor.tap_shape(id).iter().product()).collect();
        let sha256 = parameters_sha256(graph);
        let speaker = Speaker::Live(Box::new(Live { executor, ids, sha256: Some(sha256.clone()), x: Vec::new() }));
        let (name, contract) = (name.clone(), contract.clone());
        Ok(Self {
            name,
            contract,
            weight: *weight,
            cache: *cache,
            network_sha256: sha256,
            taps: names,
            elements,
            speaker,
        })
    }

    /// Answers at these taps, of which one may be named more than once.
    fn answer(&mut self, batch: &RawBatch, epoch: usize, taps: &[usize]) -> Result<()> {
        match &mut self.speaker {
            Speaker::Live(_) if taps.is_empty() => Ok(()),
            Speaker::Live(live) => live.answer(&self.contract, batch, taps),
            Speaker::Kept(cache, values) => {
                for (tap, values) in values.iter_mut().enumerate() {
                    values.clear();
                    if taps.contains(&tap) {
                        cache.tap(cache.view(epoch), &batch.places, tap, values);
                    }
                }
                Ok(())
            }
        }
    }

    /// A tap of the last batch.
    fn value(&self, tap: usize) -> &[f32] {
        match &self.speaker {
            Speaker::Live(live) => live.executor.value(live.ids[tap]),
            Speaker::Kept(_, values) => &values[tap],
        }
    }

    fn keep(
        &mut self,
        path: &Path,
        feed: &Feed<'_>,
        views: usize,
        batch: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let Speaker::Live(live) = &mut self.speaker else { return Ok(()) };
        let seed = feed.seed.to_string();
        let augmented = if feed.augment.is_empty() { "" } else { &*seed };
        let samples = feed.samples.sha256();
        let contract = self.contract.to_json();
        // Small probabilities, which say what a teacher knows beside the class, have few bits in f16, or none.
        let output = &self.contract.output;
        let is_soft = output.meaning == Meaning::Probabilities && self.taps.contains(&output.name);
        let precision = if is_soft { Precision::F32 } else { self.cache.precision };
        let parts = [&*self.network_sha256, &*contract, &*samples, feed.augment_text, augmented];
        let key = Key {
            made_of: fingerprint(parts.map(str::as_bytes)),
            views,
            samples: feed.samples.len(),
            taps: self.taps.clone(),
            elements: self.elements.clone(),
            precision,
            batch: batch.min(ASKED_AT_ONCE),
        };
        if key.bytes() > MOST_CACHE_BYTES {
            let (gib, most) = (key.bytes() >> 30, MOST_CACHE_BYTES >> 30);
            note(&format!(
                "teacher {}: asked at every step, since its answers would take {gib} GiB (at most {most})",
                self.name
            ));
            return Ok(());
        }
        if precision != self.cache.precision {
            note(&format!("teacher {}: its answers are kept in f32, since they are probabilities", self.name));
        }
        if !feed.makes && !path.exists() {
            let action = "give all ranks one --output that they all see, or leave `cache` out";
            return Err(Refusal::new(path.display(), "the answers that rank 0 has kept", "no such file", action));
        }
        let what = format!("{} samples, {views} views, {} KiB", key.samples, key.bytes() >> 10);
        let mut raw = RawBatch::default();
        let all: Vec<usize> = (0..self.taps.len()).collect();
        let mut ask = |view: usize, places: &[usize], out: &mut Vec<f32>| {
            data::load(feed.samples, None, places, feed.augment, feed.seed, view, &mut raw);
            live.answer(&self.contract, &raw, &all)?;
            let values: Vec<&[f32]> = live.ids.iter().map(|&id| live.executor.value(id)).collect();
            live.executor.wait()?;
            for i in 0..places.len() {
                for (values, &n) in values.iter().zip(&self.elements) {
                    out.extend_from_slice(&values[i * n..(i + 1) * n]);
                }
            }
            Ok(())
        };
        let mut shown = Instant::now();
        let mut progress = |done: usize, of: usize| {
            if shown.elapsed() >= BETWEEN_NOTES {
                shown = Instant::now();
                note(&format!("teacher {}: asked about {done} of {of} samples", self.name));
            }
        };
        let cache = Cache::open_or_make(path, key, &mut ask, &mut progress)?;
        note(&format!(
            "teacher {}: its answers {} {what}",
            self.name,
            if cache.is_new { "are kept:" } else { "were kept:" }
        ));
        self.speaker = Speaker::Kept(cache, vec![Vec::new(); self.taps.len()]);
        Ok(())
    }
}

impl Live {
    fn answer(&mut self, contract: &Contract, batch: &RawBatch, taps: &[usize]) -> Result<()> {
        let taps: Vec<ValueId> = taps.iter().map(|&tap| self.ids[tap]).collect();
        scale(contract, &batch.values, &mut self.x);
        self.executor.queue_forward(&taps, &self.x, batch.labels.len(), Mode::Eval)
    }
}

impl Soft {
    fn mix(&mut self, members: &[Member]) {
        self.values.clear();
        if let ([source], [member]) = (&self.sources[..], members) {
            self.values.extend(member.value(source.tap).iter().map(|&p| log_probability(p)));
            return;
        }
        let [(first, source), ..] = &*members.iter().zip(&self.sources).collect::<Vec<_>>() else { return };
        let classes = first.elements[source.tap].max(1);
        let rows = first.value(source.tap).len() / classes;
        for i in 0..rows {
            self.mean.clear();
            self.mean.resize(classes, 0.0);
            for (member, source) in members.iter().zip(&self.sources) {
                let answer = &member.value(source.tap)[i * classes..][..classes];
                self.row.clear();
                self.row.extend(answer.iter().map(|&v| if source.is_probability { log_probability(v) } else { v }));
                self.average.add(&mut self.mean, &self.row, member.weight, self.temperature);
            }
            self.average.finish(&mut self.mean, self.temperature);
            self.values.extend(self.mean.iter().map(|&logit| logit as f32));
        }
    }
}

#[cfg(test)]
mod tests {
    use kd_runtime::ops::softmax::Softmax;

    use super::*;
    use crate::schemes::tests::teacher;

    /// Five samples for [`teacher`].
    fn batch() -> RawBatch {
        let values = (0..5 * 40).map(|i| (i * 7 % 17) as f32).collect();
        RawBatch { values, labels: vec![0; 5], mixed: Vec::new(), places: (0..5).collect() }
    }

    #[test]
    fn only_what_is_read_is_asked() {
        let networks = [teacher("cnn", 1, 1.0)];
        let mut teachers = Teachers::new(&networks, &["features", "logits"], 5, Compute::host(1)).unwrap();
        let taught = ["features", "logits"].map(|name| teachers.taught(&networks, name, 1.0, Average::Logits).unwrap());
        let fed = |teachers: &Teachers| match &teachers.members[0].speaker {
            Speaker::Live(live) => live.x.len(),
            Speaker::Kept(..) => panic!("not kept"),
        };
        teachers.answer(&batch(), &[]).unwrap();
        assert_eq!(fed(&teachers), 0, "not fed at all");
        teachers.answer(&batch(), &taught).unwrap();
        assert_eq!(fed(&teachers), 5 * 40);
        let both = taught.map(|taught| teachers.value(taught).to_vec());
        assert!(both.iter().all(|values| !values.is_empty()));
        teachers.answer(&batch(), &taught[..1]).unwrap();
        assert_eq!(taught.map(|taught| teachers.value(taught).to_vec()), [both[0].clone(), vec![]], "its head rests");

        let folder = std::env::temp_dir().join(format!("kd-asked-{}", std::process::id()));
        let values = data::Values::F32(batch().values);
        let samples = Samples { values, labels: vec![0; 5], elements: 40 };
        let feed = Feed { samples: &samples, augment: &[], augment_text: "", seed: 1, makes: true };
        teachers.members[0].cache = CacheWish { wanted: true, ..CacheWish::OFF };
        teachers.keep(&folder, &feed, 5, &mut |_| {}).unwrap();
        for (read, expected) in
            [(&taught[1..], [vec![], both[1].clone()]), (&[], [vec![], vec![]]), (&taught, both.clone())]
        {
            teachers.answer(&batch(), read).unwrap();
            assert_eq!(taught.map(|taught| teachers.value(taught).to_vec()), expected, "of the cache");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn probabilities_are_kept_whole_where_f16_is_asked_for() {
        let mut network = teacher("cnn", 1, 1.0);
        let graph = &mut network.graph;
        let [logits, weight] = ["logits", "logits.weight"].map(|name| graph.find(name).unwrap());
        // Sure answers, as of what was learned by heart.
        let weight = graph.initializers.get_mut(&weight).and_then(|tensor| tensor.get_mut::<f32>()).unwrap();
        weight.iter_mut().for_each(|w| *w *= 180.0);
        let output = graph.apply(Softmax { axis: -1 }, &[logits], "probabilities");
        graph.values[logits.index()].name = "scores".into();
        graph.outputs = vec![output];
        graph.validate().unwrap();
        (network.contract.output.name, network.contract.output.meaning) =
            ("probabilities".into(), Meaning::Probabilities);
        let networks = [network];
        let mut teachers = Teachers::new(&networks, &[LOGITS], 5, Compute::host(1)).unwrap();
        let taught = teachers.taught(&networks, LOGITS, 1.0, Average::Logits).unwrap();
        teachers.answer(&batch(), &[taught]).unwrap();
        let live = teachers.value(taught).to_vec();
        assert!(live.iter().any(|log| (-80.0..-18.0).contains(log)), "below what f16 holds: {live:?}");
        let folder = std::env::temp_dir().join(format!("kd-soft-{}", std::process::id()));
        let samples = Samples { values: data::Values::F32(batch().values), labels: vec![0; 5], elements: 40 };
        let feed = Feed { samples: &samples, augment: &[], augment_text: "", seed: 1, makes: true };
        teachers.members[0].cache = CacheWish { wanted: true, views: 0, precision: Precision::F16 };
        let mut notes = Vec::new();
        teachers.keep(&folder, &feed, 5, &mut |note| notes.push(note.to_string())).unwrap();
        assert!(notes[0].ends_with("its answers are kept in f32, since they are probabilities"), "{notes:?}");
        teachers.answer(&batch(), &[taught]).unwrap();
        assert_eq!(teachers.value(taught), live);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_changed_parameter_is_noticed() {
        let mut teachers =
            Teachers::new(&[teacher("cnn", 1, 0.5), teacher("mlp", 2, 0.5)], &[], 1, Compute::host(1)).unwrap();
        teachers.check_unchanged().unwrap();
        let Speaker::Live(live) = &mut teachers.members[1].speaker else { panic!("not kept") };
        let last = live.executor.parameters_mut().last_mut().unwrap();
        last.value[0] += 1e-3;
        let message = teachers.check_unchanged().unwrap_err().to_string();
        assert!(message.starts_with("teacher `arch mlp`: expected its parameters as before"), "{message}");
    }
}
