//! Native beside ONNX Runtime, image by image and output by output. Needs the feature `ort`, ONNX Runtime's library and
//! the shared data; says what it skips.
#![cfg(feature = "ort")]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::Command;

use kd_runtime::Exit;
use kd_runtime::backend::{Backend, Options, open};
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::{Source, Split};
use kd_runtime::measure::accuracy::predict;
use kd_runtime::onnx;
use support::shared;

/// A model in a backend; `None`, with a line that says so, where ONNX Runtime is missing.
fn load(name: &str, model: &[u8], batch: usize) -> Option<Box<dyn Backend>> {
    match open(name, model, batch, &Options::default()) {
        Err(refusal) if refusal.exit == Exit::Lacking => {
            eprintln!("skipped: {refusal}");
            None
        }
        result => Some(result.unwrap()),
    }
}

#[test]
fn a_strangers_mnist_model_scores_what_onnx_runtime_scores_image_by_image() {
    let (Some(zoo), Some(mnist)) = (shared("data/zoo/mnist-8.onnx"), shared("data/mnist")) else { return };
    let model = fs::read(zoo).unwrap();
    let data = Source::parse(&format!("idx:{}", mnist.display())).unwrap().open().unwrap();
    let graph = onnx::read(&model).unwrap().graph;
    // Its README: pixels 0..255, no scaling.
    let mut contract = Contract::for_data(data.description(), "Input3", "Plus214_Output_0", Meaning::Logits);
    contract.input.scale = 1.0;
    contract.check_model(&graph).unwrap();
    let mut answers = Vec::new();
    for name in ["native", "ort"] {
        let Some(mut backend) = load(name, &model, 32) else { return };
        let mut classes = Vec::new();
        let mut right = 0;
        predict(&mut *backend, &contract, &*data, Split::Test, |label, class| {
            classes.push(class);
            right += usize::from(label == class);
        })
        .unwrap();
        // The score that the data's README gives: 98.91 % of 10,000.
        assert_eq!((classes.len(), right), (10_000, 9891), "{name}");
        answers.push(classes);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn float_models_agree_within_the_tolerance_that_check_names() {
    let Some(models) = shared("data/models") else { return };
    if load("ort", &fs::read(models.join("mlp_f32.onnx")).unwrap(), 1).is_none() {
        return;
    }
    for model in ["mlp_f32", "fcn1d_f32", "ds_cnn_f32", "resnet8_f32", "autoencoder640_f32", "mlp_int8", "fcn1d_int8"] {
        let output = Command::new(env!("CARGO_BIN_EXE_kd-bench"))
            .args(["check", "--inputs", "3", "--format", "json"])
            .arg(models.join(format!("{model}.onnx")))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{model}: {error}{}", String::from_utf8_lossy(&output.stdout));
        let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(checked["comparisons"][0]["backend"], "ort", "{model}");
    }
}
