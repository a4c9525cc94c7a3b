//! `cargo xtask recipes`: every example recipe, whole but for one epoch of each network.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{built, given, run as execute};
use crate::{Failure, data};

/// Where data sets are looked for that a recipe names as `data/NAME`, besides there: `KD_DATA`, or this.
const DATA: &str = "../shared/data";
/// Folders that data sets lie in below that.
const GROUPS: &[&str] = &["", "ucr"];
/// Where the runs are left.
const RUNS: &str = "target/recipes";

/// The recipes, by name.
pub fn all() -> Result<Vec<PathBuf>, String> {
    let folder = std::fs::read_dir("recipes").map_err(|e| format!("recipes: {e}"))?;
    let is_recipe = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let mut paths: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).filter(is_recipe).collect();
    paths.sort();
    if paths.is_empty() { Err("recipes: expected at least one recipe, found none".into()) } else { Ok(paths) }
}

/// Runs the command: all recipes, or those named.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let paths = if args.is_empty() { all()? } else { args.iter().map(|path| given(path).into()).collect() };
    execute(Command::new("cargo").args(["build", "--quiet", "--release", "--locked", "-p", "kd-trainer"]))?;
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok((path, text))
    };
    let mut recipes: Vec<(PathBuf, String)> = paths.into_iter().map(read).collect::<Result<_, String>>()?;
    // Another recipe's run that teaches comes first.
    recipes.sort_by_key(|(_, text)| taught_by(text).is_some());
    if recipes.iter().any(|(_, text)| text.contains(data::OUTPUT)) && Path::new(data::SHEETS).exists() {
        data::run(&["cifar10".to_string()])?;
    }
    let mut skipped = 0;
    for (path, text) in &recipes {
        let Some(data) = data_of(text) else {
            println!("{}: SKIPPED, its data is not here (KD_DATA names another folder)", path.display());
            skipped += 1;
            continue;
        };
        let name = path.file_stem().ok_or_else(|| format!("{}: expected a recipe, found no file", path.display()))?;
        let output = Path::new(RUNS).join(name);
        let mut command = Command::new(built("kd-train")?);
        command.arg("run").arg(path).args(["train.epochs=1", "compare.seeds=[1]", "--force", "--output"]).arg(&output);
        let teacher = text.split_once("[teacher]\n").map_or("", |(_, rest)| rest.split("\n[").next().unwrap_or(""));
        if teacher.contains("arch = ") {
            // One that was trained for one epoch need not reach anything.
            command.args(["teacher.epochs=1", "teacher.must_reach=0.0"]);
        }
        for i in 0..text.matches("[[teacher]]\n").count() {
            command.args([format!("teacher.{i}.epochs=1"), format!("teacher.{i}.must_reach=0.0")]);
        }
        if text.contains("init_epochs") {
            command.arg("distill.init_epochs=1");
        }
        command.args(taught_by(text).map(|name| format!("teacher.run={RUNS}/{name}")));
        command.args(data.map(|data| format!("data.path={}", data.display())));
        execute(command.stdout(Stdio::null()))?;
        println!("{}: ok, {}", path.display(), output.display());
    }
    println!("recipes: {} ran, {skipped} skipped", recipes.len() - skipped);
    Ok(())
}

/// The recipe whose run is the teacher: `run = "runs/NAME"`.
fn taught_by(recipe: &str) -> Option<&str> {
    recipe.lines().find_map(|line| line.strip_prefix("run = \"runs/")?.strip_suffix('"'))
}

/// Where the data of a recipe is: `Some(None)` where it needs no path or has one that is there.
fn data_of(recipe: &str) -> Option<Option<PathBuf>> {
    let named = recipe.lines().find_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    let Some(named) = named.map(Path::new) else { return Some(None) };
    // A UCR set is a pair of files whose names begin with the path's.
    let is_there = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        let begins =
            |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("{name}_TRAIN"));
        path.exists() || beside.is_some_and(|mut entries| entries.any(|entry| entry.is_ok_and(begins)))
    };
    if is_there(named) {
        return Some(None);
    }
    let root = std::env::var_os("KD_DATA").filter(|value| !value.is_empty()).map_or_else(|| DATA.into(), PathBuf::from);
    let name = named.file_name()?;
    GROUPS.iter().map(|group| root.join(group).join(name)).find(|path| is_there(path)).map(Some)
}
