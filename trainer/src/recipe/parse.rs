//! TOML and overrides to a checked [`Recipe`].

use std::path::{Path, PathBuf};

use kd_runtime::error::Shown;
use kd_runtime::{Refusal, Result, files};

use super::keys::{self, ARCH, Form, GROUP, METHOD, MOST_REPLICAS, Section, TERM};
use super::tree::{Node, Value};
use super::values::{Keys, list, place, suggest, text};
use super::{
    Choice, ClassWeights, Codistill, Compare, Data, Device, Distill, Keep, Normalize, Recipe, Run, Scheme, Shards,
    Stage, Teacher, TeacherSource, Term, Train, cross, stages,
};
use crate::gpu;
use crate::group::launch::own_cores;
use crate::losses::table as methods;
use crate::optim::groups::Group;
use crate::options::{Options, Setting};
use crate::teacher::CacheWish;
use crate::teacher::cache::Precision;

/// Reads a recipe and applies `key=value` overrides. Refuses, in one line with the place in the file, what is not known,
/// not of the right kind or not in its range, and what contradicts itself.
pub fn read(path: &Path, overrides: &[String]) -> Result<Recipe> {
    parse(&files::read_text(path)?, &path.display().to_string(), overrides)
}

/// Parses a recipe's text; `at` is the file's path, for messages and the default of `run.name`.
pub fn parse(text: &str, at: &str, overrides: &[String]) -> Result<Recipe> {
    let mut root = Node::parse(text, at)?;
    for assignment in overrides {
        root.set(assignment)?;
    }
    let names: Vec<&str> = keys::SECTIONS.iter().map(|section| section.name).collect();
    let sections = Sections { root: Keys::open(&root, "")?.only(&names, "a recipe")? };
    let train = sections.train()?;
    let distill = sections.distill(&train)?;
    let recipe = Recipe {
        run: sections.run(at)?,
        data: sections.data()?,
        teachers: sections.teachers(&train)?,
        student: sections.student()?,
        compare: sections.compare(&distill)?,
        distill,
        budget: sections.budget()?,
        train,
    };
    cross::check(&recipe, &|path| locate(&root, path))?;
    Ok(Recipe {
        compare: Compare { baseline: recipe.compare.baseline && recipe.distills(), ..recipe.compare },
        ..recipe
    })
}

/// How a message about a path begins: with the place of the deepest part of it that is there.
fn locate(root: &Node, path: &str) -> String {
    let mut at = &root.at;
    let mut node = root;
    for key in path.split('.') {
        let next = match &node.value {
            Value::Table(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| (&entry.at, &entry.node))
            }
            Value::List(items) => key.parse().ok().and_then(|i: usize| items.get(i)).map(|item| (&item.at, item)),
            _ => None,
        };
        let Some((place, child)) = next else { break };
        (at, node) = (place, child);
    }
    place(at, path)
}

/// The sections of a file.
struct Sections<'a> {
    root: Keys<'a>,
}

impl<'a> Sections<'a> {
    /// A section, empty if it is not there; its keys are checked unless they are a table entry's options too.
    fn open(&self, name: &str) -> Result<(Keys<'a>, &'static Section)> {
        let section = section(name);
        let keys = match self.root.get(name) {
            Some(node) => Keys::open(node, name)?,
            None => Keys::none(self.root.at, name),
        };
        let known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        Ok((if section.table.is_some() { keys } else { keys.only(&known, &format!("[{name}]"))? }, section))
    }

    fn run(&self, at: &str) -> Result<Run> {
        let (keys, section) = self.open("run")?;
        let set = keys.settings(section.keys)?;
        let stem =
            Path::new(at).file_stem().map_or_else(|| "recipe".into(), |stem| stem.to_string_lossy().into_owned());
        let name = optional(&set, "name", Options::text).map_or(stem, str::to_string);
        if name.is_empty() {
            let found = "an empty text";
            return Err(Refusal::new(keys.place_of("name"), "a name", found, "leave it out for the file's name"));
        }
        let device = device(set.text("device"));
        let device = device.ok_or_else(|| {
            let found = format!("`{}`", Shown(set.text("device")));
            Refusal::new(keys.place_of("device"), "`cpu` or `cuda:N`", found, "name one of them")
        })?;
        let threads = optional(&set, "threads", Options::count).unwrap_or_else(own_cores);
        let loaders = optional(&set, "loaders", Options::count).unwrap_or(threads.div_ceil(4));
        let precision = gpu::Precision::of(set.text("precision"));
        if (device, precision) == (Device::Cpu, gpu::Precision::Tf32) {
            let action = "set run.device = \"cuda:0\", or precision = \"f32\"";
            return Err(Refusal::new(keys.place_of("precision"), "f32 on a processor", "`tf32`", action));
        }
        Ok(Run { name, seed: set.count("seed") as u64, device, threads, loaders, precision })
    }

    fn data(&self) -> Result<Data> {
        let (keys, section) = self.open("data")?;
        let set = keys.settings(section.keys)?;
        let (format, known) = (set.text("format").to_string(), keys::formats());
        if !known.contains(&&*format) {
            let expected = format!("a format ({})", known.join(", "));
            let found = format!("`{}`", Shown(&format));
            return Err(Refusal::new(keys.place_of("format"), expected, found, suggest(&format, &known)));
        }
        let normalize = match set.text("normalize") {
            "none" => Normalize::None,
            "unit" => Normalize::Unit,
            "sample" => Normalize::Sample,
            _ => Normalize::Standard,
        };
        let path = keys.path_of("exclude_classes");
        let exclude_classes = match keys.get("exclude_classes") {
            Some(node) => (list(node, &path, "a list of texts")?.iter().enumerate())
                .map(|(i, item)| text(item, &format!("{path}.{i}"), "the name of a class").map(str::to_string))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Data {
            read: entry(&keys, "read", section.keys)?,
            format,
            path: set.text("path").into(),
            normalize,
            subset: set.number("subset"),
            exclude_classes,
            validation: set.number("validation"),
            labelled: set.number("labelled"),
            augment: entries(&keys, "augment", section)?,
        })
    }

    fn teachers(&self, train: &Train) -> Result<Vec<Teacher>> {
        match self.root.get("teacher") {
            None => Ok(Vec::new()),
            Some(node @ Node { value: Value::List(_), .. }) => (list(node, "teacher", "a list of teachers")?.iter())
                .enumerate()
                .map(|(i, item)| teacher(Keys::open(item, &format!("teacher.{i}"))?, train))
                .collect::<Result<Vec<_>>>()
                .map(|all| all.concat()),
            Some(node) => teacher(Keys::open(node, "teacher")?, train),
        }
    }

    fn student(&self) -> Result<Choice> {
        Ok(self.open("student")?.0.choice(&ARCH, &[])?.0)
    }

    fn train(&self) -> Result<Train> {
        let (keys, section) = self.open("train")?;
        let set = keys.settings(section.keys)?;
        let path = keys.path_of("groups");
        let groups = match keys.get("groups") {
            Some(node) => (list(node, &path, "a list of groups { match = … }")?.iter().enumerate())
                .map(|(i, item)| group(Keys::open(item, &format!("{path}.{i}"))?))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Train {
            epochs: set.count("epochs"),
            batch: set.count("batch"),
            accumulate: set.count("accumulate"),
            optimizer: required(entry(&keys, "optimizer", section.keys)?),
            schedule: required(entry(&keys, "schedule", section.keys)?),
            decay_norm_and_bias: set.flag("decay_norm_and_bias"),
            label_smoothing: set.number("label_smoothing"),
            class_weights: match set.text("class_weights") {
                "balanced" => ClassWeights::Balanced,
                _ => ClassWeights::Equal,
            },
            clip_value: optional(&set, "clip_value", Options::number),
            clip_norm: optional(&set, "clip_norm", Options::number),
            max_norm: optional(&set, "max_norm", Options::number),
            ema: optional(&set, "ema", Options::number),
            ema_warmup: set.flag("ema_warmup"),
            groups,
            patience: optional(&set, "patience", Options::count),
            keep: if set.text("keep") == "last" { Keep::Last } else { Keep::Selected },
        })
    }

    fn distill(&self, train: &Train) -> Result<Distill> {
        let (keys, section) = self.open("distill")?;
        let set = keys.settings(section.keys)?;
        let path = keys.path_of("terms");
        let items = keys.get("terms").map_or(Ok(&[][..]), |node| list(node, &path, "a list of terms"))?;
        let open = |(i, item)| term(Keys::open(item, &format!("{path}.{i}"))?);
        let terms = items.iter().enumerate().map(open).collect::<Result<Vec<(Term, bool)>>>()?;
        let (mut terms, mut stages): (Vec<Term>, Vec<bool>) = terms.into_iter().unzip();
        if keys.get("terms").is_none() && set.text("scheme") == "dml" {
            terms.push(mutual());
            stages.push(false);
        }
        let peers = entries(&keys, "peers", section)?;
        let scheme = match set.text("scheme") {
            "offline" => {
                let of_replicas = ["replicas", "peers", "burn_in_steps", "exchange_steps", "shards"];
                if let Some(name) = of_replicas.into_iter().find(|name| keys.get(name).is_some()) {
                    let found = "scheme = \"offline\"";
                    return Err(Refusal::new(
                        keys.place_of(name),
                        "scheme = \"codistill\" with this key",
                        found,
                        "set the scheme, or leave it out",
                    ));
                }
                Scheme::Offline
            }
            word => {
                // Deep mutual learning is codistillation without burn-in, live, of all samples.
                let (burn_in, exchange, shards) =
                    if word == "dml" { (Some(0), 1, "same") } else { (None, 50, "disjoint") };
                Scheme::Codistill(Codistill {
                    replicas: replicas(&keys, optional(&set, "replicas", Options::count), peers.len())?,
                    burn_in_steps: optional(&set, "burn_in_steps", Options::count).or(burn_in),
                    exchange_steps: optional(&set, "exchange_steps", Options::count).unwrap_or(exchange),
                    shards: match optional(&set, "shards", Options::text).unwrap_or(shards) {
                        "same" => Shards::Same,
                        _ => Shards::Disjoint,
                    },
                })
            }
        };
        let mut distill = Distill {
            scheme,
            peers,
            assistants: entries(&keys, "assistants", section)?,
            task_weight: set.number("task_weight"),
            diagnose: set.flag("diagnose"),
            init_epochs: optional(&set, "init_epochs", Options::count).unwrap_or(0),
            terms,
        };
        let given = stages::Given {
            stages: &stages,
            task_weight: keys.get("task_weight").is_some(),
            init_epochs: keys.get("init_epochs").is_some(),
            epochs: train.epochs,
        };
        stages::expand(&mut distill, &given, &|i, key| place(&items[i].at, &format!("{path}.{i}.{key}")))?;
        Ok(distill)
    }

    fn compare(&self, distill: &Distill) -> Result<Compare> {
        let (keys, section) = self.open("compare")?;
        let set = keys.settings(section.keys)?;
        let baseline = optional(&set, "baseline", Options::flag);
        let none = distill.terms.is_empty() && self.open("distill")?.0.get("terms").is_none();
        if baseline == Some(true) && none {
            let action = "leave it out: without terms the student is its own baseline";
            return Err(Refusal::new(keys.place_of("baseline"), "distill.terms to compare with", "none", action));
        }
        let seeds: Vec<u64> = set.counts("seeds").iter().map(|&seed| seed as u64).collect();
        if let Some(seed) = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)).map(|(_, seed)| seed)
        {
            let found = format!("`{seed}` twice");
            return Err(Refusal::new(keys.place_of("seeds"), "seeds that differ", found, "remove one"));
        }
        Ok(Compare { baseline: baseline.unwrap_or(true), seeds })
    }

    fn budget(&self) -> Result<Option<PathBuf>> {
        let (keys, section) = self.open("budget")?;
        let set = keys.settings(section.keys)?;
        Ok(optional(&set, "file", Options::text).map(PathBuf::from))
    }
}

fn section(name: &str) -> &'static Section {
    keys::SECTIONS.iter().find(|section| section.name == name).expect("a section of the table")
}

fn optional<'o, T>(set: &'o Options, key: &str, get: fn(&'o Options, &str) -> T) -> Option<T> {
    set.optional(key, get)
}

fn required(choice: Option<Choice>) -> Choice {
    choice.expect("a key with a default entry")
}

/// The device of a name.
pub fn device(text: &str) -> Option<Device> {
    match text.strip_prefix("cuda:") {
        Some(n) => n.parse().ok().map(Device::Cuda),
        None => (text == "cpu").then_some(Device::Cpu),
    }
}

/// Keys of a teacher wherever it comes from.
const ANY_TEACHER: &[&str] = &["must_reach", "weight", "cache", "cache_views", "cache_precision"];

/// One teacher, or as many alike as `count` says.
fn teacher(keys: Keys<'_>, train: &Train) -> Result<Vec<Teacher>> {
    let section = section("teacher");
    let sources: Vec<&str> = ["run", "onnx", "arch"].into_iter().filter(|key| keys.get(key).is_some()).collect();
    let &[source] = &*sources else {
        let found = if sources.is_empty() { "none".to_string() } else { sources.join(" and ") };
        let at = place(keys.at, &keys.path);
        return Err(Refusal::new(at, "one of `run`, `onnx`, `arch`", found, "say where the teacher comes from"));
    };
    let (arch, keys) = match source {
        "arch" => {
            let own = section
                .keys
                .iter()
                .map(|key| key.name)
                .filter(|key| !["run", "onnx", "contract", "arch"].contains(key));
            let (arch, keys) = keys.choice(&ARCH, &own.collect::<Vec<_>>())?;
            (Some(arch), keys)
        }
        "onnx" => (None, keys.only(&[&["onnx", "contract"], ANY_TEACHER].concat(), "a teacher from `onnx`")?),
        _ => (None, keys.only(&[&["run"], ANY_TEACHER].concat(), "a teacher from `run`")?),
    };
    let set = keys.settings(section.keys)?;
    let source = match arch {
        Some(arch) => TeacherSource::Arch {
            arch,
            train: Box::new(Train {
                epochs: optional(&set, "epochs", Options::count).unwrap_or(train.epochs),
                batch: optional(&set, "batch", Options::count).unwrap_or(train.batch),
                optimizer: entry(&keys, "optimizer", section.keys)?.unwrap_or_else(|| train.optimizer.clone()),
                schedule: entry(&keys, "schedule", section.keys)?.unwrap_or_else(|| train.schedule.clone()),
                groups: Vec::new(),
                ..train.clone()
            }),
        },
        None if source == "onnx" => TeacherSource::Onnx {
            path: set.text("onnx").into(),
            contract: optional(&set, "contract", Options::text).map(PathBuf::from),
        },
        None => TeacherSource::Run(set.text("run").into()),
    };
    let cache = CacheWish {
        wanted: set.text("cache") == "auto",
        views: set.count("cache_views"),
        precision: if set.text("cache_precision") == "f16" { Precision::F16 } else { Precision::F32 },
    };
    let must_reach = optional(&set, "must_reach", Options::number);
    let teacher = Teacher { source, must_reach, weight: set.number("weight"), cache };
    Ok(vec![teacher; optional(&set, "count", Options::count).unwrap_or(1)])
}

/// How many replicas there are beside so many peers.
fn replicas(keys: &Keys<'_>, set: Option<usize>, peers: usize) -> Result<usize> {
    if peers >= MOST_REPLICAS {
        let expected = format!("at most {} peers", MOST_REPLICAS - 1);
        return Err(Refusal::new(keys.place_of("peers"), expected, peers, "name fewer"));
    }
    match set {
        Some(n) if peers > 0 && n != peers + 1 => {
            let expected = format!("{}, the student and distill.peers", peers + 1);
            Err(Refusal::new(keys.place_of("replicas"), expected, n, "leave it out, or correct the peers"))
        }
        _ => Ok(if peers > 0 { peers + 1 } else { set.unwrap_or(2) }),
    }
}

/// The term of deep mutual learning.
fn mutual() -> Term {
    let row = METHOD.row("codistill").expect("a method of the table");
    let options = Options::defaults(row.options).with("psi", Setting::Text("kl".into()));
    Term { method: Choice { name: row.name, options }, weight: 1.0, stage: Stage::Main, schedule: None }
}

fn group(keys: Keys<'_>) -> Result<Group> {
    let known: Vec<&str> = GROUP.iter().map(|key| key.name).collect();
    let keys = keys.only(&known, "a group")?;
    let set = keys.settings(GROUP)?;
    Ok(Group {
        pattern: set.text("match").into(),
        lr_factor: set.number("lr_factor"),
        weight_decay: optional(&set, "weight_decay", Options::number),
        frozen: set.flag("frozen"),
    })
}

/// A term, and whether it says its stage.
fn term(keys: Keys<'_>) -> Result<(Term, bool)> {
    let own: Vec<&str> = TERM.iter().map(|key| key.name).collect();
    let (method, keys) = keys.choice(&METHOD, &own)?;
    let set = keys.settings(TERM)?;
    let said = optional(&set, "stage", Options::text);
    let stage = match said {
        Some("init") => Stage::Init,
        Some("both") => Stage::Both,
        _ => Stage::Main,
    };
    let usual = || methods::find(method.name).map_or(1.0, |row| row.weight.of(&method.options));
    let weight = optional(&set, "weight", Options::number).unwrap_or_else(usual);
    let term = Term { method, weight, stage, schedule: entry(&keys, "schedule", TERM)? };
    Ok((term, said.is_some()))
}

/// The table entry that a key holds, or its default.
fn entry(keys: &Keys<'_>, name: &str, table: &[keys::Key]) -> Result<Option<Choice>> {
    let key = table.iter().find(|key| key.name == name).expect("a key of the section");
    let Form::Entry(rows) = key.form else { return Ok(None) };
    match (keys.get(name), key.left_out) {
        (Some(node), _) => Keys::open(node, &keys.path_of(name))?.choice(rows, &[]).map(|(choice, _)| Some(choice)),
        (None, keys::LeftOut::Entry(default)) => {
            let row = rows.row(default).expect("a default is a row");
            Ok(Some(Choice { name: row.name, options: Options::defaults(row.options) }))
        }
        (None, _) => Ok(None),
    }
}

/// The table entries of a list.
fn entries(keys: &Keys<'_>, name: &str, section: &Section) -> Result<Vec<Choice>> {
    let key = section.keys.iter().find(|key| key.name == name).expect("a key of the section");
    let (Form::Entries(rows), Some(node)) = (key.form, keys.get(name)) else { return Ok(Vec::new()) };
    let path = keys.path_of(name);
    let items = list(node, &path, &key.words())?.iter().enumerate();
    items.map(|(i, item)| Ok(Keys::open(item, &format!("{path}.{i}"))?.choice(rows, &[])?.0)).collect()
}
