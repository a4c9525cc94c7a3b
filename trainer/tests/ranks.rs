//! Several processes train one network together: what they make is what one makes, and none outlives another.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::Value;
use support::{Scratch, TINY, line, moments, run, stdout};

/// How long one rank may outlive another.
const MOST: Duration = Duration::from_secs(30);

/// A convolutional student with batch norms and dropout that learns from a teacher; each epoch is one step of all samples. It
/// learns slowly: a sum that is rounded otherwise may switch a ReLU, which steps of a usual size make more of.
const ONE_STEP: &str = r#"
[run]
name = "step"
seed = 3
threads = 1

[data]
format = "digits"
subset = 0.8
validation = 0.2
augment = [{ kind = "translate" }, { kind = "mixup" }]

[teacher]
arch = "mlp"
hidden = [48]
epochs = 5

[student]
arch = "cnn"
widths = [8, 12]
dropout = 0.2

[train]
epochs = 110
batch = 2000
optimizer = { kind = "sgd", lr = 5e-3 }
clip_norm = 5.0
ema = 0.9

[distill]
terms = [{ method = "kd", temperature = 4.0 }, { method = "fitnets", weight = 0.1, student = "features", teacher = "features" }]
"#;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Processes that train together.
struct Ranks(Vec<Child>);

impl Ranks {
    fn start(of: usize, recipe: &Path, output: &Path, more: &[&str]) -> Self {
        let port = free_port();
        Self((0..of).map(|rank| start(rank, of, port, recipe, output, more)).collect())
    }

    /// Waits for all; each with its exit status and what it said.
    fn end(self) -> Vec<Output> {
        self.0.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
    }
}

fn start(rank: usize, of: usize, port: u16, recipe: &Path, output: &Path, more: &[&str]) -> Child {
    command(rank, of, port, recipe, output, more).spawn().unwrap()
}

fn command(rank: usize, of: usize, port: u16, recipe: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(support::PROGRAM);
    command.arg("run").arg(recipe).arg("--output").arg(output).args(more);
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", of.to_string());
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()).env("KD_JOIN_S", "20");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn assert_done(outputs: &[Output]) {
    for (rank, output) in outputs.iter().enumerate() {
        assert_eq!(output.status.code(), Some(0), "rank {rank}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stdout(output).is_empty(), rank > 0, "rank 0 alone speaks");
    }
}

/// The losses of all networks' epochs; and what else was measured of them.
fn losses(output: &Path) -> Vec<(String, f64, Vec<f64>)> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |value: &Value| value.as_f64().unwrap();
    let measured = |line: Value| {
        let terms = line["terms"].as_object().unwrap().values().map(number);
        let norms = line["gradient_norms"].as_object().into_iter().flat_map(|norms| norms.values().map(number));
        let all = [number(&line["train_accuracy"])].into_iter().chain(terms).chain(norms).collect();
        (line["network"].as_str().unwrap().to_string(), number(&line["loss"]), all)
    };
    lines.map(measured).collect()
}

fn arrays(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    all.iter().map(|(name, tensor)| (name.to_string(), floats(tensor.data()))).collect()
}

/// The largest difference of a loss, relative to it, of what else was measured, and of a parameter, relative to the largest of
/// its array.
fn differences(found: &Path, expected: &Path) -> (f64, f64, f32) {
    let (a, b) = (losses(found), losses(expected));
    assert_eq!(a.len(), b.len());
    let (mut loss, mut other) = (0.0_f64, 0.0_f64);
    for (found, expected) in a.iter().zip(&b) {
        assert_eq!((&found.0, found.2.len()), (&expected.0, expected.2.len()));
        loss = loss.max((found.1 / expected.1 - 1.0).abs());
        other = found.2.iter().zip(&expected.2).fold(other, |other, (a, b)| other.max((a - b).abs()));
    }
    let mut parameter = 0.0_f32;
    for network in ["teacher", "student"] {
        let file = format!("{network}/model.safetensors");
        let (a, b) = (arrays(&found.join(&file)), arrays(&expected.join(&file)));
        assert!(a.keys().eq(b.keys()));
        for (found, expected) in a.values().zip(b.values()) {
            let largest = expected.iter().fold(1e-3_f32, |a, b| a.max(b.abs()));
            let off = found.iter().zip(expected).fold(0.0_f32, |off, (a, b)| off.max((a - b).abs()));
            parameter = parameter.max(off / largest);
        }
    }
    println!("largest difference: {loss:.1e} of a loss, {other:.1e} of a term, {parameter:.1e} of a parameter");
    (loss, other, parameter)
}

#[test]
fn two_halves_of_each_batch_give_the_losses_of_the_whole_for_a_hundred_steps() {
    let scratch = Scratch::new("ranks-steps");
    let recipe = scratch.recipe(ONE_STEP);
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    assert_eq!(run(&recipe, &one, &[]).status.code(), Some(0));
    assert_done(&Ranks::start(2, &recipe, &two, &[]).end());
    assert_eq!(losses(&two).len(), 5 + 2 * 110, "teacher, student, baseline, a step an epoch");
    let (loss, term, parameter) = differences(&two, &one);
    assert!(loss < 1e-6 && term < 3e-6 && parameter < 1e-4, "{loss} {term} {parameter}");
    let starts = fs::read_to_string(two.join("evidence.json")).unwrap();
    assert!(starts.contains("\"processes\": 2"), "{starts}");
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&two), names(&one));
}

#[test]
fn three_ranks_share_batches_that_do_not_divide_and_answers_that_are_kept() {
    let scratch = Scratch::new("ranks-uneven");
    let recipe = scratch.recipe(TINY);
    // 346 samples: the last batch of an epoch has two, and one rank none.
    let more =
        ["train.batch=43", "train.ema=0.5", "train.accumulate=3", "compare.seeds=[1,2]", "distill.diagnose=true"];
    let (one, three) = (scratch.path("one"), scratch.path("three"));
    assert_eq!(run(&recipe, &one, &more).status.code(), Some(0));
    assert_done(&Ranks::start(3, &recipe, &three, &more).end());
    let (loss, term, parameter) = differences(&three, &one);
    assert!(loss < 1e-5 && term < 1e-4 && parameter < 1e-3, "{loss} {term} {parameter}");
    // Finished: all say so, and end.
    let again = Ranks::start(3, &recipe, &three, &[&more[..], &["--resume"]].concat()).end();
    assert_done(&again);
    assert!(String::from_utf8_lossy(&again[0].stderr).contains("is finished"));
}

/// Waits for a process that must end by itself; how long it took.
fn ends(mut child: Child) -> (Output, Duration) {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < MOST {
        sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    // It has ended, or is too late.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(took < MOST, "it outlives the other by {MOST:?}: {}", String::from_utf8_lossy(&output.stderr));
    (output, took)
}

#[test]
fn a_killed_rank_ends_the_other_and_resume_gives_the_same_bytes() {
    let scratch = Scratch::new("ranks-killed");
    let recipe = scratch.recipe(TINY);
    let more = ["train.epochs=60", "teacher.epochs=30"];
    let resume = [&more[..], &["--resume"]].concat();
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    let began = Instant::now();
    assert_done(&Ranks::start(2, &recipe, &whole, &more).end());
    let span = began.elapsed().mul_f64(0.8);
    // The first run may have had less of the machine: whoever ends before a kill begins anew, and is killed sooner.
    let (mut lost, mut tries, mut sooner) = (0, 0, 1.0);
    let least = 2 * support::kills() as usize;
    for (i, moment) in moments(span).take(least + 20).enumerate() {
        if tries >= least && lost > 0 {
            break;
        }
        tries += 1;
        let mut ranks = Ranks::start(2, &recipe, &killed, if killed.exists() { &resume } else { &more });
        sleep(moment.mul_f64(sooner));
        let mut victim = ranks.0.remove(i % 2);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let (other, _) = ends(ranks.0.remove(0));
        let said = line(&other);
        if other.status.code() == Some(0) {
            sooner /= 2.0;
            fs::remove_dir_all(&killed).unwrap();
            continue;
        }
        lost += 1;
        assert_eq!(other.status.code(), Some(3), "{said}");
        // Killed before it came.
        if said.contains("expected rank 0 to listen") || said.contains("found none of rank") {
            continue;
        }
        let expected = format!("error: rank {}: expected a process that trains on with the others, found ", i % 2);
        let go_on = format!("--output {} --resume", killed.display());
        assert!(said.starts_with(&expected) && said.ends_with(&go_on), "{said}");
    }
    assert!(lost > 0, "no kill came in time");
    assert_done(&Ranks::start(2, &recipe, &killed, if killed.exists() { &resume } else { &more }).end());
    for network in ["teacher", "student", "baseline"] {
        let bytes = |run: &Path| fs::read(run.join(network).join("model.onnx")).unwrap();
        assert!(bytes(&whole) == bytes(&killed), "{network}");
    }
}

#[test]
fn a_rank_that_falls_silent_is_lost() {
    let scratch = Scratch::new("ranks-silent");
    let (recipe, output) = (scratch.recipe(TINY), scratch.path("run"));
    let (port, more) = (free_port(), ["train.epochs=100000"]);
    let other = start(0, 2, port, &recipe, &output, &more);
    // In a process group of its own: were the shell of this test's group to end meanwhile, the system would hang up (SIGHUP)
    // on the whole group, since one of it is stopped.
    let mut silent = command(1, 2, port, &recipe, &output, &more).process_group(0).spawn().unwrap();
    wait_for_epochs(&output);
    signal(&silent, "-STOP");
    let (other, took) = ends(other);
    assert!(
        line(&other).contains("rank 1: expected a process that trains on with the others, found no sign of life for")
    );
    assert_eq!(other.status.code(), Some(3));
    println!("noticed after {took:?}");
    silent.kill().unwrap();
    silent.wait().unwrap();
}

fn wait_for_epochs(output: &Path) {
    let began = Instant::now();
    while fs::read_to_string(output.join("metrics.jsonl")).map_or(0, |text| text.lines().count()) < 6 {
        assert!(began.elapsed() < Duration::from_secs(60), "no epochs for a minute");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_to_any_rank_ends_all_in_order() {
    let scratch = Scratch::new("ranks-signal");
    let recipe = scratch.recipe(TINY);
    for (rank, name, code) in [(0, "-INT", 130), (1, "-TERM", 143)] {
        let output = scratch.path(name);
        let ranks = Ranks::start(2, &recipe, &output, &["train.epochs=100000"]);
        wait_for_epochs(&output);
        signal(&ranks.0[rank], name);
        let ended = ranks.end();
        for end in &ended {
            let said = line(end);
            assert_eq!(end.status.code(), Some(code), "{said}");
            assert!(
                said.starts_with(&format!("error: rank {rank}: ")) && said.contains(&format!("SIG{}", &name[1..])),
                "{said}"
            );
            assert!(said.contains("go on with: kd-train run ") && said.ends_with("--resume"), "{said}");
        }
        assert!(output.join("checkpoints").is_dir());
    }
}

#[test]
fn who_does_not_fit_is_refused_and_a_stranger_disturbs_nobody() {
    let scratch = Scratch::new("ranks-refused");
    let (recipe, output) = (scratch.recipe(TINY), scratch.path("run"));
    let port = free_port();
    let ranks = [&[][..], &["train.epochs=9"]].into_iter().enumerate();
    let both = Ranks(ranks.map(|(rank, more)| start(rank, 2, port, &recipe, &output, more)).collect()).end();
    for end in &both {
        assert_eq!(end.status.code(), Some(2), "{}", line(end));
        assert!(line(end).contains("recipe: expected that of rank 0 ("), "{}", line(end));
    }
    assert!(!output.exists(), "nothing was written");

    let port = free_port();
    let first = start(0, 2, port, &recipe, &output, &["train.epochs=1", "teacher.epochs=1", "teacher.must_reach=0.0"]);
    let began = Instant::now();
    let mut strangers = 0;
    while strangers < 2 {
        assert!(began.elapsed() < Duration::from_secs(60));
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.write_all(&[0x80; 3000]).ok();
            strangers += 1;
        }
    }
    let second = start(1, 2, port, &recipe, &output, &["train.epochs=1", "teacher.epochs=1", "teacher.must_reach=0.0"]);
    let both = Ranks(vec![first, second]).end();
    assert_done(&both);
    let said = String::from_utf8_lossy(&both[0].stderr).into_owned();
    assert_eq!(said.matches("is sent away: it is no kd-train").count(), 2, "{said}");

    // Rank 0's refusal is that of all.
    for end in Ranks::start(2, &recipe, &output, &[]).end() {
        assert_eq!(end.status.code(), Some(2));
        assert!(
            line(&end).starts_with("error: rank 0: ") && line(&end).contains("that does not exist"),
            "{}",
            line(&end)
        );
    }
}

#[test]
fn what_cannot_be_done_in_parts_is_refused_before_anything_begins() {
    let scratch = Scratch::new("ranks-cannot");
    let (recipe, output) = (scratch.recipe(TINY), scratch.path("run"));
    let replicas = scratch.path("replicas.toml");
    let text = "[data]\nformat = \"digits\"\n[student]\narch = \"mlp\"\n[distill]\nscheme = \"codistill\"\n\
                terms = [{ method = \"codistill\" }]\n";
    fs::write(&replicas, text).unwrap();
    let of_recipe = |recipe: &Path, set: &[(&str, &str)], more: &[&str]| {
        let mut command = Command::new(support::PROGRAM);
        command.arg("run").arg(recipe).arg("--output").arg(&output).args(more);
        let all = [
            ("RANK", "0"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", "1"),
            ("KD_JOIN_S", "1"),
        ];
        let end = command.envs(all).envs(set.iter().copied()).output().unwrap();
        assert!(!output.exists());
        (end.status.code().unwrap(), line(&end))
    };
    let (code, said) = of_recipe(&replicas, &[], &[]);
    assert!(code == 2 && said.starts_with("error: distill.scheme: expected `offline`, since 2 processes"), "{said}");
    let alone = |set: &[(&str, &str)], more: &[&str]| of_recipe(&recipe, set, more);
    let (code, said) = alone(&[], &["distill.terms=[{ method = \"rkd_d\" }]"]);
    let expected = "error: distill.terms.0: expected a method that sees each sample by itself, since 2 processes (WORLD_SIZE) \
                    have parts of each batch, found `rkd_d`; choose another method, or unset WORLD_SIZE";
    assert_eq!((code, said.as_str()), (2, expected));
    let (code, said) = alone(&[("RANK", "2")], &[]);
    assert_eq!(
        (code, said.starts_with("error: RANK: expected the number of this process, 0 to 1, found `2`;")),
        (2, true)
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = alone(&[("MASTER_PORT", &port)], &[]);
    assert!(
        code == 3 && said.contains("expected a port to listen on, as rank 0, found Address already in use"),
        "{said}"
    );
    let port = free_port().to_string();
    let (code, said) = alone(&[("MASTER_PORT", &port)], &[]);
    assert!(code == 3 && said.contains("expected 2 processes within 1 s, found none of rank 1;"), "{said}");
}
