//! A recipe as TOML, with every key.

use std::fmt::{self, Display, Write};
use std::path::Path;

use kd_runtime::files;

use super::keys::{ARCH, AUGMENTATION, METHOD, OPTIMIZER, READING, SCHEDULE, Table};
use super::{
    Choice, ClassWeights, Codistill, Device, Keep, Normalize, Recipe, Scheme, Shards, Stage, Teacher, TeacherSource,
    Term,
};
use crate::optim::groups::Group;
use crate::options::Quoted;
use crate::teacher::cache::Precision;

impl Recipe {
    /// The complete recipe, every default filled in; [`parse`](super::parse::parse) makes the same recipe of it.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    /// SHA-256 of [`Recipe::to_toml`].
    pub fn sha256(&self) -> String {
        files::sha256(self.to_toml().as_bytes())
    }

    /// SHA-256 of what decides the result: all but the run's name, threads and loaders, which may change between resumes.
    pub fn fingerprint(&self) -> String {
        let mut same = self.clone();
        same.run.name = "any".into();
        (same.run.threads, same.run.loaders) = (1, 1);
        same.sha256()
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { run, data, teachers, student, train, distill, compare, budget } = self;
        section(out, "[run]")?;
        key(out, "name", Quoted(&run.name))?;
        key(out, "seed", run.seed)?;
        match run.device {
            Device::Cpu => key(out, "device", "\"cpu\"")?,
            Device::Cuda(n) => key(out, "device", format_args!("\"cuda:{n}\""))?,
        }
        key(out, "threads", run.threads)?;
        key(out, "loaders", run.loaders)?;
        key(out, "precision", Quoted(run.precision.word()))?;
        section(out, "[data]")?;
        key(out, "format", Quoted(&data.format))?;
        path(out, "path", Some(&data.path))?;
        if let Some(read) = &data.read {
            key(out, "read", inline(&READING, read))?;
        }
        let normalize = match data.normalize {
            Normalize::None => "none",
            Normalize::Unit => "unit",
            Normalize::Standard => "standard",
            Normalize::Sample => "sample",
        };
        key(out, "normalize", Quoted(normalize))?;
        key(out, "subset", format_args!("{:?}", data.subset))?;
        let classes: Vec<String> = data.exclude_classes.iter().map(|class| Quoted(class).to_string()).collect();
        key(out, "exclude_classes", format_args!("[{}]", classes.join(", ")))?;
        key(out, "validation", format_args!("{:?}", data.validation))?;
        key(out, "labelled", format_args!("{:?}", data.labelled))?;
        let augment: Vec<String> = data.augment.iter().map(|choice| inline(&AUGMENTATION, choice)).collect();
        list(out, "augment", &augment)?;
        for teacher in teachers {
            section(out, if teachers.len() == 1 { "[teacher]" } else { "[[teacher]]" })?;
            write_teacher(out, teacher)?;
        }
        section(out, "[student]")?;
        options(out, &ARCH, student)?;
        section(out, "[train]")?;
        key(out, "epochs", train.epochs)?;
        key(out, "batch", train.batch)?;
        key(out, "accumulate", train.accumulate)?;
        key(out, "optimizer", inline(&OPTIMIZER, &train.optimizer))?;
        key(out, "schedule", inline(&SCHEDULE, &train.schedule))?;
        key(out, "decay_norm_and_bias", train.decay_norm_and_bias)?;
        key(out, "label_smoothing", format_args!("{:?}", train.label_smoothing))?;
        let class_weights = match train.class_weights {
            ClassWeights::Equal => "equal",
            ClassWeights::Balanced => "balanced",
        };
        key(out, "class_weights", Quoted(class_weights))?;
        number(out, "clip_value", train.clip_value)?;
        number(out, "clip_norm", train.clip_norm)?;
        number(out, "max_norm", train.max_norm)?;
        number(out, "ema", train.ema)?;
        key(out, "ema_warmup", train.ema_warmup)?;
        list(out, "groups", &train.groups.iter().map(inline_group).collect::<Vec<_>>())?;
        if let Some(patience) = train.patience {
            key(out, "patience", patience)?;
        }
        key(out, "keep", if train.keep == Keep::Last { "\"last\"" } else { "\"selected\"" })?;
        section(out, "[distill]")?;
        match distill.scheme {
            Scheme::Offline => key(out, "scheme", "\"offline\"")?,
            Scheme::Codistill(Codistill { replicas, burn_in_steps, exchange_steps, shards }) => {
                key(out, "scheme", "\"codistill\"")?;
                key(out, "replicas", replicas)?;
                if !distill.peers.is_empty() {
                    let peers: Vec<String> = distill.peers.iter().map(|choice| inline(&ARCH, choice)).collect();
                    list(out, "peers", &peers)?;
                }
                if let Some(steps) = burn_in_steps {
                    key(out, "burn_in_steps", steps)?;
                }
                key(out, "exchange_steps", exchange_steps)?;
                key(out, "shards", if shards == Shards::Same { "\"same\"" } else { "\"disjoint\"" })?;
            }
        }
        let assistants: Vec<String> = distill.assistants.iter().map(|choice| inline(&ARCH, choice)).collect();
        list(out, "assistants", &assistants)?;
        key(out, "task_weight", format_args!("{:?}", distill.task_weight))?;
        key(out, "init_epochs", distill.init_epochs)?;
        key(out, "diagnose", distill.diagnose)?;
        list(out, "terms", &distill.terms.iter().map(inline_term).collect::<Vec<_>>())?;
        section(out, "[compare]")?;
        key(out, "baseline", compare.baseline)?;
        key(out, "seeds", format_args!("{:?}", compare.seeds))?;
        if let Some(file) = budget {
            section(out, "[budget]")?;
            path(out, "file", Some(file))?;
        }
        Ok(())
    }
}

fn section(out: &mut String, header: &str) -> fmt::Result {
    writeln!(out, "{}{header}", if out.is_empty() { "" } else { "\n" })
}

fn key(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "{name} = {value}")
}

fn path(out: &mut String, name: &str, value: Option<&Path>) -> fmt::Result {
    value.map_or(Ok(()), |path| key(out, name, Quoted(&path.to_string_lossy())))
}

fn number(out: &mut String, name: &str, value: Option<f64>) -> fmt::Result {
    value.map_or(Ok(()), |x| key(out, name, format_args!("{x:?}")))
}

fn list(out: &mut String, name: &str, items: &[String]) -> fmt::Result {
    match items {
        [] => key(out, name, "[]"),
        items => key(out, name, format_args!("[\n  {},\n]", items.join(",\n  "))),
    }
}

fn options(out: &mut String, table: &Table, choice: &Choice) -> fmt::Result {
    key(out, table.key, Quoted(choice.name))?;
    choice.options.0.iter().try_for_each(|(name, setting)| key(out, name, setting))
}

fn write_teacher(out: &mut String, teacher: &Teacher) -> fmt::Result {
    match &teacher.source {
        TeacherSource::Run(run) => path(out, "run", Some(run))?,
        TeacherSource::Onnx { path: model, contract } => {
            path(out, "onnx", Some(model))?;
            path(out, "contract", contract.as_deref())?;
        }
        TeacherSource::Arch { arch, train } => {
            options(out, &ARCH, arch)?;
            key(out, "epochs", train.epochs)?;
            key(out, "batch", train.batch)?;
            key(out, "optimizer", inline(&OPTIMIZER, &train.optimizer))?;
            key(out, "schedule", inline(&SCHEDULE, &train.schedule))?;
        }
    }
    number(out, "must_reach", teacher.must_reach)?;
    key(out, "weight", format_args!("{:?}", teacher.weight))?;
    key(out, "cache", if teacher.cache.wanted { "\"auto\"" } else { "\"off\"" })?;
    key(out, "cache_views", teacher.cache.views)?;
    key(out, "cache_precision", if teacher.cache.precision == Precision::F16 { "\"f16\"" } else { "\"f32\"" })
}

/// `{ kind = "adamw", lr = 0.001 }`.
fn inline(table: &Table, choice: &Choice) -> String {
    format!("{{ {} }}", pairs(table, choice).join(", "))
}

fn inline_group(group: &Group) -> String {
    let decay = group.weight_decay.map(|decay| format!("weight_decay = {decay:?}, ")).unwrap_or_default();
    let (pattern, factor, frozen) = (Quoted(&group.pattern), group.lr_factor, group.frozen);
    format!("{{ match = {pattern}, lr_factor = {factor:?}, {decay}frozen = {frozen} }}")
}

fn inline_term(term: &Term) -> String {
    let mut pairs = pairs(&METHOD, &term.method);
    pairs.push(format!("weight = {:?}", term.weight));
    let stage = match term.stage {
        Stage::Main => "main",
        Stage::Init => "init",
        Stage::Both => "both",
    };
    pairs.push(format!("stage = \"{stage}\""));
    pairs.extend(term.schedule.as_ref().map(|schedule| format!("schedule = {}", inline(&SCHEDULE, schedule))));
    format!("{{ {} }}", pairs.join(", "))
}

fn pairs(table: &Table, choice: &Choice) -> Vec<String> {
    let name = format!("{} = {}", table.key, Quoted(choice.name));
    let options = choice.options.0.iter().map(|(name, setting)| format!("{name} = {setting}"));
    std::iter::once(name).chain(options).collect()
}
