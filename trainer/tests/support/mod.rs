//! Runs `kd-train` in folders of its own.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_kd-train");

/// A recipe of a second or two.
pub const TINY: &str = r#"
[run]
name = "tiny"
seed = 1
threads = 1

[data]
format = "digits"
subset = 0.3
validation = 0.2

[teacher]
arch = "mlp"
hidden = [48]
epochs = 4
must_reach = 0.3

[student]
arch = "mlp"
hidden = [8]

[train]
epochs = 8
batch = 32
optimizer = { kind = "adamw", lr = 5e-3 }

[distill]
scheme = "offline"
task_weight = 1.0
terms = [ { method = "kd", temperature = 4.0, weight = 1.0 } ]

[compare]
baseline = true
"#;

/// How many kills (SIGKILL) a test survives: `KD_KILLS`, 3 if it is not set.
pub fn kills() -> u32 {
    std::env::var("KD_KILLS").map_or(3, |n| n.parse().unwrap())
}

/// Random moments below a span, others in every process.
pub fn moments(span: Duration) -> impl Iterator<Item = Duration> {
    let mut bits = u64::from(std::process::id());
    std::iter::repeat_with(move || {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        span.mul_f64((bits >> 40) as f64 / f64::from(1 << 24))
    })
}

/// A folder that vanishes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kd-train-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn recipe(&self, text: &str) -> PathBuf {
        let path = self.path("recipe.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(recipe: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg(recipe).arg("--output").arg(output).args(more);
    command
}

pub fn run(recipe: &Path, output: &Path, more: &[&str]) -> Output {
    command(recipe, output, more).output().unwrap()
}

pub fn start(recipe: &Path, output: &Path, more: &[&str]) -> Child {
    command(recipe, output, more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn kd_train(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The last line on standard error, which is the refusal.
pub fn line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_string()
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every file of a run but its evidence, which holds times, and its checkpoints; without the shares of time that were
/// waited for data.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = json(&folder.join("evidence.json"))["files"].as_object().unwrap().clone();
    let mut files: BTreeMap<String, Vec<u8>> =
        files.keys().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect();
    let metrics = String::from_utf8(files["metrics.jsonl"].clone()).unwrap();
    let lines = metrics.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let share = line.as_object_mut().unwrap().remove("data_wait_share").unwrap();
        assert!((0.0..=1.0).contains(&share.as_f64().unwrap()), "{share}");
        format!("{line}\n")
    });
    let lines: String = lines.collect();
    files.insert("metrics.jsonl".into(), lines.into_bytes());
    files
}

pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    let differ: Vec<_> = a.iter().filter(|(name, bytes)| b[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{differ:?}");
}
