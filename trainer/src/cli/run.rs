//! `kd-train run`: a recipe to a run folder.

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kd_runtime::cli::usage;
use kd_runtime::error::Exit;
use kd_runtime::report::json;
use kd_runtime::{Refusal, Result};

use super::args::{Format, Run};
use crate::gpu::Gpu;
use crate::group::Group;
use crate::group::join::Join;
use crate::group::launch::Launch;
use crate::ops::kernels::rows;
use crate::recipe::{Device, Recipe, Scheme, check_parts, parse};
use crate::run::folder::Existing;
use crate::run::monitor::Monitor;
use crate::run::session::{self, Order};
use crate::run::{evidence, monitor, signals, table};
use crate::schemes::exchange::Place;

pub(super) fn run(args: &Run, out: &mut dyn Write) -> Result<()> {
    let mut overrides = args.overrides.clone();
    overrides.extend(args.device.iter().map(|device| format!("run.device={device}")));
    let recipe = parse::read(&args.recipe, &overrides)?;
    let launch = Launch::from_environment()?;
    launch.as_ref().map_or(Ok(()), |launch| check_parts(&recipe, launch.of))?;
    let gpu = match recipe.run.device {
        Device::Cpu => None,
        Device::Cuda(_) if launch.is_some() => {
            let action = "use --device cpu, or one process";
            return Err(Refusal::new("run.device", "the host, of several processes", "a GPU", action));
        }
        Device::Cuda(n) => Some(Gpu::open(n, recipe.run.precision)?),
    };
    let place = place(args, &recipe)?;
    let output = match (&args.output, &place) {
        (Some(output), _) => output.clone(),
        (None, None) => default_output(&recipe.run.name)?,
        (None, Some(place)) => default_output(&format!("{}-replica-{}", recipe.run.name, place.me))?,
    };
    let existing = match (args.resume, args.force) {
        (true, _) => Existing::Resume,
        (false, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    let command_line = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let stop = signals::Stop::install()?;
    let mut monitor: Box<dyn Monitor> = match &launch {
        Some(Launch { rank: 1.., .. }) => Box::new(monitor::Silent),
        _ => Box::new(monitor::Terminal::new(output.join("metrics.jsonl"))),
    };
    for lack in gpu.iter().flat_map(Gpu::lacks) {
        monitor.note(&format!("run.device: slow without {lack}"));
    }
    let group = launch.map(|launch| join(&launch, args, &recipe, &output, &stop, &mut *monitor)).transpose()?;
    let order = Order { recipe: &recipe, output: &output, existing, place, group: group.clone(), gpu, command_line };
    let done = session::run(&order, &stop, &mut *monitor);
    let done = match (done, group) {
        (Ok(results), Some(group)) => group.finish().map(|()| results).map_err(|why| group.end(why)),
        (Err(why), Some(group)) => Err(group.end(why)),
        (done, None) => done,
    };
    let results = done.map_err(|refusal| match refusal.exit {
        Exit::Interrupted | Exit::Terminated => Refusal { action: how_to_go_on(args, &output), ..refusal },
        _ => refusal,
    })?;
    // Of several processes the first one speaks.
    let Some(results) = results else { return Ok(()) };
    let text = match args.format {
        Format::Text => format!("{}\n{}", output.display(), table::render(&results)),
        Format::Json => json::pretty(&results),
    };
    out.write_all(text.as_bytes()).map_err(|e| kd_runtime::files::refuse_write("standard output".as_ref(), &e))
}

/// Joins the other processes that train with this one.
fn join(
    launch: &Launch,
    args: &Run,
    recipe: &Recipe,
    output: &Path,
    stop: &signals::Stop,
    monitor: &mut dyn Monitor,
) -> Result<Arc<Group>> {
    let json = args.format == Format::Json;
    let join = Join {
        launch,
        same: [
            ("version of kd-train", evidence::Program::this().version.into()),
            ("recipe", recipe.fingerprint()),
            ("instruction set (KD_CPU)", rows::chosen().into()),
        ],
        go_on: format!("start all ranks again and {}", how_to_go_on(args, output)),
        stop,
        overdue: Box::new(move |why| {
            usage::finish(Err(why.clone()), json);
            std::process::exit(why.exit as i32)
        }),
    };
    join.join(&mut |text| monitor.note(text)).map(Arc::new)
}

/// Where the other replicas are met, if this is one of several.
fn place(args: &Run, recipe: &Recipe) -> Result<Option<Place>> {
    let (Some((me, replicas)), Some(at)) = (args.replica, &args.exchange) else { return Ok(None) };
    let expected = match recipe.distill.scheme {
        Scheme::Codistill(scheme) if scheme.replicas == replicas => {
            return Ok(Some(Place { at: at.clone(), me, replicas }));
        }
        Scheme::Codistill(scheme) => format!("one of the recipe's {} replicas", scheme.replicas),
        Scheme::Offline => "a recipe with scheme = \"codistill\"".to_string(),
    };
    let action = "change distill.scheme and distill.replicas, or the option";
    Err(Refusal::new("--replica", expected, format!("{me}/{replicas}"), action))
}

/// `runs/NAME`, if NAME can be the name of a folder.
fn default_output(name: &str) -> Result<PathBuf> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(Path::new("runs").join(name)),
        _ => {
            let expected = "a name that a folder can have";
            Err(Refusal::new("run.name", expected, format!("`{name}`"), "choose another name, or pass --output DIR"))
        }
    }
}

/// The command line that continues a run.
fn how_to_go_on(args: &Run, output: &Path) -> String {
    let mut words = vec!["kd-train".to_string(), "run".into(), args.recipe.display().to_string()];
    words.extend(args.overrides.iter().cloned());
    words.extend(["--output".into(), output.display().to_string(), "--resume".into()]);
    if let Some(device) = &args.device {
        words.extend(["--device".into(), device.clone()]);
    }
    if let (Some((me, replicas)), Some(at)) = (args.replica, &args.exchange) {
        words.extend(["--replica".into(), format!("{me}/{replicas}"), "--exchange".into(), at.clone()]);
    }
    format!("go on with: {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        let cases = [
            ("runs/a-b_1.toml", "runs/a-b_1.toml"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("x=[1]", "'x=[1]'"),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(default_output(name).is_err(), "{name}");
        }
        assert_eq!(default_output("digits").ok(), Some(PathBuf::from("runs/digits")));
    }
}
