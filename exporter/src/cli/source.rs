//! What the user names: an ONNX file or a run folder; to a float network, its contract and its data.

use std::path::{Path, PathBuf};

use kd_runtime::cli::target::Target;
use kd_runtime::contract::{self, Contract};
use kd_runtime::data::{self, Dataset};
use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result, files};

use super::args::Args;
use crate::folder::Source;

/// What is exported.
pub struct Opened {
    /// The float network.
    pub graph: Graph,
    /// Its contract, if there is one.
    pub contract: Option<Contract>,
    /// Its data, if it was named.
    pub data: Option<Box<dyn Dataset>>,
    /// Where all of it came from.
    pub source: Source,
    /// What the reader had to say.
    pub notes: Vec<String>,
}

/// Opens what is exported, and checks all that can be known before work starts.
pub fn open(args: &Args) -> Result<Opened> {
    let model = args.exit.map_or_else(|| Ok(args.model.clone()), |exit| find_exit(&args.model, exit))?;
    let target = Target::open(&model, None, args.contract.as_deref())?;
    let graph = target.graph?;
    if graph.nodes.iter().any(|node| node.op.def().is_quantization()) {
        let action = "export the float model it was made from";
        return Err(Refusal::new(target.path.display(), "a float model", "a quantized one", action));
    }
    let evidence = args.model.join("evidence.json");
    let evidence_sha256 = if evidence.is_file() { Some(files::sha256(&files::read(&evidence)?)) } else { None };
    let named = match &args.data {
        Some(named) => Some(data::Source::parse(named)?),
        None => of_run(&args.model)?,
    };
    if args.int8 && target.contract.is_none() {
        return Err(contract::missing(&target.path, &graph, "--int8", &mut std::io::stdout().lock()));
    }
    if args.int8 && named.is_none() {
        let action = "pass --data FORMAT:PATH, or name a run folder";
        return Err(Refusal::new("--int8", "data to calibrate on", "none", action));
    }
    if let Some(contract) = &target.contract {
        contract.check_model(&graph).map_err(|error| error.within(target.path.display()))?;
    }
    let named = named.map(|named| named.read_as(target.contract.as_ref()));
    let data = named.as_ref().map(data::Source::open).transpose()?;
    if let (Some(contract), Some(data)) = (&target.contract, &data) {
        contract.check_data(data.description())?;
    }
    let source = Source {
        path: target.path.display().to_string(),
        sha256: target.sha256,
        evidence_sha256,
        data: named.as_ref().map(ToString::to_string),
        data_sha256: data.as_ref().map(|data| data.description().sha256.clone()),
    };
    Ok(Opened { graph, contract: target.contract, data, source, notes: target.notes })
}

/// The network of an exit of a run, as kd-train keeps it.
fn find_exit(run: &Path, exit: u8) -> Result<PathBuf> {
    let of = |exit: u8| run.join(format!("student/exit-{exit}/model.onnx"));
    if of(exit).is_file() {
        return Ok(of(exit));
    }
    let last = (1..=u8::MAX).take_while(|&exit| of(exit).is_file()).last();
    let found = last.map_or_else(|| "a run without exits".to_string(), |last| format!("exits 1 to {last}"));
    let action = "name one of those, or a run whose recipe has the method `byot`";
    Err(Refusal::new(run.display(), format!("a run with an exit {exit}"), found, action))
}

/// The data that a run's recipe names.
fn of_run(run: &Path) -> Result<Option<data::Source>> {
    let path = run.join("recipe.toml");
    if !path.is_file() {
        return Ok(None);
    }
    let refuse = |found: &dyn std::fmt::Display| {
        Refusal::new(path.display(), "[data] format and path", found, "pass --data FORMAT:PATH")
    };
    let recipe: toml::Table =
        files::read_text(&path)?.parse().map_err(|error: toml::de::Error| refuse(&error.message()))?;
    let section = recipe.get("data").and_then(toml::Value::as_table).ok_or_else(|| refuse(&"no [data]"))?;
    let text = |key: &str| section.get(key).and_then(toml::Value::as_str);
    let format = text("format").ok_or_else(|| refuse(&"no format"))?;
    Ok(Some(data::Source { format: format.into(), path: text("path").unwrap_or_default().into(), reading: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_that_a_run_lacks_is_refused_by_those_it_has() {
        let run = std::env::temp_dir().join(format!("kd-export-exit-{}", std::process::id()));
        let refused = |exit| find_exit(&run, exit).unwrap_err().to_string();
        assert!(refused(1).contains("expected a run with an exit 1, found a run without exits"), "{}", refused(1));
        for exit in [1, 2] {
            std::fs::create_dir_all(run.join(format!("student/exit-{exit}"))).unwrap();
            std::fs::write(run.join(format!("student/exit-{exit}/model.onnx")), b"").unwrap();
        }
        assert_eq!(find_exit(&run, 2).unwrap(), run.join("student/exit-2/model.onnx"));
        assert!(refused(3).contains("found exits 1 to 2"), "{}", refused(3));
        std::fs::remove_dir_all(&run).unwrap();
    }
}
