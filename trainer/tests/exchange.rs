//! Codistillation over processes that share a folder: nobody waits, and nobody harms another.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Scratch, TINY, assert_same, json, line, run, start, stdout};

const OF: usize = 3;

/// Epochs that the others need at least while one is killed and comes back once.
const EPOCHS_A_KILL: u32 = 60;

fn recipe(scratch: &Scratch, epochs: u32) -> PathBuf {
    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    let tail = "batch = 16\noptimizer = { kind = \"adamw\", lr = 2e-3 }\n[distill]\nscheme = \"codistill\"\nreplicas = 3\n\
                burn_in_steps = 10\nexchange_steps = 1\nterms = [{ method = \"codistill\" }]\n[compare]\nbaseline = false\n";
    scratch.recipe(&format!("{head}[student]\narch = \"mlp\"\nhidden = [24]\n[train]\nepochs = {epochs}\n{tail}"))
}

fn words(replica: usize, folder: &Path) -> [String; 4] {
    ["--replica".into(), format!("{replica}/{OF}"), "--exchange".into(), folder.display().to_string()]
}

/// The last of a replica's checkpoints.
fn newest(folder: &Path, replica: usize) -> Option<PathBuf> {
    let files = fs::read_dir(folder.join(format!("seed-1/replica-{replica}"))).ok()?;
    files.filter_map(|file| Some(file.ok()?.path())).max()
}

fn epochs(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One of three is killed at random moments and comes back; another leaves a file cut off, one with a flipped bit and one
/// of another run. All end, the others' losses do not jump, and each bad file is spoken of once.
#[test]
fn replicas_in_processes_survive_kills_and_bad_checkpoints() {
    let scratch = Scratch::new("exchange");
    let total = support::kills() * EPOCHS_A_KILL;
    let (recipe, folder) = (recipe(&scratch, total), scratch.path("shared"));
    let output = |replica: usize| scratch.path(&format!("run-{replica}"));
    let begin = |replica: usize, more: &[&str]| {
        let words = words(replica, &folder);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        start(&recipe, &output(replica), &words)
    };
    let children: Vec<_> = [1, 3].into_iter().map(|replica| begin(replica, &[])).collect();
    let mut weak = begin(2, &[]);
    let began = Instant::now();
    while (1..=OF).any(|replica| newest(&folder, replica).is_none()) {
        assert!(began.elapsed() < Duration::from_secs(120), "a replica without a checkpoint for two minutes");
        sleep(Duration::from_millis(2));
    }
    // What replica 2 might leave if it were ill: all of them newer than anything it will say.
    let good = newest(&folder, 2).unwrap();
    let (bytes, name) = (fs::read(&good).unwrap(), good.file_name().unwrap().to_str().unwrap().to_string());
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    let foreign = b"a file of somebody else";
    for (step, bytes) in [(900_000, &bytes[..bytes.len() / 2]), (900_001, &flipped), (900_002, &foreign[..])] {
        fs::write(good.with_file_name(format!("{step:012}{}", &name[12..])), bytes).unwrap();
    }
    for moment in support::moments(Duration::from_millis(150)).take(support::kills() as usize) {
        sleep(moment);
        weak.kill().unwrap();
        weak.wait().unwrap();
        weak = begin(2, &["--resume"]);
    }
    let ends: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let weak = weak.wait_with_output().unwrap();
    assert_eq!(weak.status.code(), Some(0), "{}", String::from_utf8_lossy(&weak.stderr));
    for (replica, end) in [1, 3].into_iter().zip(&ends) {
        let said = String::from_utf8_lossy(&end.stderr);
        assert_eq!(end.status.code(), Some(0), "{said}");
        assert_eq!(said.matches("is left alone").count(), 3, "replica {replica}: {said}");
        assert!(stdout(end).contains("the student is number"), "{}", stdout(end));
        let epochs = epochs(&output(replica));
        let losses: Vec<f64> = epochs.iter().map(|epoch| epoch["terms"]["ce"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), total as usize);
        let jump = losses.windows(2).find(|pair| pair[1] > 1.25 * pair[0] + 0.02);
        assert!(jump.is_none(), "replica {replica}: {jump:?} in {losses:?}");
        assert!(epochs.iter().any(|epoch| epoch["stale_steps"]["replica-2"].is_number()), "ages are logged");
        assert!(epochs.iter().any(|epoch| epoch["terms"]["codistill"].as_f64().unwrap() > 0.0), "it listens");
    }
}

/// Head of a recipe, a student of two stages, and a peer that is larger.
fn unlike(scratch: &Scratch, distill: &str) -> PathBuf {
    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    scratch.recipe(&format!(
        "{head}[student]\narch = \"cnn\"\nwidths = [4, 6]\n[train]\nepochs = 4\nbatch = 32\n\
         optimizer = {{ kind = \"adamw\", lr = 1e-2 }}\n[distill]\n{distill}"
    ))
}

/// Mutual learning of two architectures, one with exits: the student is the one of `[student]`, the other is kept beside it,
/// and a kill changes nothing.
#[test]
fn unlike_networks_teach_each_other_and_go_on_after_a_kill() {
    let scratch = Scratch::new("dml");
    let recipe = unlike(
        &scratch,
        "scheme = \"dml\"\npeers = [{ arch = \"cnn\", widths = [12, 16, 20] }]\n\
         terms = [{ method = \"codistill\", psi = \"kl\" }, { method = \"byot\" }]\n",
    );
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    let done = run(&recipe, &whole, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let results = json(&whole.join("results.json"));
    let [student, baseline] = [0, 1].map(|i| &results["arms"][i]);
    let seed = &student["seeds"][0];
    assert_eq!(seed["replicas"]["chosen"], 1);
    assert_eq!(seed["replicas"]["archs"], serde_json::json!(["cnn", "cnn"]));
    assert_eq!((&student["macs"], &seed["steps"]), (&baseline["macs"], &baseline["seeds"][0]["steps"]));
    assert!(seed["replicas"]["compute"].as_f64().unwrap() > 3.0, "the peer is larger: {seed}");
    assert_eq!(seed["exits"]["each"].as_array().map(Vec::len), Some(1));
    let parameters = |name: &str| {
        let bytes = fs::read(whole.join(name).join("model.onnx")).unwrap();
        kd_runtime::onnx::read(&bytes).unwrap().graph.stats().unwrap().parameters
    };
    assert!(parameters("replica-2") > parameters("student"));
    assert!(whole.join("student/exit-1/model.onnx").exists());
    let listens = |epoch: &Value| epoch["epoch"] == 1 && epoch["terms"]["codistill"].as_f64() > Some(0.0);
    assert_eq!(epochs(&whole).iter().filter(|epoch| listens(epoch)).count(), 2, "both, from the first epoch on");

    let mut child = start(&recipe, &killed, &["--resume"]);
    let began = Instant::now();
    while !killed.join("checkpoints/replica-1-seed1/state.before.safetensors").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no epoch in two minutes");
        sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(run(&recipe, &killed, &["--resume"]).status.code(), Some(0));
    assert_same(&whole, &killed);
}

/// One after the other, so that it is known who hears whom.
#[test]
fn unlike_networks_teach_each_other_across_processes() {
    let scratch = Scratch::new("exchange-unlike");
    let distill = "scheme = \"dml\"\npeers = [{ arch = \"mlp\", hidden = [24] }]\n[compare]\nbaseline = true\n";
    let (recipe, at) = (unlike(&scratch, distill), scratch.path("shared").display().to_string());
    let at_another = scratch.path("another").display().to_string();
    let steps = [
        ("1/2", 0, "cnn", &at, "--force", 0),
        ("2/2", 1, "mlp", &at, "--force", 0),
        // Killed before its results were written: it hears the other one again.
        ("2/2", 1, "mlp", &at, "--resume", 0),
        // The other one answers to a network that is no more.
        ("1/2", 0, "cnn", &at, "--force", 1),
        ("2/2", 0, "mlp", &at_another, "--force", 0),
        ("1/2", 1, "cnn", &at_another, "--force", 0),
    ];
    for (replica, others, arch, at, how, earlier) in steps {
        let output = scratch.path(arch);
        if how == "--resume" {
            ["results.json", "evidence.json"].iter().for_each(|file| fs::remove_file(output.join(file)).unwrap());
        }
        let done = run(&recipe, &output, &[how, "--replica", replica, "--exchange", at]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{said}");
        let is_of_before = said.matches("answers to an earlier start").count();
        assert_eq!((said.matches("left alone").count(), is_of_before), (earlier, earlier), "{said}");
        let listens = |epoch: &Value| epoch["terms"]["codistill"].as_f64() > Some(0.0);
        assert_eq!(epochs(&output).iter().any(listens), others > 0, "{replica}");
        let results = json(&output.join("results.json"));
        let (student, baseline) = (&results["arms"][0], &results["arms"][1]);
        assert_eq!(student["macs"], baseline["macs"], "the same network alone");
        let replicas = &student["seeds"][0]["replicas"];
        assert_eq!(replicas["archs"].as_array().map(Vec::len), (others > 0).then_some(2));
    }
}

#[test]
fn a_replica_that_cannot_be_is_refused() {
    let scratch = Scratch::new("exchange-refused");
    let (recipe, folder) = (recipe(&scratch, 1), scratch.path("shared"));
    let at = folder.display().to_string();
    let refuse = |words: &[&str]| {
        let done = run(&recipe, &scratch.path("run"), words);
        assert_eq!(done.status.code(), Some(2), "{words:?}");
        assert!(!scratch.path("run").exists(), "{words:?}");
        line(&done)
    };
    assert!(refuse(&["--replica", "1/2", "--exchange", &at]).contains("expected one of the recipe's 3 replicas"));
    assert!(refuse(&["--replica", "4/3", "--exchange", &at]).contains("N/OF with N from 1 to OF, such as 2/3"));
    let offline = refuse(&["distill.scheme=offline", "--replica", "1/3", "--exchange", &at]);
    assert!(offline.contains("expected "), "{offline}");
}
