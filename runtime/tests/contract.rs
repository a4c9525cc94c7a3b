//! Contracts: what is accepted, what is refused and how, and the arithmetic of `prepare`.
#![allow(missing_docs, clippy::unwrap_used)]

use kd_runtime::contract::{self, Contract, Meaning};
use kd_runtime::data::Description;
use kd_runtime::graph::{ElementType, Graph, Shape};

fn digits() -> Description {
    Description {
        shape: vec![1, 8, 8],
        layout: "CHW".into(),
        classes: (0..10).map(|i| i.to_string()).collect(),
        raw_max: Some(16.0),
        n_train: 1,
        n_test: 1,
        sha256: String::new(),
        reading: None,
    }
}

fn contract() -> Contract {
    Contract::for_data(&digits(), "x", "y", Meaning::Logits)
}

/// A graph from `x` to `y` of these shapes.
fn graph(input: Shape, output: &[usize]) -> Graph {
    let mut graph = Graph::new("g");
    graph.add_input("x", ElementType::F32, input);
    let y = graph.add_input("y", ElementType::F32, Shape::batched(output));
    graph.inputs.pop();
    graph.outputs.push(y);
    graph
}

#[test]
fn a_contract_survives_its_file() {
    let text = contract().to_json();
    assert_eq!(Contract::parse(&text).unwrap(), contract());
    assert!(text.starts_with("{\n  \"schema\": \"kd.contract/1\",\n") && text.ends_with("}\n"));
    assert_eq!(contract().input.scale, 1.0 / 16.0);
}

#[test]
fn bad_contracts_are_refused_in_one_line() {
    let good = contract().to_json();
    #[rustfmt::skip]
    let cases = [
        ("kd.contract/1",            "kd.contract/9",            "schema: expected `kd.contract/1`, found `kd.contract/9`"),
        ("\"scale\": 0.0625",        "\"scale\": 0",             "input.scale: expected a finite number that is not 0, found 0"),
        ("\"scale\": 0.0625",        "\"scale\": 1e99",          "expected a contract (`kd.contract/1`), found number out of range"),
        ("\"scale\"",                "\"scael\"",                "unknown field `scael`"),
        ("\"layout\": \"CHW\"",      "\"layout\": \"CH\"",       "input.layout: expected 3 different letters"),
        ("\"layout\": \"CHW\"",      "\"layout\": \"HCW\"",      "input.layout: expected `C` first or last"),
        ("\"layout\": \"CHW\"",      "\"layout\": \"???\"",      "input.layout: expected 3 different letters"),
        ("\"element\": \"f32\"",     "\"element\": \"f64\"",     "input.element: expected `f32`, found `f64`"),
        ("      8,\n      8\n",      "      8,\n      0\n",      "input.shape: expected 1 to 268435456 elements, found 0"),
        ("\"std\": [\n      1.0\n",  "\"std\": [\n      0.0\n",  "input.std: expected finite numbers above 0, found 0"),
        ("\"std\": [\n      1.0\n",  "\"std\": [\n      1, 2\n", "input.std: expected 1 number, found 2"),
        ("\"scale\": 0.0625",        "\"reading\": {\"kind\":\"image\",\"height\":9000,\"width\":9000,\"channels\":3,\"shorter_side\":null}, \"scale\": 0.0625", "input.reading: expected samples of 64 values, as input.shape, found 243000000"),
        ("\"logits\"",               "\"scores\"",               "unknown variant `scores`"),
        ("\"9\"",                    "\"8\"",                    "output.classes: expected class names that differ and are not empty, found `8` twice"),
        ("}",                        "",                         "line"),
    ];
    let mut failed = Vec::new();
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        match Contract::parse(&good.replace(from, to)) {
            Ok(_) => failed.push(format!("{to}: accepted")),
            Err(e) if !e.to_string().contains(expected) || e.to_string().contains('\n') => failed.push(e.to_string()),
            Err(_) => {}
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    for i in 0..good.len() * 8 {
        let mut bytes = good.clone().into_bytes();
        bytes[i / 8] ^= 1 << (i % 8);
        let _ = String::from_utf8(bytes).map(|text| Contract::parse(&text));
    }
}

#[test]
fn raw_values_are_scaled_by_channel_and_moved_to_the_layout() {
    let mut contract = contract();
    contract.input.shape = vec![2, 1, 3];
    contract.input.scale = 0.5;
    contract.input.mean = vec![1.0, 2.0];
    contract.input.std = vec![2.0, 4.0];
    let raw = [2.0, 4.0, 6.0, 20.0, 40.0, 60.0];
    let mut x = [0.0; 6];
    contract.prepare(&raw, &mut x);
    assert_eq!(x, [0.0, 0.5, 1.0, 2.0, 4.5, 7.0]);
    contract.input.shape = vec![1, 3, 2];
    contract.input.layout = "HWC".into();
    contract.check().unwrap();
    contract.prepare(&raw, &mut x);
    assert_eq!(x, [0.0, 2.0, 0.5, 4.5, 1.0, 7.0]);
    // Each channel by its own values; one whose values are the same is left at 0.
    contract.input.per_sample = true;
    (contract.input.scale, contract.input.mean, contract.input.std) = (1.0, vec![0.0], vec![1.0]);
    contract.check().unwrap();
    contract.prepare(&[1.0, 3.0, 5.0, 0.7, 0.7, 0.7], &mut x);
    let side = 1.5_f32.sqrt();
    assert_eq!(x, [-side, 0.0, 0.0, 0.0, side, 0.0]);
    assert_eq!(Contract::parse(&contract.to_json()).unwrap(), contract);
    contract.input.layout = "F".into();
    contract.input.shape = vec![6];
    let refusal = contract.check().unwrap_err().to_string();
    assert!(
        refusal.contains("input.per_sample: expected false where each column is one value, found true"),
        "{refusal}"
    );
    contract.input.per_sample = false;
    contract.input.scale = 0.5;
    contract.input.mean = vec![0.0];
    contract.input.std = vec![1.0];
    contract.prepare(&raw, &mut x);
    assert_eq!(x, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    // Each column of a table may have its own.
    contract.input.mean = vec![1.0, 2.0, 3.0, 10.0, 20.0, 40.0];
    contract.input.std = vec![2.0, 1.0, 1.0, 1.0, 1.0, 5.0];
    contract.check().unwrap();
    contract.prepare(&raw, &mut x);
    assert_eq!(x, [0.0, 0.0, 0.0, 0.0, 0.0, -2.0]);
    contract.input.mean.pop();
    let refusal = contract.check().unwrap_err().to_string();
    assert!(refusal.contains("input.mean: expected 1 or 6 numbers, found 5"), "{refusal}");
}

#[test]
fn models_and_data_that_do_not_fit_are_refused() {
    let contract = contract();
    let fitting = graph(Shape::batched(&[1, 8, 8]), &[10]);
    contract.check_model(&fitting).unwrap();
    contract.check_model(&graph(Shape::known(&[1, 1, 8, 8]), &[10])).unwrap();
    let mut renamed = contract.clone();
    renamed.input.name = "z".into();
    let mut two = fitting.clone();
    two.add_input("z", ElementType::F32, Shape::batched(&[1]));
    let cases = [
        (contract.check_model(&graph(Shape::batched(&[3, 8, 8]), &[10])), "f32 [N, 3, 8, 8] of the model's `x`"),
        (contract.check_model(&graph(Shape::batched(&[1, 8, 8]), &[11])), "the model's `y` [N, 11], found 10 classes"),
        (renamed.check_model(&fitting), "one of the model's inputs: `x`, found `z`"),
        (contract.check_model(&two), "expected one input, as a contract describes, found 2"),
        (contract.check_data(&Description { shape: vec![1, 28, 28], ..digits() }), "found [1, 28, 28] (CHW)"),
        (contract.check_data(&Description { classes: vec!["0".into()], ..digits() }), "expected 10 classes, found 1"),
        (
            contract.check_data(&Description { classes: (0..10).rev().map(|i| i.to_string()).collect(), ..digits() }),
            "expected class 0 to be `0`, found `9`",
        ),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    contract.check_data(&digits()).unwrap();
}

#[test]
fn a_missing_contract_prints_what_the_model_tells() {
    let graph = graph(Shape::batched(&[28, 28, 1]), &[4]);
    let mut out = Vec::new();
    let refusal = contract::missing("m.onnx".as_ref(), &graph, "accuracy", &mut out);
    assert!(refusal.to_string().starts_with("m.onnx: expected a contract for accuracy, found no contract.json"));
    let template = Contract::parse(std::str::from_utf8(&out).unwrap()).unwrap();
    assert_eq!((template.input.layout.as_str(), template.output.classes.len()), ("HWC", 4));
    template.check_model(&graph).unwrap();
}

#[test]
fn a_model_whose_output_is_no_float_is_refused() {
    let mut graph = graph(Shape::batched(&[1, 8, 8]), &[10]);
    contract().check_model(&graph).unwrap();
    let y = graph.outputs[0];
    graph.values[y.index()].element = ElementType::I64;
    let line = contract().check_model(&graph).unwrap_err().to_string();
    assert!(line.starts_with("output `y`: expected f32, found i64"), "{line}");
}
