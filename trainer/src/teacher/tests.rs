//! What a network answers, for one sample at a time or many, and what is found out about one that is opened.

use std::path::PathBuf;

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::graph::{ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::arith::{Div, Sub};
use kd_runtime::ops::gemm::Gemm;
use kd_runtime::ops::reduce::ReduceMean;
use kd_runtime::ops::reshape::Reshape;
use kd_runtime::ops::softmax::Softmax;
use kd_runtime::{files, onnx};

use super::source::read;
use super::{Pace, batch, evaluate, parameters_sha256};
use crate::data::tests::{digits, prepared};
use crate::data::{Prepared, Values};
use crate::exec::Compute;
use crate::exec::random::Stream;

/// `logits = x w + b` over the 64 pixels, by `Reshape` from an input of this shape.
fn linear(input: Shape, first: i64) -> (Graph, ValueId) {
    let noise = Stream::new(4, 0);
    let floats = |from: usize, n: usize| (from..from + n).map(|i| noise.uniform(i) - 0.5).collect::<Vec<f32>>();
    let mut graph = Graph::new("linear");
    let x = graph.add_input("x", ElementType::F32, input);
    let target = graph.add_initializer("target", Tensor::from_vec(&[2], vec![first, 64]));
    let flat = graph.apply(Reshape { allowzero: false }, &[x, target], "flat");
    let w = graph.add_initializer("w", Tensor::from_vec(&[64, 10], floats(0, 640)));
    let b = graph.add_initializer("b", Tensor::from_vec(&[10], floats(640, 10)));
    let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    let logits = graph.apply(gemm, &[flat, w, b], "logits");
    (graph, logits)
}

fn finish(mut graph: Graph, output: ValueId) -> Graph {
    graph.outputs.push(output);
    graph.validate().unwrap();
    graph
}

/// For any number of samples.
fn open_linear() -> Graph {
    let (graph, logits) = linear(Shape::batched(&[1, 8, 8]), -1);
    finish(graph, logits)
}

/// Exported for one sample.
fn fixed_linear() -> (Graph, ValueId) {
    linear(Shape::known(&[1, 1, 8, 8]), 1)
}

fn contract(data: &Prepared, output: &str, meaning: Meaning) -> Contract {
    Contract::for_data(&data.description, "x", output, meaning)
}

#[test]
fn answers_are_those_computed_by_hand() {
    let data = prepared(&digits(), 1);
    let graph = open_linear();
    let floats = |name: &str| graph.constant(graph.find(name)).unwrap().get::<f32>().unwrap().to_vec();
    let (w, b) = (floats("w"), floats("b"));
    let Values::U8(bytes) = &data.test.values else { panic!("digits are bytes") };
    let (mut predicted, mut loss) = (Vec::new(), 0.0);
    for (pixels, &label) in bytes.chunks(64).zip(&data.test.labels) {
        let logit = |k: usize| {
            let products = pixels.iter().enumerate().map(|(i, &p)| f64::from(p) / 16.0 * f64::from(w[i * 10 + k]));
            f64::from(b[k]) + products.sum::<f64>()
        };
        let logits: Vec<f64> = (0..10).map(logit).collect();
        predicted.push((0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap());
        loss += logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[label];
    }
    let right = predicted.iter().zip(&data.test.labels).filter(|(a, b)| a == b).count();
    let n = data.test.len() as f64;
    // 359 samples are no multiple of 50: the last batch is short. One sample at a time is a batch of 1.
    for (batch, graph) in [(50, open_linear()), (1, open_linear()), (50, finish(fixed_linear().0, fixed_linear().1))] {
        let answers = evaluate(
            &graph,
            &contract(&data, "logits", Meaning::Logits),
            &data.test,
            Pace { batch, compute: Compute::host(2) },
        )
        .unwrap();
        assert_eq!((&answers.predicted, answers.right), (&predicted, right));
        assert!((answers.loss - loss / n).abs() < 1e-5, "{} {}", answers.loss, loss / n);
    }
    // The same network with a softmax has the same loss.
    let (mut graph, logits) = fixed_linear();
    let probabilities = graph.apply(Softmax { axis: -1 }, &[logits], "probabilities");
    let contract = contract(&data, "probabilities", Meaning::Probabilities);
    let answers =
        evaluate(&finish(graph, probabilities), &contract, &data.test, Pace { batch: 64, compute: Compute::host(1) })
            .unwrap();
    assert_eq!(answers.predicted, predicted);
    assert!((answers.loss - loss / n).abs() < 1e-5, "{} {}", answers.loss, loss / n);
}

#[test]
fn a_network_whose_samples_meet_is_not_opened() {
    let opened = batch::open(&finish(fixed_linear().0, fixed_linear().1)).unwrap().into_owned();
    assert_eq!(opened.value(opened.outputs[0]).shape, Shape::batched(&[10]));
    let (mut softmax, logits) = fixed_linear();
    let y = softmax.apply(Softmax { axis: 0 }, &[logits], "y");
    let (mut mean, logits) = fixed_linear();
    let axes = mean.add_initializer("axes", Tensor::from_vec(&[1], vec![0_i64]));
    let z = mean.apply(ReduceMean { keepdims: true, noop_with_empty_axes: false }, &[logits, axes], "z");
    for (graph, found) in [(finish(softmax, y), "operators that mix samples"), (finish(mean, z), "cannot be opened")] {
        let message = batch::open(&graph).unwrap_err().to_string();
        assert!(message.contains(found) && message.ends_with("export the model with a symbolic batch"), "{message}");
    }
}

/// Its last layer has its outputs in another order, as its contract says; so has what a softmax is taken of.
#[test]
fn a_teacher_of_the_same_classes_in_another_order_answers_in_the_datas() {
    let data = prepared(&digits(), 1);
    let folder = Folder::new("order");
    let order: Vec<usize> = (0..10).map(|k| (3 * k + 1) % 10).collect();
    let permuted = |(mut graph, logits): (Graph, ValueId)| {
        for name in ["w", "b"] {
            let id = graph.find(name).unwrap();
            let values = graph.initializers.get_mut(&id).unwrap().get_mut::<f32>().unwrap();
            let before = values.to_vec();
            values.iter_mut().enumerate().for_each(|(i, x)| *x = before[i / 10 * 10 + order[i % 10]]);
        }
        (graph, logits)
    };
    let asked = |graph: &Graph, output: &str, classes: Option<&[usize]>, meaning: Meaning| {
        let mut contract = contract(&data, output, meaning);
        if let Some(order) = classes {
            contract.output.classes = order.iter().map(|&k| data.description.classes[k].clone()).collect();
        }
        let told = folder.write("c.json", contract.to_json().as_bytes());
        read(&folder.write("model.onnx", &onnx::write(graph)), Some(&told), &data, &mut Vec::new()).unwrap()
    };
    let pace = Pace { batch: 50, compute: Compute::host(1) };
    let plain = asked(&open_linear(), "logits", None, Meaning::Logits);
    let expected = evaluate(&plain.graph, &plain.contract, &data.test, pace).unwrap();
    assert!(plain.notes.is_empty());
    let (graph, logits) = permuted(linear(Shape::batched(&[1, 8, 8]), -1));
    let (mut soft, scores) = (graph.clone(), logits);
    soft.values[scores.index()].name = "scores".into();
    let probabilities = soft.apply(Softmax { axis: -1 }, &[scores], "probabilities");
    for (graph, output, meaning) in [
        (finish(graph, logits), "logits", Meaning::Logits),
        (finish(soft, probabilities), "probabilities", Meaning::Probabilities),
    ] {
        let network = asked(&graph, output, Some(&order), meaning);
        assert!(network.notes.len() == 1 && network.notes[0].contains("another order"), "{:?}", network.notes);
        let found = evaluate(&network.graph, &network.contract, &data.test, pace).unwrap();
        assert_eq!((found.predicted, found.right), (expected.predicted.clone(), expected.right), "{output}");
        let mut of_logits = Vec::new();
        let name = if output == "logits" { output } else { "scores" };
        super::ask(&network.graph, &network.contract, &data.test, &[name.to_string()], pace, |values, _| {
            of_logits.extend(values[0].chunks_exact(10).map(super::largest));
            Ok(())
        })
        .unwrap();
        assert_eq!(of_logits, expected.predicted, "what it is a softmax of, too");
    }
}

#[test]
fn outputs_that_are_not_numbers_are_refused() {
    let data = prepared(&digits(), 1);
    let mut graph = open_linear();
    let bias = graph.find("b").unwrap();
    graph.initializers.get_mut(&bias).unwrap().get_mut::<f32>().unwrap()[9] = f32::NAN;
    let refused = evaluate(
        &graph,
        &contract(&data, "logits", Meaning::Logits),
        &data.test,
        Pace { batch: 50, compute: Compute::host(1) },
    )
    .err()
    .unwrap();
    assert!(refused.to_string().starts_with("output `logits` of sample 0: expected numbers, found NaN"), "{refused}");
    // Nor do they pass for probabilities, where they are computed.
    let (mut graph, logits) = linear(Shape::batched(&[1, 8, 8]), -1);
    let zero = graph.apply(Sub, &[logits, logits], "zero");
    let none = graph.apply(Div, &[zero, zero], "none");
    let folder = Folder::new("nan");
    let told = folder.write("c.json", contract(&data, "none", Meaning::Logits).to_json().as_bytes());
    let model = folder.write("model.onnx", &onnx::write(&finish(graph, none)));
    let opened = read(&model, Some(&told), &data, &mut Vec::new()).unwrap();
    assert!(opened.contract.output.meaning == Meaning::Logits && opened.notes.is_empty(), "{:?}", opened.notes);
    // Among the training samples it meets the loss, which refuses it.
    assert!(super::log_probability(f32::NAN).is_nan());
    assert_eq!([1.0, 0.0].map(super::log_probability), [0.0, f32::MIN_POSITIVE.ln()]);
}

/// A folder of its own for a test, which vanishes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kd-teacher-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_is_opened_with_its_contract_and_recognized() {
    let data = prepared(&digits(), 1);
    let folder = Folder::new("file");
    let (mut graph, logits) = fixed_linear();
    let output = graph.apply(Softmax { axis: -1 }, &[logits], "y");
    let bytes = onnx::write(&finish(graph, output));
    let path = folder.write("model.onnx", &bytes);
    // The contract is wrong: these are no logits.
    folder.write("contract.json", contract(&data, "y", Meaning::Logits).to_json().as_bytes());
    let network = read(&path, None, &data, &mut vec![]).unwrap();
    assert_eq!(network.sha256, files::sha256(&bytes));
    assert_eq!(network.contract.output.meaning, Meaning::Probabilities);
    assert_eq!(network.notes.len(), 2, "{:?}", network.notes);
    assert!(network.notes[0].contains("one sample at a time") && network.notes[1].contains("their logarithm is taken"));

    let bytes = onnx::write(&open_linear());
    let path = folder.write("plain.onnx", &bytes);
    let other = folder.write("other.json", contract(&data, "logits", Meaning::Logits).to_json().as_bytes());
    let network = read(&path, Some(&other), &data, &mut vec![]).unwrap();
    assert_eq!((network.contract.output.meaning, network.notes.len()), (Meaning::Logits, 0));
    assert_eq!(parameters_sha256(&network.graph), parameters_sha256(&open_linear()));

    let mut fewer = contract(&data, "logits", Meaning::Logits);
    fewer.output.classes.pop();
    let fewer = folder.write("fewer.json", fewer.to_json().as_bytes());
    let embedding = folder.write("e.json", contract(&data, "logits", Meaning::Embedding).to_json().as_bytes());
    for (contract, expected) in [(fewer, "output.classes"), (embedding, "found an embedding")] {
        let message = read(&path, Some(&contract), &data, &mut vec![]).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
    std::fs::remove_file(folder.0.join("contract.json")).unwrap();
    let mut template = Vec::new();
    let message = read(&path, None, &data, &mut template).err().unwrap().to_string();
    Contract::parse(&String::from_utf8(template).unwrap()).unwrap().check_model(&open_linear()).unwrap();
    assert!(message.contains("expected a contract for a teacher"), "{message}");
}

/// A third party's network for one image at a time, on all test images.
#[test]
fn mnist_8_scores_as_published() {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let path = shared.join("zoo/mnist-8.onnx");
    if !path.is_file() {
        eprintln!("skipped: no {}", path.display());
        return;
    }
    let section = crate::recipe::Data { format: "idx".into(), path: shared.join("mnist"), ..digits() };
    let data = prepared(&section, 1);
    let folder = Folder::new("mnist-8");
    let mut contract = Contract::for_data(&data.description, "Input3", "Plus214_Output_0", Meaning::Logits);
    contract.input.scale = 1.0;
    let contract = folder.write("contract.json", contract.to_json().as_bytes());
    let network = read(&path, Some(&contract), &data, &mut vec![]).unwrap();
    let answers =
        evaluate(&network.graph, &network.contract, &data.test, Pace { batch: 256, compute: Compute::host(2) })
            .unwrap();
    assert_eq!(answers.right, 9891, "98.91 % by ONNX Runtime");
}
