//! `kd-bench` as a user types it: what it prints, where, and how it ends.
#![cfg(feature = "std")]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::{Dataset, Sample, Source, Split};
use kd_runtime::graph::{ElementType, Graph, Shape, Tensor};
use kd_runtime::onnx;
use kd_runtime::ops::Op;
use kd_runtime::ops::attrs::Attrs;
use serde_json::Value;
use support::scratch;

fn op(name: &str) -> Op {
    Op::read(name, Attrs::default()).unwrap().unwrap()
}

fn digits() -> Box<dyn Dataset> {
    Source::parse("digits").unwrap().open().unwrap()
}

/// Sums of the training images of each class, and how many there are.
fn centroids() -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; 64]; 10];
    let mut counts = [0.0; 10];
    let data = digits();
    let mut samples = data.read(Split::Train).unwrap();
    let mut sample = Sample::default();
    while samples.next(&mut sample).unwrap() {
        counts[sample.label] += 1.0;
        sums[sample.label].iter_mut().zip(&sample.values).for_each(|(sum, &x)| *sum += f64::from(x) / 16.0);
    }
    sums.iter().zip(counts).map(|(sum, n)| sum.iter().map(|x| x / n).collect()).collect()
}

/// A classifier by the nearest centroid, as a network: relu(x) flattened, then 2 c x - |c|^2.
fn network(centroids: &[Vec<f64>]) -> Graph {
    let mut weights = vec![0.0_f32; 640];
    for (class, centroid) in centroids.iter().enumerate() {
        for (i, &x) in centroid.iter().enumerate() {
            weights[i * 10 + class] = 2.0 * x as f32;
        }
    }
    let bias: Vec<f32> = centroids.iter().map(|c| -c.iter().map(|x| x * x).sum::<f64>() as f32).collect();
    let mut graph = Graph::new("centroids");
    let x = graph.add_input("x", ElementType::F32, Shape::batched(&[1, 8, 8]));
    let positive = graph.apply(op("Relu"), &[x], "positive");
    let flat = graph.apply(op("Flatten"), &[positive], "flat");
    let weights = graph.add_initializer("w", Tensor::from_vec(&[64, 10], weights));
    let bias = graph.add_initializer("b", Tensor::from_vec(&[10], bias));
    let y = graph.apply(op("Gemm"), &[flat, weights, bias], "y");
    graph.outputs.push(y);
    graph.validate().unwrap();
    graph
}

/// Right answers of the nearest centroid on the test part, in f64 and without any network.
fn right_answers(centroids: &[Vec<f64>]) -> u64 {
    let data = digits();
    let mut samples = data.read(Split::Test).unwrap();
    let mut sample = Sample::default();
    let mut right = 0;
    while samples.next(&mut sample).unwrap() {
        let distance = |c: &Vec<f64>| -> f64 {
            c.iter().zip(&sample.values).map(|(c, &x)| (c - f64::from(x) / 16.0).powi(2)).sum()
        };
        let nearest = (0..10).min_by(|&a, &b| distance(&centroids[a]).total_cmp(&distance(&centroids[b])));
        right += u64::from(nearest == Some(sample.label));
    }
    right
}

/// Writes model.onnx and contract.json into a folder.
fn write_model(folder: &Path) -> Vec<Vec<f64>> {
    fs::create_dir_all(folder).unwrap();
    let centroids = centroids();
    fs::write(folder.join("model.onnx"), onnx::write(&network(&centroids))).unwrap();
    let contract = Contract::for_data(digits().description(), "x", "y", Meaning::Logits);
    fs::write(folder.join("contract.json"), contract.to_json()).unwrap();
    centroids
}

fn bench(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd-bench"));
    command.current_dir(folder).args(line.split_whitespace()).env_remove("ORT_DYLIB_PATH");
    command.env("XDG_DATA_HOME", folder.join("no-data")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_report_has_the_documented_keys_and_true_figures() {
    let folder = scratch("bench_report");
    let centroids = write_model(&folder.join("run/student"));
    fs::write(
        folder.join("budget.toml"),
        "size_kib = 20\nlatency_p95_ms = 1000\nmemory_mib = 64\naccuracy_top1 = 0.8\nthreads = 1\n",
    )
    .unwrap();
    let output = bench(&folder, "run --data digits --budget budget.toml --format json");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{}", text(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let has = |value: &Value, wanted: &[&str]| {
        let keys = keys(value);
        wanted.iter().for_each(|key| assert!(keys.iter().any(|k| k == key), "no {key} in {keys:?}"));
    };
    has(&report, &["schema", "model", "backend", "device", "load_ms", "latency_ms", "memory", "accuracy", "budget"]);
    assert_eq!((&report["schema"], &report["verdict"]), (&"kd.bench/1".into(), &"pass".into()));
    assert_eq!(keys(&report["model"]), ["macs", "parameters", "path", "precision", "sha256", "size_bytes"]);
    assert_eq!(keys(&report["latency_ms"]), ["min", "n", "p50", "p90", "p95", "p99", "samples"]);
    let memory = ["allocations_per_inference", "arena_bytes", "empty_mib", "peak_mib", "weights_bytes"];
    assert_eq!(keys(&report["memory"]), memory);
    let bytes = fs::read(folder.join("run/student/model.onnx")).unwrap();
    assert_eq!(report["model"]["size_bytes"], bytes.len());
    assert_eq!(report["model"]["sha256"], kd_runtime::files::sha256(&bytes));
    assert_eq!((&report["model"]["parameters"], &report["model"]["macs"]), (&650.into(), &640.into()));
    assert_eq!(report["memory"]["allocations_per_inference"], 0.0);
    let samples = report["latency_ms"]["samples"].as_array().unwrap();
    assert_eq!(report["latency_ms"]["n"], samples.len());
    let slowest_first = samples.iter().all(|x| x.as_f64() >= report["latency_ms"]["min"].as_f64());
    assert!(slowest_first && samples.len() > 3);
    let right = (report["accuracy"]["top1"].as_f64().unwrap() * 359.0).round() as u64;
    assert_eq!((right, &report["accuracy"]["n"]), (right_answers(&centroids), &359.into()));
    let lines: Vec<&str> = report["budget"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(lines, ["size_kib", "latency_p95_ms", "memory_mib", "accuracy_top1"]);
    for line in report["budget"].as_array().unwrap() {
        assert_eq!(keys(line), ["bound", "limit", "measured", "name", "verdict"]);
    }
}

#[test]
fn a_missed_budget_names_each_line_and_ends_with_1() {
    let folder = scratch("bench_missed");
    write_model(&folder);
    let budget =
        "name = 'tight'\nsize_kib = 0.5\nlatency_p50_ms = 0.0000001\nmemory_mib = 0.0001\naccuracy_top1 = 0.9999\n";
    fs::write(folder.join("tight.toml"), budget).unwrap();
    let output = bench(&folder, "model.onnx --data digits --budget tight.toml --output report.txt");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", text(&output.stderr));
    let report = fs::read_to_string(folder.join("report.txt")).unwrap();
    for name in ["size_kib", "latency_p50_ms", "memory_mib", "accuracy_top1"] {
        let line = report.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        assert!(line.ends_with(" fail"), "{report}");
    }
    assert!(report.ends_with("\nverdict: fail\n"), "{report}");
}

#[test]
fn what_cannot_be_told_is_undecided_and_ends_with_4() {
    let folder = scratch("bench_undecided");
    write_model(&folder);
    fs::write(folder.join("b.toml"), "size_kib = 50\nenergy_mj = 1\ndevice = 'raspberrypi,4-model-b'\n").unwrap();
    let output = bench(&folder, "model.onnx --budget b.toml");
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{report}");
    assert!(report.contains("undecided: energy is not measured"), "{report}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = scratch("bench_pipe");
    write_model(&folder);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kd-bench"))
        .current_dir(&folder)
        .args(["model.onnx", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_child_that_dies_is_one_line() {
    let folder = scratch("bench_crash");
    write_model(&folder);
    let output = Command::new(env!("CARGO_BIN_EXE_kd-bench"))
        .current_dir(&folder)
        .arg("model.onnx")
        .env("KD_RUNNER", "false")
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count(), output.stdout.len()), (Some(3), 1, 0), "{error}");
    assert!(
        error.contains("expected a child process that answers, found one that ended with exit status: 1"),
        "{error}"
    );
}

/// Exports as kd-export writes them: with the sha256 of each file. One that was not copied along is missing.
fn write_export(folder: &Path) {
    write_model(folder);
    fs::write(folder.join("model.safetensors"), "weights").unwrap();
    fs::write(folder.join("model.int8.safetensors"), "others").unwrap();
    let names = ["contract.json", "model.onnx", "model.safetensors", "model.int8.safetensors"];
    let entry =
        |name| serde_json::json!({ "sha256": kd_runtime::files::sha256(&fs::read(folder.join(name)).unwrap()) });
    let files: serde_json::Map<_, _> = names.iter().map(|&name| (name.to_string(), entry(name))).collect();
    fs::write(folder.join("export.json"), serde_json::json!({ "files": files }).to_string()).unwrap();
    fs::remove_file(folder.join("model.int8.safetensors")).unwrap();
}

/// A small file that asks for 3 TB: 400 outputs of 46,000 by 46,000.
fn huge() -> Graph {
    let mut graph = Graph::new("huge");
    let row = graph.add_input("row", ElementType::F32, Shape::known(&[1, 1, 46_000]));
    let column = graph.add_input("column", ElementType::F32, Shape::known(&[1, 46_000, 1]));
    for i in 0..400 {
        let y = graph.apply(op("Mul"), &[row, column], &format!("y{i}"));
        graph.outputs.push(y);
    }
    graph.validate().unwrap();
    graph
}

#[test]
fn bad_input_ends_with_one_line_its_status_and_no_output() {
    let folder = scratch("bench_refused");
    write_model(&folder);
    write_export(&folder.join("export"));
    write_export(&folder.join("tampered"));
    write_export(&folder.join("other_contract"));
    write_export(&folder.join("other_weights"));
    fs::write(folder.join("other_weights/model.safetensors"), "weightz").unwrap();
    write_export(&folder.join("outside"));
    fs::write(folder.join("outside/export.json"), "{\"files\": {\"../model.onnx\": {\"sha256\": \"\"}}}").unwrap();
    write_export(&folder.join("no_record"));
    fs::write(folder.join("no_record/export.json"), "{").unwrap();
    fs::write(folder.join("blank.toml"), "# size_kib = 1\n").unwrap();
    fs::create_dir(folder.join("nothing")).unwrap();
    let model = fs::read(folder.join("model.onnx")).unwrap();
    let mut flipped = model.clone();
    let last = flipped.len() - 9;
    flipped[last] ^= 1;
    fs::write(folder.join("tampered/model.onnx"), flipped).unwrap();
    let contract = fs::read_to_string(folder.join("contract.json")).unwrap();
    fs::write(folder.join("other_contract/contract.json"), contract.replace("logits", "probabilities")).unwrap();
    fs::write(folder.join("eleven.json"), contract.replace("\"9\"", "\"9\", \"10\"")).unwrap();
    fs::write(folder.join("broken.json"), &contract[..contract.len() / 2]).unwrap();
    fs::write(folder.join("empty.onnx"), "").unwrap();
    fs::write(folder.join("text.onnx"), "this is no model\n").unwrap();
    fs::write(folder.join("truncated.onnx"), &model[..model.len() / 2]).unwrap();
    let relu = model.windows(4).position(|bytes| bytes == b"Relu").unwrap();
    fs::write(folder.join("unknown.onnx"), [&model[..relu], b"Re\x1bu", &model[relu + 4..]].concat()).unwrap();
    fs::write(folder.join("huge.onnx"), onnx::write(&huge())).unwrap();
    fs::write(folder.join("typo.toml"), "size_kb = 1\n").unwrap();
    fs::write(folder.join("broken.toml"), "size_kib = \n").unwrap();
    fs::write(folder.join("accuracy.toml"), "accuracy_top1 = 0.5\n").unwrap();
    fs::write(folder.join("threads.toml"), "size_kib = 1\nthreads = 1\n").unwrap();
    #[rustfmt::skip]
    let cases = [
        ("missing.onnx",                                  2, "missing.onnx: expected a readable file"),
        ("/dev/zero",                                     2, "/dev/zero: expected a regular file, found a device or a pipe"),
        ("empty.onnx",                                    2, "empty.onnx: "),
        ("text.onnx",                                     2, "text.onnx: "),
        ("truncated.onnx",                                2, "truncated.onnx: "),
        ("unknown.onnx",                                  2, "Re\\u{1b}u"),
        ("nothing",                                       2, "nothing: expected model.int8.onnx or model.onnx, found no such file"),
        ("export --precision int8",                       2, "export: expected model.int8.onnx, found no such file"),
        ("model.onnx --precision int8",                   2, "expected a folder to choose from"),
        ("tampered",                                      2, "tampered/model.onnx: expected sha256 "),
        ("other_contract",                                2, "other_contract/contract.json: expected sha256 "),
        ("other_weights",                                 2, "other_weights/model.safetensors: expected sha256 "),
        ("other_weights/model.onnx",                      2, "other_weights/model.safetensors: expected sha256 "),
        ("outside",                                       2, "outside/export.json: expected the record of an export, with the sha256 of its files, found `../model.onnx` with none"),
        ("no_record",                                     2, "no_record/export.json: expected the record of an export"),
        ("model.onnx --budget blank.toml",                2, "error: blank.toml: expected at least one limit (size_kib, "),
        ("model.onnx --budget missing.toml",              2, "missing.toml: expected a readable file"),
        ("model.onnx --budget typo.toml",                 2, "typo.toml:1: size_kb: expected a key of a budget, found `size_kb`; did you mean `size_kib`?"),
        ("model.onnx --budget broken.toml",               2, "broken.toml:1: expected TOML"),
        ("model.onnx --budget accuracy.toml",             2, "accuracy.toml: expected data for accuracy_top1, found no --data"),
        ("model.onnx --budget threads.toml --threads 2",  2, "--threads: expected 1, as the budget states"),
        ("model.onnx --contract broken.json",             2, "broken.json: line "),
        ("model.onnx --contract eleven.json --data digits", 2, "model.onnx: contract output.classes: expected the classes of the model's `y` [N, 10], found 11 classes"),
        ("model.onnx --data digit",                       2, "did you mean `digits`?"),
        ("model.onnx --data idx:nowhere",                 2, "nowhere: expected a folder of idx files, found nothing"),
        ("model.onnx --backend nativ",                    2, "did you mean `native`?"),
        ("model.onnx --backend ort",                      3, "expected "),
        ("model.onnx --backend ort --ort-lib text.onnx",  3, "expected "),
        ("huge.onnx",                                     3, "expected a plan that fits"),
        ("check huge.onnx",                               3, "expected a plan that fits"),
        ("model.onnx --threads 1024",                     3, "--threads: expected at most "),
        ("model.onnx --threads 0",                        2, "--threads <N>: expected a number in 1..=1024, found `0`"),
        ("model.onnx --threads -1",                       2, "--threads <N>: expected a number in 1..=1024, found `-1`"),
        ("model.onnx --budgt x",                          2, "found `--budgt`; did you mean `--budget`?"),
        ("model.onnx --format xml",                       2, "expected one of text, json, found `xml`"),
        ("model.onnx --output no/such/report.json",       2, "no/such/report.json: expected a file for the report"),
        ("",                                              2, "command line: expected <MODEL>, found nothing"),
        ("check missing.onnx",                            2, "missing.onnx: expected a readable file"),
        ("check unknown.onnx",                            2, "Re\\u{1b}u"),
        ("check model.onnx",                              3, "model.onnx: expected a second backend to compare with"),
    ];
    let candle = cfg!(feature = "candle");
    let mut failed = Vec::new();
    for (line, status, expected) in cases {
        if candle && line == "check model.onnx" {
            continue;
        }
        let output = bench(&folder, &format!("{line} "));
        let error = text(&output.stderr);
        let one_line = error.lines().count() == 1 && error.starts_with("error: ");
        if output.status.code() != Some(status) || !one_line || !error.contains(expected) || !output.stdout.is_empty() {
            failed.push(format!("{line}: {:?} {error}{}", output.status.code(), text(&output.stdout)));
        }
    }
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(!folder.join("no").exists());
}

#[test]
fn a_missing_contract_prints_its_template() {
    let folder = scratch("bench_template");
    write_model(&folder);
    fs::remove_file(folder.join("contract.json")).unwrap();
    let output = bench(&folder, "model.onnx --data digits");
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("expected a contract for accuracy"), "{error}");
    let template = Contract::parse(&text(&output.stdout)).unwrap();
    assert_eq!((template.input.name.as_str(), template.output.classes.len()), ("x", 10));
}

#[test]
fn errors_are_objects_when_json_is_asked_for() {
    let folder = scratch("bench_json_error");
    let output = bench(&folder, "missing.onnx --format json");
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["error"]["at"], &error["error"]["exit"]), (&"missing.onnx".into(), &2.into()));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_fits_a_screen_and_is_on_standard_output() {
    let output = bench(&scratch("bench_help"), "--help");
    let help = text(&output.stdout);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(help.contains("Exit status: 0 pass, 1 fail, 2 refused"), "{help}");
    assert!(!help.contains("__measure"));
}

#[test]
fn the_budgets_of_the_repository_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../budgets");
    let mut n = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        kd_runtime::budget::Budget::read(&path).unwrap();
        n += 1;
    }
    assert!(n >= 2, "{n}");
}
