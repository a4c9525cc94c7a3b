//! `kd-train run` as a user types it: what it leaves, what it refuses, and that a kill costs nothing but time.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kd_runtime::files::sha256;
use serde_json::Value;
use support::{Scratch, TINY, assert_same, contents, json, kd_train, line, run, stdout};

/// Waits until `seen` or the end of the process.
fn wait_for(child: &mut Child, seen: impl Fn() -> bool) {
    let start = Instant::now();
    while !seen() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing seen for a minute");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_leaves_a_folder_that_adds_up_and_that_eval_confirms() {
    let scratch = Scratch::new("complete");
    let output = scratch.path("run");
    let done = run(&scratch.recipe(TINY), &output, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let text = stdout(&done);
    for part in ["teacher, arch mlp", "student alone", "student distilled", "distilled - alone", "McNemar p ="] {
        assert!(text.contains(part), "{part}: {text}");
    }

    assert!(String::from_utf8_lossy(&done.stderr).contains("kd-train: peak memory "));
    for network in ["teacher", "student", "baseline"] {
        let files = fs::read_dir(output.join("tensorboard").join(network)).unwrap();
        let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert!(matches!(&names[..], [one] if one.starts_with("events.out.tfevents.")), "{names:?}");
    }

    let evidence = json(&output.join("evidence.json"));
    let names: Vec<&str> = evidence["files"].as_object().unwrap().keys().map(String::as_str).collect();
    #[rustfmt::skip]
    let expected = [
        "baseline/contract.json", "baseline/model.onnx", "baseline/model.safetensors", "metrics.jsonl", "recipe.toml",
        "report.html", "results.json", "student/contract.json", "student/model.onnx", "student/model.safetensors",
        "teacher/contract.json", "teacher/model.onnx", "teacher/model.safetensors",
    ];
    assert_eq!(names, expected);
    for name in expected {
        assert_eq!(evidence["files"][name], sha256(&fs::read(output.join(name)).unwrap()), "{name}");
    }
    assert_eq!(evidence["recipe_sha256"], evidence["files"]["recipe.toml"]);
    assert_eq!(evidence["data"]["test"]["n"], 359);
    let teacher = &evidence["teachers"][0];
    assert_eq!(teacher["sha256"], evidence["files"]["teacher/model.onnx"]);
    assert_eq!(teacher["network_before"], teacher["network_after"]);

    let results = json(&output.join("results.json"));
    assert_eq!((&results["schema"], &evidence["schema"]), (&"kd.results/1".into(), &"kd.evidence/1".into()));
    let (student, baseline) = (&results["arms"][0]["seeds"][0], &results["arms"][1]["seeds"][0]);
    for score in [&student["last"], &student["selected"], &baseline["selected"], &results["teachers"][0]["test"]] {
        let (right, n) = (score["right"].as_f64().unwrap(), score["n"].as_f64().unwrap());
        assert_eq!((score["accuracy"].as_f64(), n), (Some(right / n), 359.0));
    }
    assert_eq!(results["selected_on"], "validation");
    // The student, the one alone and the teacher as they answer: what is on the diagonal is right.
    let of = |i: usize| &results["insights"][i];
    let names: Vec<&str> = (0..3).map(|i| of(i)["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["student", "baseline", "teacher, arch mlp"]);
    for (i, score) in [&student["selected"], &baseline["selected"], &results["teachers"][0]["test"]].iter().enumerate()
    {
        let diagonal: u64 = (0..10).map(|k| of(i)["confusion"][k][k].as_u64().unwrap()).sum();
        assert_eq!(score["right"], diagonal, "{}", names[i]);
    }
    let right = |run: &Value| run["selected"]["right"].as_i64().unwrap();
    let pair = &results["comparison"]["seeds"][0];
    let only = |who: &str| pair[who].as_i64().unwrap();
    assert_eq!(right(student) - right(baseline), only("only_distilled") - only("only_alone"));

    // The same network read back from its file, evaluated by itself.
    let of_run = kd_train(&["eval", output.to_str().unwrap(), "--data", "digits", "--format", "json"]);
    let eval: Value = serde_json::from_slice(&of_run.stdout).unwrap();
    assert_eq!(
        (&eval["right"], &eval["sha256"]),
        (&student["selected"]["right"], &evidence["files"]["student/model.onnx"])
    );

    let metrics = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4 + 2 * 8, "teacher, student, baseline");
    assert!(lines.iter().all(|line| line["loss"].as_f64().is_some_and(f64::is_finite)));

    let again = run(&scratch.recipe(TINY), &output, &["--resume"]);
    assert_eq!((again.status.code(), stdout(&again)), (Some(0), text));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is finished"));
}

#[test]
fn seeds_are_trained_one_by_one_and_the_same_seed_gives_the_same_bytes() {
    let scratch = Scratch::new("same");
    let recipe = scratch.recipe(TINY);
    let more = ["compare.seeds=[1,2]", "train.epochs=3"];
    let (a, b, c) = (scratch.path("a"), scratch.path("b"), scratch.path("c"));
    for (output, more) in [(&a, &more[..]), (&b, &more), (&c, &["run.seed=2", "train.epochs=3"])] {
        assert_eq!(run(&recipe, output, more).status.code(), Some(0));
    }
    assert_same(&a, &b);
    assert_ne!(contents(&a)["student/model.onnx"], contents(&c)["student/model.onnx"]);
    let arm = &json(&a.join("results.json"))["arms"][0];
    let accuracies: Vec<f64> = (0..2).map(|i| arm["seeds"][i]["last"]["accuracy"].as_f64().unwrap()).collect();
    assert_eq!(arm["last"]["mean"].as_f64(), Some(accuracies.iter().sum::<f64>() / 2.0));
}

/// Kills at random moments. Starts take 1 and 2 threads in turns.
fn killed_and_resumed_equals_whole(name: &str, more: &[&str]) {
    let kills = support::kills();
    let scratch = Scratch::new(name);
    let recipe = scratch.recipe(TINY);
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    let start = Instant::now();
    let done = run(&recipe, &whole, more);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let share = start.elapsed() / kills;
    let cores = std::thread::available_parallelism().unwrap().get();
    for (i, moment) in (0..kills).zip(support::moments(share)) {
        // recipe.toml is that of the first start.
        let begun = killed.join("recipe.toml").exists();
        let threads = format!("run.threads={}", if begun { (1 + i as usize % 2).min(cores) } else { 1 });
        let mut child = support::start(&recipe, &killed, &[more, &["--resume", &threads]].concat());
        sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let end = run(&recipe, &killed, &[more, &["--resume"]].concat());
    assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    assert_same(&whole, &killed);
}

#[test]
fn a_run_that_is_killed_and_resumed_equals_one_that_was_not() {
    killed_and_resumed_equals_whole("kill", &[]);
}

#[test]
fn a_run_with_everything_switched_on_that_is_killed_and_resumed_equals_one_that_was_not() {
    let everything = [
        "train.optimizer={ kind = \"dot\" }",
        "train.accumulate=2",
        "train.batch=20",
        "train.ema=0.95",
        "train.clip_norm=5",
        "train.max_norm=3",
        "train.groups=[{ match = \"*\", lr_factor = 0.5, weight_decay = 1e-4 }]",
        "distill.diagnose=true",
        "distill.terms.0.schedule={ kind = \"from\", epochs = 2, warmup_epochs = 2 }",
        "train.label_smoothing=0.1",
        "train.class_weights=\"balanced\"",
        "data.augment=[{ kind = \"translate\" }, { kind = \"mixup\" }]",
        "data.labelled=0.7",
        "teacher={ arch = \"cnn\", widths = [8, 16], epochs = 4, cache_views = 2, cache_precision = \"f16\" }",
        "student={ arch = \"cnn\", widths = [4, 8] }",
    ];
    killed_and_resumed_equals_whole("everything", &everything);
}

#[test]
fn a_signal_saves_the_state_and_says_how_to_go_on() {
    let scratch = Scratch::new("signal");
    let recipe = scratch.recipe(TINY);
    let (whole, stopped) = (scratch.path("whole"), scratch.path("it's stopped"));
    assert_eq!(run(&recipe, &whole, &[]).status.code(), Some(0));
    for (signal, code, arm) in [(libc::SIGTERM, 143, "teacher"), (libc::SIGINT, 130, "student")] {
        let mut child = support::start(&recipe, &stopped, &["--resume"]);
        let checkpoint = stopped.join(format!("checkpoints/{arm}-seed1"));
        wait_for(&mut child, || fs::read_dir(&checkpoint).is_ok_and(|mut files| files.next().is_some()));
        // SAFETY: kill takes no pointer; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", String::from_utf8_lossy(&done.stderr));
        let said = line(&done);
        assert!(said.contains("it'\\''s stopped' --resume"), "{said}");
        assert!(done.stdout.is_empty());
    }
    assert_eq!(run(&recipe, &stopped, &["--resume"]).status.code(), Some(0));
    assert_same(&whole, &stopped);
}

#[test]
fn a_disk_that_fills_up_leaves_a_run_that_goes_on() {
    let scratch = Scratch::new("full");
    let recipe = scratch.recipe(TINY);
    let (whole, full) = (scratch.path("whole"), scratch.path("full"));
    assert_eq!(run(&recipe, &whole, &[]).status.code(), Some(0));
    // The largest file that may be written, in KiB: between the sizes of a recipe and of a checkpoint.
    let limited = "trap '' XFSZ; ulimit -f 4; exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", limited, "-", support::PROGRAM, "run"]).arg(&recipe).arg("--output").arg(&full);
    let done = command.output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(line(&done).contains("free disk space"), "{}", line(&done));
    assert_eq!(run(&recipe, &full, &["--resume"]).status.code(), Some(0));
    assert_same(&whole, &full);
}

#[test]
fn a_folder_is_neither_taken_over_nor_changed_by_mistake() {
    let scratch = Scratch::new("folder");
    let recipe = scratch.recipe(TINY);
    let output = scratch.path("run");
    let mut child = support::start(&recipe, &output, &[]);
    wait_for(&mut child, || output.join("recipe.toml").exists());
    let second = run(&recipe, &output, &["--resume"]);
    assert!(child.try_wait().unwrap().is_none(), "the first run was too fast");
    assert_eq!(second.status.code(), Some(2));
    assert!(line(&second).contains("one that is in use"), "{}", line(&second));
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let before = contents(&output);
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&[],                                          "expected a run folder that does not exist"),
        (&["train.epochs=9", "--resume"],              "train.epochs: expected 8, as the run began with, found 9"),
        (&["distill.terms.0.temperature=3.0", "--resume"], "distill.terms.0.temperature: expected 4"),
        (&["--resume", "--force"],                     "command line"),
    ];
    for (more, expected) in cases {
        let refused = run(&recipe, &output, more);
        assert_eq!(refused.status.code(), Some(2), "{more:?}");
        assert!(line(&refused).contains(expected), "{more:?}: {}", line(&refused));
    }
    assert!(contents(&output) == before, "a refusal changed the folder");

    assert_eq!(run(&recipe, &output, &["--force", "train.epochs=2"]).status.code(), Some(0));
    assert_ne!(contents(&output)["student/model.onnx"], before["student/model.onnx"]);
    let mine = scratch.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.tex"), "years of work").unwrap();
    let refused = run(&recipe, &mine, &["--force"]);
    assert!(refused.status.code() == Some(2) && line(&refused).contains("no recipe.toml"), "{}", line(&refused));
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_done_is_refused_in_one_line_and_leaves_nothing() {
    let scratch = Scratch::new("refused");
    let recipe = scratch.recipe(TINY);
    let file = scratch.path("file");
    fs::write(&file, "").unwrap();
    fs::write(scratch.path("budget.toml"), "size_kib = 0.5\n").unwrap();
    let budget = format!("budget.file={}", scratch.path("budget.toml").display());
    let output = scratch.path("out/put");
    #[rustfmt::skip]
    let cases: &[(&[&str], i32, &str)] = &[
        (&["train.epochs=0"],               2, "train.epochs"),
        (&["train.batch=0"],                2, "train.batch"),
        (&["train.epoch=3"],                2, "did you mean `epochs`?"),
        (&["distill.terms.0.temperature=0"], 2, "temperature"),
        (&["student.arch=mpl"],             2, "did you mean `mlp`?"),
        (&["train.optimizer.kind=adamww"],   2, "did you mean `adamw`?"),
        (&["distill.terms.0.method=kb"],    2, "did you mean `kd`?"),
        (&["data.format=idx", "data.path=/nonexistent"], 2, "/nonexistent"),
        (&["data.exclude_classes=[\"eleven\"]"], 2, "eleven"),
        (&[&budget],                        1, "size_kib"),
        (&["--device", "cuda:99"],          3, "run.device: expected "),
        (&["--device", "gpu"],              2, "gpu"),
        (&["--fast"],                       2, "`--fast`"),
        (&["nonsense"],                     2, "nonsense"),
    ];
    let mut failed = Vec::new();
    for (more, code, expected) in cases {
        let refused = run(&recipe, &output, more);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let one_line = said.lines().count() == 1 && said.starts_with("error: ");
        let clean = refused.stdout.is_empty() && !scratch.path("out").exists();
        if refused.status.code() != Some(*code) || !said.contains(expected) || !one_line || !clean {
            failed.push(format!("{more:?}: {:?} {said} {clean}", refused.status.code()));
        }
    }
    for (output, expected) in
        [(file.clone(), "a folder for the run"), (file.join("run"), "a place that can be written")]
    {
        let refused = run(&recipe, &output, &[]);
        if refused.status.code() != Some(2) || !line(&refused).contains(expected) {
            failed.push(format!("{}: {:?} {}", output.display(), refused.status.code(), line(&refused)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_teacher_below_what_it_must_reach_ends_the_run_with_a_failed_verdict() {
    let scratch = Scratch::new("must_reach");
    let output = scratch.path("run");
    let done = run(&scratch.recipe(TINY), &output, &["teacher.must_reach=1.0", "teacher.epochs=1"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(line(&done).contains("expected at least 1 of the validation samples right"), "{}", line(&done));
    assert!(!output.join("student").exists() && !output.join("evidence.json").exists());
}

/// Its contract names the classes in an order that is not its own: its answers are brought into the data's, and are wrong.
#[test]
fn a_teacher_from_elsewhere_that_guesses_is_refused_unless_that_is_asked_for() {
    let scratch = Scratch::new("guesses");
    let first = scratch.path("first");
    assert_eq!(
        run(&scratch.recipe(TINY), &first, &["train.epochs=1", "compare.baseline=false"]).status.code(),
        Some(0)
    );
    let (model, mut contract) = (first.join("teacher/model.onnx"), json(&first.join("teacher/contract.json")));
    contract["output"]["classes"].as_array_mut().unwrap().rotate_left(1);
    let told = scratch.path("contract.json");
    fs::write(&told, contract.to_string()).unwrap();
    let (head, tail) = TINY.split_once("[teacher]").unwrap();
    let tail = &tail[tail.find("[student]").unwrap()..];
    let teacher = format!("[teacher]\nonnx = '{}'\ncontract = '{}'\n", model.display(), told.display());
    let recipe = scratch.recipe(&format!("{head}{teacher}{tail}"));
    let (output, short) = (scratch.path("second"), ["train.epochs=1", "compare.baseline=false"]);
    let refused = run(&recipe, &output, &short);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        line(&refused).contains("a teacher that knows more than who guesses among 10 classes"),
        "{}",
        line(&refused)
    );
    assert!(!output.join("student").exists() && !output.join("evidence.json").exists());
    let taken = run(&recipe, &output, &[&short[..], &["teacher.must_reach=0.0"]].concat());
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(taken.status.code() == Some(0) && said.contains("classes in another order than the data"), "{said}");
}

#[test]
fn a_run_and_an_onnx_file_can_teach() {
    let scratch = Scratch::new("teachers");
    let recipe = scratch.recipe(TINY);
    let first = scratch.path("first");
    assert_eq!(run(&recipe, &first, &["train.epochs=2"]).status.code(), Some(0));
    let model = first.join("teacher/model.onnx");
    let (head, tail) = TINY.split_once("[teacher]").unwrap();
    let tail = &tail[tail.find("[student]").unwrap()..];
    let teachers = format!(
        "[[teacher]]\nrun = '{}'\nweight = 1.0\n[[teacher]]\nonnx = '{}'\nweight = 3.0\n",
        first.display(),
        model.display()
    );
    let second = scratch.path("second");
    let recipe = scratch.recipe(&format!("{head}{teachers}{tail}"));
    let done = run(&recipe, &second, &["train.epochs=2"]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let results = json(&second.join("results.json"));
    let weights: Vec<_> = (0..2).map(|i| results["teachers"][i]["weight"].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.25, 0.75]);
    assert_eq!(results["teachers"][1]["sha256"], sha256(&fs::read(model).unwrap()));
    assert_eq!(results["teachers"][0]["test"], json(&first.join("results.json"))["arms"][0]["seeds"][0]["selected"]);
}

/// Teachers of one architecture are different networks, also after a kill, and the first is the one that it is alone.
#[test]
fn an_ensemble_is_of_networks_that_differ() {
    let scratch = Scratch::new("ensemble");
    let recipe = scratch.recipe(TINY);
    let (alone, whole, killed) = (scratch.path("alone"), scratch.path("whole"), scratch.path("killed"));
    let short = ["train.epochs=2", "compare.baseline=false"];
    let three = [&short[..], &["teacher.count=3"]].concat();
    for (output, more) in [(&alone, &short[..]), (&whole, &three)] {
        let done = run(&recipe, output, more);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let network = |name: &str| sha256(&fs::read(whole.join(name).join("model.onnx")).unwrap());
    let networks = ["teacher-1", "teacher-2", "teacher-3"].map(network);
    assert_eq!(networks[0], sha256(&fs::read(alone.join("teacher/model.onnx")).unwrap()));
    assert!(networks[0] != networks[1] && networks[1] != networks[2] && networks[0] != networks[2], "{networks:?}");
    let mut child = support::start(&recipe, &killed, &[&three[..], &["--resume"]].concat());
    wait_for(&mut child, || killed.join("teacher-2/model.onnx").exists());
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(run(&recipe, &killed, &[&three[..], &["--resume"]].concat()).status.code(), Some(0));
    assert_same(&whole, &killed);
}

/// The student alone has as much time as the one that is taught in two stages.
#[test]
fn the_baseline_has_the_epochs_of_both_stages() {
    let scratch = Scratch::new("stages");
    let recipe = scratch.recipe(TINY);
    let output = scratch.path("run");
    let both = r#"distill.terms=[{ method = "kd", stage = "both" }]"#;
    let done = run(&recipe, &output, &["train.epochs=3", "distill.init_epochs=2", "compare.baseline=true", both]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let results = json(&output.join("results.json"));
    let epochs = |arm: usize| results["arms"][arm]["seeds"][0]["epochs"].as_u64();
    assert_eq!((epochs(0), epochs(1)), (Some(5), Some(5)), "{results}");
}

/// What the first stage leaves, whatever the validation samples think of it, is neither kept nor waited for.
#[test]
fn a_network_of_the_first_stage_is_not_kept() {
    let scratch = Scratch::new("first-stage");
    let recipe = scratch.recipe(&fs::read_to_string("../recipes/digits-ab.toml").unwrap());
    let output = scratch.path("run");
    // The second stage learns so slowly that it answers no better than the first one left it.
    let slow = [
        "train.optimizer.lr=1e-5",
        "train.epochs=3",
        "train.patience=2",
        "distill.init_epochs=4",
        "train.schedule.warmup_epochs=0",
    ];
    let short = ["teacher.epochs=4", "teacher.must_reach=0.0", "data.subset=0.3", "compare.baseline=false"];
    let done = run(&recipe, &output, &[&slow[..], &short].concat());
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let results = json(&output.join("results.json"));
    let run = &results["arms"][0]["seeds"][0];
    assert!(run["selected_epoch"].as_u64() > Some(4) && run["epochs"].as_u64() > Some(5), "{run}");
}

/// Three replicas that teach each other: killed at random moments and resumed they are what they are without.
#[test]
fn replicas_that_teach_each_other_are_the_same_after_kills() {
    let scratch = Scratch::new("codistill");
    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    let tail = &TINY[TINY.find("[student]").unwrap()..TINY.find("[distill]").unwrap()];
    let scheme = "[distill]\nscheme = \"codistill\"\nreplicas = 3\nburn_in_steps = 15\nexchange_steps = 2\n\
                  terms = [{ method = \"kd\", temperature = 1.0 }]\n[compare]\nseeds = [4]\n";
    let recipe = scratch.recipe(&format!("{head}{tail}{scheme}"));
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    let start = Instant::now();
    let done = run(&recipe, &whole, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(stdout(&done).contains("seed 4: replicas "), "{}", stdout(&done));
    let took = start.elapsed();
    let arm = &json(&whole.join("results.json"))["arms"][0];
    let replicas = &arm["seeds"][0]["replicas"];
    assert_eq!(replicas["each"].as_array().map(Vec::len), Some(3));
    assert_eq!(replicas["ece"].as_array().map(Vec::len), Some(3));
    assert!(replicas["churn"].as_f64().unwrap() > 0.0, "replicas differ: {replicas}");
    // 345 samples are learned from: 11 steps an epoch, of all of them as of a share that is passed over three times.
    let baseline = &json(&whole.join("results.json"))["arms"][1];
    assert_eq!((&arm["seeds"][0]["steps"], &baseline["seeds"][0]["steps"]), (&88.into(), &88.into()));
    assert!(
        stdout(&done).contains("steps of each replica 88 (88 alone); training all of them costs "),
        "{}",
        stdout(&done)
    );
    let metrics = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kd = |epoch: usize, name: &str| {
        let of = |line: &&Value| line["network"] == name && line["epoch"] == epoch;
        lines.iter().find(of).and_then(|line| line["terms"]["kd"].as_f64()).unwrap()
    };
    for name in ["replica-1", "replica-2", "replica-3"] {
        assert_eq!(kd(1, name), 0.0, "{name} burns in");
        assert!(kd(8, name) > 0.0, "{name} listens");
    }
    for share in [0.3, 0.6] {
        let mut child = support::start(&recipe, &killed, &["--resume"]);
        sleep(took.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let end = run(&recipe, &killed, &["--resume"]);
    assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    assert_same(&whole, &killed);
}

/// A kill between the checkpoints of two replicas leaves one an epoch behind; so does a second kill at the same place.
#[test]
fn replicas_agree_again_after_kills_at_one_epoch() {
    let scratch = Scratch::new("codistill-boundary");
    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    let tail = &TINY[TINY.find("[student]").unwrap()..TINY.find("[distill]").unwrap()];
    // Steps between exchanges beyond all that are taken.
    let scheme = "accumulate = 16\n[distill]\nscheme = \"codistill\"\nreplicas = 2\nburn_in_steps = 0\nexchange_steps = \
                  1152921504606846976\nterms = [{ method = \"codistill\" }]\n[compare]\nbaseline = false\n";
    let recipe = scratch.recipe(&format!("{head}{tail}{scheme}"));
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    for output in [&whole, &killed] {
        let done = run(&recipe, output, &[]);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let behind = killed.join("checkpoints/replica-2-seed1");
    for _ in 0..2 {
        fs::rename(behind.join("state.before.safetensors"), behind.join("state.safetensors")).unwrap();
        ["results.json", "evidence.json"].iter().for_each(|file| fs::remove_file(killed.join(file)).unwrap());
        let end = run(&recipe, &killed, &["--resume"]);
        assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
        assert_same(&whole, &killed);
    }
}

/// A network that is its own teacher: each exit is kept and judged, and so is leaving early.
#[test]
fn exits_are_networks_of_their_own_and_samples_leave_early() {
    let scratch = Scratch::new("byot");
    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    let tail = "[student]\narch = \"cnn\"\nwidths = [4, 6, 8]\n[train]\nepochs = 6\nbatch = 32\n\
                optimizer = { kind = \"adamw\", lr = 1e-2 }\n[distill]\nterms = [{ method = \"byot\" }]\n";
    let output = scratch.path("run");
    let done = run(&scratch.recipe(&format!("{head}{tail}")), &output, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(stdout(&done).contains("seed 1: all exits together "), "{}", stdout(&done));
    for name in ["student", "student/exit-1", "student/exit-2"] {
        let path = output.join(name).join("model.onnx");
        assert!(kd_runtime::onnx::read(&fs::read(&path).unwrap()).is_ok(), "{name}");
    }
    let arm = &json(&output.join("results.json"))["arms"][0];
    let (whole, exits) = (arm["macs"].as_f64().unwrap(), &arm["seeds"][0]["exits"]);
    assert_eq!(exits["each"].as_array().map(Vec::len), Some(2));
    assert_eq!(exits["ece"].as_array().map(Vec::len), Some(3));
    let early = exits["early"].as_array().unwrap();
    let mut least = 0.0;
    for row in early {
        let left: Vec<u64> = row["left"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!((left.len(), left.iter().sum()), (3, row["score"]["n"].as_u64().unwrap()), "{row}");
        // Who has to be surer does not leave earlier.
        let macs = row["mean_macs"].as_f64().unwrap();
        assert!(macs >= least, "{macs} after {least}");
        least = macs;
    }
    let first = exits["each"][0]["macs"].as_f64().unwrap();
    assert!(early[0]["mean_macs"].as_f64().unwrap() >= first && first < whole, "{first} of {whole}");
}

/// Assistants between teacher and student, and generations without any teacher: each is taught by the one before it.
#[test]
fn assistants_are_taught_one_by_the_other() {
    let scratch = Scratch::new("assistants");
    let chain = "assistants = [{ arch = \"mlp\", hidden = [24] }, { arch = \"mlp\", hidden = [12] }]\n";
    let text = TINY.replace("task_weight", &format!("{chain}task_weight"));
    let recipe = scratch.recipe(&text);
    let (whole, killed) = (scratch.path("whole"), scratch.path("killed"));
    let done = run(&recipe, &whole, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let results = json(&whole.join("results.json"));
    let names: Vec<&str> =
        results["teachers"].as_array().unwrap().iter().map(|teacher| teacher["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["arch mlp", "assistant-1, arch mlp", "assistant-2, arch mlp"]);
    let evidence = json(&whole.join("evidence.json"));
    let taught_by = evidence["teachers"].as_array().unwrap();
    let last = sha256(&fs::read(whole.join("assistant-2/model.onnx")).unwrap());
    assert!(taught_by.len() == 1 && taught_by[0].to_string().contains(&last), "{taught_by:?}");
    let metrics = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["assistant-1", "assistant-2", "student"] {
        let first = lines.iter().find(|line| line["network"] == name && line["epoch"] == 1).unwrap();
        assert!(first["terms"]["kd"].as_f64().unwrap() > 0.0, "{name}: {first}");
    }
    let mut child = support::start(&recipe, &killed, &["--resume"]);
    wait_for(&mut child, || killed.join("checkpoints/assistant-2-seed1/state.safetensors").exists());
    let _ = child.kill();
    child.wait().unwrap();
    let end = run(&recipe, &killed, &["--resume"]);
    assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    assert_same(&whole, &killed);

    let head = &TINY[..TINY.find("[teacher]").unwrap()];
    let tail = &TINY[TINY.find("[student]").unwrap()..].replace("scheme", &format!("{chain}scheme"));
    let again = scratch.path("again");
    let done = run(&scratch.recipe(&format!("{head}{tail}")), &again, &["train.epochs=2"]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let metrics = fs::read_to_string(again.join("metrics.jsonl")).unwrap();
    let first = metrics.lines().find(|line| line.contains("assistant-1")).unwrap();
    assert!(!first.contains("\"kd\""), "the first generation learns from the labels: {first}");
    assert!(metrics.lines().any(|line| line.contains("assistant-2") && line.contains("\"kd\"")));
}
