//! Networks and results as files of a run folder, and whether the folder is of the same recipe.

use std::collections::BTreeMap;
use std::path::Path;

use kd_runtime::contract::Contract;
use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result, files, onnx};
use toml::{Table, Value};

use super::fit::Fitted;
use super::folder::{Folder, RECIPE};
use super::results::{self, Results, Size};
use crate::recipe::Keep;

/// The results of a run.
pub const RESULTS: &str = "results.json";

/// Keys that no result depends on.
const FREE: [&str; 2] = ["run.threads", "run.loaders"];

/// Writes `model.onnx`, `model.safetensors` and `contract.json` into a folder of the run.
pub fn write_network(folder: &Folder, name: &str, graph: &Graph, contract: &Contract) -> Result<()> {
    folder.write(&format!("{name}/model.onnx"), &onnx::write(graph))?;
    folder.write(&format!("{name}/model.safetensors"), &kd_exporter::formats::safetensors::write_float(graph)?)?;
    folder.write(&format!("{name}/contract.json"), contract.to_json().as_bytes())
}

/// The network that is kept.
pub fn kept(fitted: &Fitted, keep: Keep) -> &Graph {
    match keep {
        Keep::Selected => &fitted.selected,
        Keep::Last => &fitted.last,
    }
}

/// What a network costs, its bytes those of its model.onnx.
pub fn size(graph: &Graph) -> Result<Size> {
    let stats = graph.stats()?;
    Ok(Size { parameters: stats.parameters, macs: stats.macs, bytes: onnx::write(graph).len() as u64 })
}

/// Reads the results of a finished run.
pub fn read_results(run: &Path) -> Result<Results> {
    let path = run.join(RESULTS);
    let refuse = |found: String| {
        Refusal::new(path.display(), format!("results (`{}`)", results::SCHEMA), found, "run it again with --force")
    };
    let read: Results = serde_json::from_str(&files::read_text(&path)?).map_err(|e| refuse(e.to_string()))?;
    if read.schema == results::SCHEMA { Ok(read) } else { Err(refuse(format!("`{}`", read.schema))) }
}

/// Refuses to go on in a folder whose resolved recipe is not `recipe`, naming the first key that differs. The number
/// of threads and loaders may differ: no result depends on it.
pub fn check_same_recipe(run: &Path, recipe: &str) -> Result<()> {
    let path = run.join(RECIPE);
    let before = keys(&path, &files::read_text(&path)?)?;
    let now = keys(&path, recipe)?;
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "nothing".into());
    let differs = |key: &&String| !FREE.contains(&&***key) && before.get(*key) != now.get(*key);
    match before.keys().chain(now.keys()).filter(differs).min() {
        None => Ok(()),
        Some(key) => {
            let expected = format!("{}, as the run began with", shown(before.get(key)));
            let action = "bring the recipe back, choose another --output, or begin anew with --force";
            Err(Refusal::new(format!("{}: {key}", path.display()), expected, shown(now.get(key)), action))
        }
    }
}

/// Every key of a TOML text with its value: `distill.terms.0.weight` is `1.0`.
fn keys(path: &Path, text: &str) -> Result<BTreeMap<String, String>> {
    let table: Table = toml::from_str(text).map_err(|e| {
        let found = e.message().lines().next().unwrap_or_default().to_string();
        Refusal::new(path.display(), "the recipe of a run", found, "begin anew with --force")
    })?;
    let mut found = BTreeMap::new();
    // A stack, since a file may nest deeply.
    let mut left = vec![(String::new(), Value::Table(table))];
    while let Some((key, value)) = left.pop() {
        let under = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
        match value {
            Value::Table(table) => left.extend(table.into_iter().map(|(name, value)| (under(&name), value))),
            Value::Array(items) if items.iter().any(Value::is_table) => {
                left.extend(items.into_iter().enumerate().map(|(i, value)| (under(&i.to_string()), value)));
            }
            value => drop(found.insert(key, value.to_string())),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_overrides() {
        let text = "[run]\nname = \"a\"\n[distill]\nterms = [ { method = \"kd\" }, { weight = 2.5 } ]\nx = [1, 2]\n";
        let found = keys(Path::new("r"), text).unwrap_or_default();
        let found: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            found,
            ["distill.terms.0.method=\"kd\"", "distill.terms.1.weight=2.5", "distill.x=[1, 2]", "run.name=\"a\""]
        );
    }
}
