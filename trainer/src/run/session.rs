//! All networks of a recipe: teachers, students and baselines of all seeds, and what they prove.
//!
//! What can be refused is refused before the folder holds anything. After that a kill costs at most an epoch, of short ones
//! those of two seconds: started again, every network that is finished is read back from its checkpoints, and the rest goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kd_runtime::backend::available_bytes;
use kd_runtime::contract::Contract;
use kd_runtime::graph::Graph;
use kd_runtime::measure::device::Device;
use kd_runtime::report::json;
use kd_runtime::{Result, files};

use super::evidence::{self, Evidence, TeacherIdentity};
use super::fit::{self, Fitted, Job};
use super::folder::{self, Existing, Folder, State};
use super::monitor::Monitor;
use super::replicas::{self, Replica};
use super::report::{self, Curve};
use super::results::{Results, Teacher};
use super::signals::Stop;
use super::{arms, ranks, saved, teachers};
use crate::data::{self, Prepared, Samples};
use crate::exec::Compute;
use crate::gpu::Gpu;
use crate::group::Group;
use crate::recipe::precheck::precheck;
use crate::recipe::{Recipe, TeacherSource, Train};
use crate::schemes::exchange::Place;
use crate::teacher::{self, Answers, Network, Pace};
use crate::zoo::{self, Site};

/// Of every network of a run; see [`Job::checkpoint_after`].
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// What to do, and where.
pub struct Order<'a> {
    /// The checked recipe.
    pub recipe: &'a Recipe,
    /// The run folder.
    pub output: &'a Path,
    /// What to do with one that exists.
    pub existing: Existing,
    /// Where the other replicas are met, where this process trains one of several.
    pub place: Option<Place>,
    /// Who trains with this process; none: it is alone.
    pub group: Option<Arc<Group>>,
    /// The GPU that it runs on; none: the host alone.
    pub gpu: Option<Gpu>,
    /// For the evidence.
    pub command_line: Vec<String>,
}

/// A run on its way.
pub(super) struct Session<'a> {
    pub recipe: &'a Recipe,
    pub folder: Folder,
    pub data: Prepared,
    pub site: Site,
    pub place: Option<&'a Place>,
    group: Option<&'a Arc<Group>>,
    gpu: Option<&'a Gpu>,
    pub curves: Vec<Curve>,
    stop: &'a Stop,
    monitor: &'a mut dyn Monitor,
}

/// Does what a recipe says. Continues a run that was stopped; gives the results of one that is finished. Of a group rank 0
/// alone writes and has results.
pub fn run(order: &Order<'_>, stop: &Stop, monitor: &mut dyn Monitor) -> Result<Option<Results>> {
    let (recipe, group) = (order.recipe, order.group.as_ref());
    let leads = group.is_none_or(|group| group.leads());
    let folder = if leads { Folder::claim(order.output, order.existing)? } else { Folder::of_another(order.output) };
    if folder.state() != State::New {
        saved::check_same_recipe(folder.path(), &recipe.to_toml())?;
    }
    let mut finished = [f64::from(u8::from(folder.state() == State::Finished))];
    group.map_or(Ok(()), |group| group.told(&mut finished))?;
    if finished != [0.0] {
        monitor.note(&format!("{} is finished: nothing is left to train", folder.path().display()));
        return leads.then(|| saved::read_results(folder.path())).transpose();
    }
    let device = Device::read();
    let data = data::prepare(recipe)?;
    group.map_or(Ok(()), |group| ranks::same_data(group, &data))?;
    let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
    let place = order.place.as_ref();
    let (gpu, curves) = (order.gpu.as_ref(), Vec::new());
    let mut session = Session { recipe, folder, data, site, place, group, gpu, curves, stop, monitor };
    let given = teachers::open(&session)?;
    let opened: Vec<&Network> = given.iter().flatten().collect();
    let own = group.map(|group| of_one_rank(recipe, group.of()));
    let free = session.gpu.map_or_else(available_bytes, Gpu::free_bytes);
    let forecast = precheck(own.as_ref().unwrap_or(recipe), &session.site, Some(&session.data), &opened, free)?;
    let given = teachers::judge_all(&session, given)?;
    forecast.notes.iter().for_each(|note| session.note(note));
    session.folder.begin(&recipe.to_toml())?;
    let processes = group.map(|group| group.of());
    let starts = match leads {
        true => {
            let gpu = order.gpu.as_ref().map(Gpu::name);
            evidence::add_start(&session.folder, order.command_line.clone(), gpu, processes)?
        }
        false => Vec::new(),
    };
    let (networks, judged) = teachers::all(&mut session, given)?;
    let (networks, judged) = teachers::assist(&mut session, networks, judged)?;
    let before: Vec<String> = networks.iter().map(sha256_in_memory).collect();
    let results = arms::all(&mut session, &networks, judged)?;
    let teachers = identities(&networks, &results.teachers, before)?;
    if !leads {
        return Ok(None);
    }
    let evidence = Evidence::new(recipe, &session.data, teachers, starts, device);
    session.finish(&results, evidence)?;
    Ok(Some(results))
}

/// The recipe as far as it says what one of so many processes needs: batches of its size.
fn of_one_rank(recipe: &Recipe, of: usize) -> Recipe {
    let mut own = recipe.clone();
    let taught = own.teachers.iter_mut().filter_map(|teacher| match &mut teacher.source {
        TeacherSource::Arch { train, .. } => Some(&mut **train),
        _ => None,
    });
    [&mut own.train].into_iter().chain(taught).for_each(|train| train.batch = train.batch.div_ceil(of));
    own
}

impl Session<'_> {
    /// The student with its first weights: where this process trains one of several replicas, a network like that one.
    pub fn first_student(&self, seed: u64) -> Result<Graph> {
        let number = self.place.map_or(0, |place| place.me - 1);
        zoo::build(self.recipe.replica(number), &self.site, seed)
    }

    /// A replica (numbers are from 0) with its first weights.
    pub fn first_replica(&self, number: usize, seed: u64) -> Result<Graph> {
        zoo::build(self.recipe.replica(number), &self.site, replicas::seed(seed, number))
    }

    /// Trains a network, or reads it back, or goes on with it: whatever its checkpoints say. `teachers` are those that it
    /// learns from by the recipe's terms; none: from the labels alone.
    pub fn fit(
        &mut self,
        name: &str,
        graph: &Graph,
        train: &Train,
        teachers: Option<&[Network]>,
        seed: u64,
    ) -> Result<Fitted> {
        let (jobs, monitor) = self.share();
        let shown = jobs.shown(name, seed);
        let fitted = jobs.fit(name, graph, train, teachers, seed, None, monitor)?;
        self.curves.push(Curve { name: shown, history: fitted.history.clone() });
        Ok(fitted)
    }

    /// What several networks that are trained at once share, and who is told of it.
    pub fn share(&mut self) -> (Jobs<'_>, &mut dyn Monitor) {
        let Session { recipe, folder, data, group, gpu, stop, monitor, .. } = self;
        (Jobs { recipe, folder: folder.path(), data, group: *group, gpu: *gpu, stop }, &mut **monitor)
    }

    /// What a network that is made for this data answers.
    pub fn answers(&self, graph: &Graph, samples: &Samples) -> Result<Answers> {
        teacher::evaluate(graph, &self.data.contract, samples, self.pace())
    }

    /// Asks such a network about its taps; see [`teacher::ask`].
    pub fn ask(
        &self,
        graph: &Graph,
        taps: &[String],
        samples: &Samples,
        each: impl FnMut(&[&[f32]], &[usize]) -> Result<()>,
    ) -> Result<()> {
        teacher::ask(graph, &self.data.contract, samples, taps, self.pace(), each)
    }

    /// Asks a teacher about its output.
    pub fn ask_teacher(
        &self,
        teacher: &Network,
        samples: &Samples,
        each: impl FnMut(&[&[f32]], &[usize]) -> Result<()>,
    ) -> Result<()> {
        let output = std::slice::from_ref(&teacher.contract.output.name);
        teacher::ask(&teacher.graph, &teacher.contract, samples, output, self.pace(), each)
    }

    fn pace(&self) -> Pace<'_> {
        Pace { batch: self.recipe.train.batch, compute: self.compute() }
    }

    /// What computes.
    pub fn compute(&self) -> Compute<'_> {
        Compute { threads: self.recipe.run.threads, gpu: self.gpu }
    }

    /// A remark of one line.
    pub fn note(&mut self, text: &str) {
        self.monitor.note(text);
    }

    /// Writes what is left of the folder; the evidence, which makes it complete, at last.
    fn finish(&mut self, results: &Results, mut evidence: Evidence) -> Result<()> {
        // What was appended while training ran may hold an epoch twice after a kill.
        self.folder.write("metrics.jsonl", report::metrics(&self.curves).as_bytes())?;
        self.folder.write(saved::RESULTS, json::pretty(results).as_bytes())?;
        let classes = &self.data.contract.output.classes;
        let html = report::render(results, classes, &self.curves, &self.recipe.to_toml());
        self.folder.write("report.html", html.as_bytes())?;
        evidence.end(&self.folder)?;
        self.folder.write(folder::EVIDENCE, json::pretty(&evidence).as_bytes())?;
        if let Some(peak) = evidence.peak_mib {
            self.note(&format!("peak memory {peak:.0} MiB"));
        }
        Ok(())
    }
}

/// What networks are trained by.
pub(super) struct Jobs<'a> {
    pub recipe: &'a Recipe,
    folder: &'a Path,
    data: &'a Prepared,
    group: Option<&'a Arc<Group>>,
    gpu: Option<&'a Gpu>,
    stop: &'a Stop,
}

impl Jobs<'_> {
    /// What progress and metrics call a network: with its seed where there are several.
    pub fn shown(&self, name: &str, seed: u64) -> String {
        if name.starts_with("teacher") || name.starts_with("assistant") || self.recipe.seeds().len() == 1 {
            name.to_string()
        } else {
            format!("{name} seed {seed}")
        }
    }

    /// The contract of networks made for this data.
    pub fn contract(&self) -> &Contract {
        &self.data.contract
    }

    /// As [`Session::fit`], of a replica if there are several that teach each other.
    #[expect(clippy::too_many_arguments, reason = "each decides something of its own")]
    pub fn fit(
        &self,
        name: &str,
        graph: &Graph,
        train: &Train,
        teachers: Option<&[Network]>,
        seed: u64,
        replica: Option<Replica<'_>>,
        monitor: &mut dyn Monitor,
    ) -> Result<Fitted> {
        let checkpoints = self.folder.join("checkpoints").join(format!("{name}-seed{seed}"));
        let caches = self.folder.join("cache");
        let shown = self.shown(name, seed);
        let taught_by = teachers.unwrap_or_default().iter().map(|teacher| teacher.sha256.as_str());
        let of = [&*self.recipe.fingerprint(), &*self.data.description.sha256, &*shown];
        let parts: Vec<&str> = of.into_iter().chain(taught_by).collect();
        let job = Job {
            name: &shown,
            graph,
            train,
            data_section: &self.recipe.data,
            distill: teachers.map(|teachers| (&self.recipe.distill, teachers)),
            data: self.data,
            seed: replica.as_ref().map_or(seed, |replica| replicas::seed(seed, replica.me)),
            compute: Compute { threads: self.recipe.run.threads, gpu: self.gpu },
            loaders: self.recipe.run.loaders,
            replica,
            group: self.group,
            caches: &caches,
            checkpoints: &checkpoints,
            fingerprint: &files::sha256(parts.join(" ").as_bytes()),
            checkpoint_after: CHECKPOINT_AFTER,
        };
        fit::fit(&job, self.stop, monitor)
    }
}

/// SHA-256 of a network as it is in memory, written as ONNX.
fn sha256_in_memory(network: &Network) -> String {
    teacher::parameters_sha256(&network.graph)
}

fn identities(networks: &[Network], judged: &[Teacher], before: Vec<String>) -> Result<Vec<TeacherIdentity>> {
    // Behind assistants it is the last of them alone that teaches.
    let rows = networks.iter().zip(&judged[judged.len() - networks.len()..]).zip(before);
    rows.map(|((network, judged), before)| TeacherIdentity::new(judged, before, sha256_in_memory(network))).collect()
}
