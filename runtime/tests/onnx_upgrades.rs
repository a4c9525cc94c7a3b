//! What older opsets say is brought to the normal form: each old model equals a new one.

mod onnx_model;

use kd_runtime::engine::Engine;
use kd_runtime::graph::Slice;
use kd_runtime::onnx;
use onnx_model::*;

/// Input `x`, a node, output `y`, and what else the graph has.
fn one(opset: i64, dims: &[i64], op: &str, names: &[&str], attributes: &[Vec<u8>], others: &[Piece]) -> Vec<u8> {
    let mut pieces = vec![node(op, names, &["y"], attributes), input("x", dims), output("y")];
    pieces.extend_from_slice(others);
    model(opset, &pieces)
}

fn scalar(name: &str, value: f32) -> Piece {
    floats_initializer(name, &[], &[value])
}

struct Case {
    name: &'static str,
    old: Vec<u8>,
    new: Vec<u8>,
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let image = [1, 2, 4, 4];
    let norm = || -> Vec<Piece> { ["s", "b", "m", "v"].iter().map(|n| floats_initializer(n, &[2], &[1.0, 2.0])).collect() };
    let norm_inputs = ["x", "s", "b", "m", "v"];
    let case = |name, old, new| Case { name, old, new };
    vec![
        case("Clip 6 with both bounds",
            one(7, &image, "Clip", &["x"], &[float("min", 0.0), float("max", 6.0)], &[]),
            one(21, &image, "Clip", &["x", "y.min", "y.max"], &[], &[scalar("y.min", 0.0), scalar("y.max", 6.0)])),
        case("Clip 6 with one bound",
            one(10, &image, "Clip", &["x"], &[float("max", 6.0)], &[]),
            one(21, &image, "Clip", &["x", "", "y.max"], &[], &[scalar("y.max", 6.0)])),
        case("Pad 2",
            one(7, &image, "Pad", &["x"], &[string("mode", "constant"), ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]), float("value", 1.5)], &[]),
            one(21, &image, "Pad", &["x", "y.pads", "y.value"], &[], &[ints_initializer("y.pads", &[0, 0, 1, 1, 0, 0, 1, 1]), scalar("y.value", 1.5)])),
        case("Pad 2 with the value that pads have anyway",
            one(7, &image, "Pad", &["x"], &[string("mode", "edge"), ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]), float("value", 0.0)], &[]),
            one(21, &image, "Pad", &["x", "y.pads"], &[string("mode", "edge")], &[ints_initializer("y.pads", &[0, 0, 1, 1, 0, 0, 1, 1])])),
        case("Slice 1",
            one(9, &image, "Slice", &["x"], &[ints("axes", &[2, 3]), ints("starts", &[1, 0]), ints("ends", &[3, -1])], &[]),
            one(21, &image, "Slice", &["x", "y.starts", "y.ends", "y.axes"], &[],
                &[ints_initializer("y.starts", &[1, 0]), ints_initializer("y.ends", &[3, -1]), ints_initializer("y.axes", &[2, 3])])),
        case("Squeeze 11",
            one(12, &image, "Squeeze", &["x"], &[ints("axes", &[0])], &[]),
            one(21, &image, "Squeeze", &["x", "y.axes"], &[], &[ints_initializer("y.axes", &[0])])),
        case("Squeeze 1 of all axes",
            one(7, &image, "Squeeze", &["x"], &[], &[]),
            one(21, &image, "Squeeze", &["x"], &[], &[])),
        case("Unsqueeze 11",
            one(11, &image, "Unsqueeze", &["x"], &[ints("axes", &[0, 5])], &[]),
            one(21, &image, "Unsqueeze", &["x", "y.axes"], &[], &[ints_initializer("y.axes", &[0, 5])])),
        case("ReduceMean 13",
            one(17, &image, "ReduceMean", &["x"], &[ints("axes", &[2, 3]), int("keepdims", 0)], &[]),
            one(21, &image, "ReduceMean", &["x", "y.axes"], &[int("keepdims", 0)], &[ints_initializer("y.axes", &[2, 3])])),
        case("Dropout 7",
            one(9, &image, "Dropout", &["x"], &[float("ratio", 0.25)], &[]),
            one(21, &image, "Dropout", &["x", "y.ratio"], &[], &[scalar("y.ratio", 0.25)])),
        case("Dropout 6's is_test left over",
            one(11, &image, "Dropout", &["x"], &[int("is_test", 1)], &[]),
            one(21, &image, "Dropout", &["x"], &[], &[])),
        case("Gemm 6's broadcast left over",
            one(9, &[3, 2], "Gemm", &["x", "w"], &[int("broadcast", 1), int("transB", 1)], &[floats_initializer("w", &[2, 2], &[1.0; 4])]),
            one(21, &[3, 2], "Gemm", &["x", "w"], &[int("transB", 1)], &[floats_initializer("w", &[2, 2], &[1.0; 4])])),
        case("BatchNormalization 7",
            one(8, &image, "BatchNormalization", &norm_inputs, &[int("spatial", 1), int("is_test", 1), ints("consumed_inputs", &[0, 0, 0, 1, 1]), float("epsilon", 1e-3)], &norm()),
            one(21, &image, "BatchNormalization", &norm_inputs, &[float("epsilon", 1e-3)], &norm())),
        case("Resize 10",
            one(10, &image, "Resize", &["x", "s"], &[string("mode", "nearest")], &[floats_initializer("s", &[4], &[1.0, 1.0, 2.0, 2.0])]),
            one(21, &image, "Resize", &["x", "", "s"], &[string("coordinate_transformation_mode", "asymmetric"), string("nearest_mode", "floor")],
                &[floats_initializer("s", &[4], &[1.0, 1.0, 2.0, 2.0])])),
        case("Split 13, of whose two parts the second has no name",
            model(13, &[node("Split", &["x"], &["y", ""], &[int("axis", 2)]), input("x", &image), output("y")]),
            model(21, &[node("Split", &["x"], &["y", ""], &[int("axis", 2), int("num_outputs", 2)]), input("x", &image), output("y")])),
        case("Split 11 with sizes",
            one(11, &image, "Split", &["x"], &[int("axis", 1), ints("split", &[2])], &[]),
            one(21, &image, "Split", &["x", "y.split"], &[int("axis", 1)], &[ints_initializer("y.split", &[2])])),
        case("Split 13 into as many parts as outputs",
            one(17, &image, "Split", &["x"], &[int("axis", 1)], &[]),
            one(21, &image, "Split", &["x"], &[int("axis", 1), int("num_outputs", 1)], &[])),
        case("Softmax 1, default axis on two axes",
            one(7, &[-1, 10], "Softmax", &["x"], &[], &[]),
            one(21, &[-1, 10], "Softmax", &["x"], &[int("axis", 1)], &[])),
        case("Softmax 11 over the last axis",
            one(12, &[-1, 3, 10], "Softmax", &["x"], &[int("axis", -1)], &[]),
            one(21, &[-1, 3, 10], "Softmax", &["x"], &[int("axis", 2)], &[])),
        case("LogSoftmax 11, what follows the axis has size 1",
            one(12, &[-1, 10, 1, 1], "LogSoftmax", &["x"], &[], &[]),
            one(21, &[-1, 10, 1, 1], "LogSoftmax", &["x"], &[int("axis", 1)], &[])),
        case("QuantizeLinear 25 with precision",
            one(25, &[4], "QuantizeLinear", &["x", "s"], &[int("precision", 1)], &[scalar("s", 0.5)]),
            one(21, &[4], "QuantizeLinear", &["x", "s"], &[], &[scalar("s", 0.5)])),
        case("Cast 25 with round_mode",
            one(25, &[4], "Cast", &["x"], &[int("to", 7), string("round_mode", "up"), int("saturate", 1)], &[]),
            one(21, &[4], "Cast", &["x"], &[int("to", 7)], &[])),
    ]
}

#[test]
fn old_models_equal_new_ones() {
    let mut failed = Vec::new();
    for Case { name, old, new } in cases() {
        let graph = |bytes: &[u8]| onnx::read(bytes).map(|model| model.graph).map_err(|refusal| refusal.to_string());
        match (graph(&old), graph(&new)) {
            (Ok(old), Ok(new)) if onnx::write(&old) == onnx::write(&new) => {}
            (old, new) => failed.push(format!("{name}:\n  old {old:?}\n  new {new:?}")),
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn old_softmax_sums_over_all_axes_from_its_own_on() {
    let bytes = one(12, &[-1, 2, 3], "Softmax", &["x"], &[], &[]);
    let graph = onnx::read(&bytes).expect("a model").graph;
    let mut engine = Engine::new(&graph, 2).expect("a plan");
    engine.input_mut(0).data.copy_from(Slice::F32(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    engine.run().expect("a result");
    let found = engine.output(0);
    assert_eq!(found.shape, [2, 2, 3]);
    let y: &[f32] = found.get();
    let all: f32 = (1..=6).map(|k| (k as f32).exp()).sum();
    for (k, &y) in y.iter().enumerate() {
        let expected = if k < 6 { 1.0 / 6.0 } else { ((k - 5) as f32).exp() / all };
        // 1e-6: a few roundings of 2^-24 in exp, sum and quotient.
        assert!((y - expected).abs() < 1e-6, "element {k}: expected {expected}, found {y}");
    }
}

#[test]
fn the_new_softmax_over_one_axis_is_left_alone() {
    let graph = onnx::read(&one(13, &[-1, 2, 3], "Softmax", &["x"], &[int("axis", 1)], &[])).expect("a model").graph;
    assert_eq!(graph.nodes.len(), 1);
}

#[test]
fn a_split_with_more_outputs_than_parts_is_refused() {
    let build = |outputs: &[&str]| {
        let split = node("Split", &["x"], outputs, &[int("axis", 1), int("num_outputs", 2)]);
        onnx::read(&model(21, &[split, input("x", &[1, 4]), output("a")]))
    };
    assert!(build(&["a", "b"]).is_ok());
    let refusal = build(&["a", "b", "c"]).expect_err("a third part").to_string();
    assert!(refusal.contains("expected at most 2 outputs, found 3"), "{refusal}");
}

#[test]
fn names_that_the_reader_makes_avoid_those_of_the_file() {
    let pieces = [
        node("Clip", &["x"], &["y"], &[float("min", 0.0), float("max", 6.0)]),
        node("Relu", &["y"], &["y.min"], &[]),
        node("MaxPool", &["y"], &["z", ""], &[ints("kernel_shape", &[1])]),
        node("MaxPool", &["y"], &["", "y.min.1"], &[ints("kernel_shape", &[1])]),
        input("x", &[1, 1, 4]),
        output("y.min"),
        output("z"),
        output("y.min.1"),
    ];
    let graph = onnx::read(&model(10, &pieces)).expect("a model").graph;
    let mut names: Vec<&str> = graph.values.iter().map(|value| value.name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["node_3.output_0", "x", "y", "y.max", "y.min", "y.min.1", "y.min.2", "z"]);
}

#[test]
fn constants_of_every_form_become_initializers() {
    let value = tensor("", F32, &[2], raw(&[0, 0, 128, 63, 0, 0, 0, 64]));
    let cases = [
        (tensor_attribute("value", &value), "F32([1.0, 2.0])"),
        (float("value_float", 3.0), "F32([3.0])"),
        (floats("value_floats", &[3.0, 4.0]), "F32([3.0, 4.0])"),
        (int("value_int", 5), "I64([5])"),
        (ints("value_ints", &[5, 6]), "I64([5, 6])"),
    ];
    for (attribute, expected) in cases {
        let pieces = [node("Constant", &[], &["c"], &[attribute]), output("c")];
        let graph = onnx::read(&model(13, &pieces)).expect("a model").graph;
        assert!(graph.nodes.is_empty());
        let found: Vec<String> = graph.initializers.values().map(|t| format!("{:?}", t.data())).collect();
        assert_eq!(found, [expected]);
    }
}

#[test]
fn what_training_left_is_refused_only_where_it_is_read() {
    let norm: Vec<Piece> = ["s", "b", "m", "v"].iter().map(|n| floats_initializer(n, &[1], &[1.0])).collect();
    let names = ["x", "s", "b", "m", "v"];
    let build = |outputs: &[&str], wanted: &[&str]| {
        let mut pieces = vec![node("BatchNormalization", &names, outputs, &[]), input("x", &[1, 1, 4])];
        pieces.extend(wanted.iter().map(|name| output(name)));
        pieces.extend_from_slice(&norm);
        onnx::read(&model(9, &pieces))
    };
    let graph = build(&["y", "mean", "var", "", ""], &["y"]).expect("unread outputs are dropped").graph;
    assert_eq!(graph.nodes[0].outputs.len(), 1);
    let refusal = build(&["y", "mean"], &["y", "mean"]).expect_err("a reader").to_string();
    assert!(refusal.contains("node 0 (BatchNormalization)") && refusal.contains("`mean`"), "{refusal}");
}
