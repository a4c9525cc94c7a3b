//! What is no model, what is not supported and what the lint finds is refused in one line that names the place.

mod onnx_model;

use kd_runtime::onnx::{self, messages::field};
use onnx_model::*;

fn relu_with(others: &[Piece]) -> Vec<u8> {
    let mut pieces = vec![node("Relu", &["x"], &["y"], &[]), input("x", &[1, 4]), output("y")];
    pieces.extend_from_slice(others);
    model(21, &pieces)
}

/// `x + w`, where `w` is this tensor.
fn weight(bytes: Vec<u8>) -> Vec<u8> {
    model(21, &[node("Add", &["x", "w"], &["y"], &[]), input("x", &[1, 2]), output("y"), initializer(bytes)])
}

fn unary(op: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    model(21, &[node(op, &["x"], &["y"], attributes), input("x", &[1, 4]), output("y")])
}

fn inputs(piece: Piece) -> Vec<u8> {
    model(21, &[node("Relu", &["x"], &["y"], &[]), piece, output("y")])
}

/// Quantizes with this scale and, if given, a zero point of this type and dequantizes again.
fn quantized(scale: f32, zero_point: i64) -> Vec<u8> {
    let pieces = [
        node("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
        node("DequantizeLinear", &["q", "s", "z8"], &["y"], &[]),
        input("x", &[1, 4]),
        output("y"),
        floats_initializer("s", &[], &[scale]),
        initializer(tensor("z", U8, &[], raw(&[0]))),
        initializer(tensor("z8", zero_point, &[], raw(&[0]))),
    ];
    model(21, &pieces)
}

fn field_of(name: &str, kind: i64, number: u32) -> Vec<u8> {
    nested(name, kind, number, b"")
}

#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let relu = |ir, imports: &[(&str, i64)]| model_of(ir, imports, &[node("Relu", &["x"], &["y"], &[]), input("x", &[1]), output("y")]);
    let conv = |outputs: &[&str]| model(21, &[node("Relu", &["x"], outputs, &[]), input("x", &[1]), output("y")]);
    let external = |w: &mut kd_runtime::onnx::wire::Writer| {
        w.message(13, |w| { w.bytes(1, b"location"); w.bytes(2, b"../../etc/\x1b[2Jpasswd"); });
        w.int(14, 1);
    };
    vec![
        // name                       bytes                                                 what the line says
        ("an empty file",             vec![],                                               &["expected an ONNX model, found 0 bytes"]),
        ("text",                      b"hello world, this is no model".to_vec(),            &["byte "]),
        ("no IR version",             model_of(0, &[("", 21)], &[]),                        &["IR version 3 to 14, found none"]),
        ("IR version 99",             relu(99, &[("", 21)]),                                &["IR version 3 to 14, found 99"]),
        ("opset 6",                   relu(10, &[("", 6)]),                                 &["opset 7 to 28, found 6"]),
        ("opset 29",                  relu(10, &[("", 29)]),                                &["opset 7 to 28, found 29"]),
        ("two default opsets",        relu(10, &[("", 20), ("ai.onnx", 21)]),               &["one version of the default domain, found two"]),
        ("no default opset",          relu(10, &[("ai.onnx.ml", 3)]),                       &["node 0 (Relu)", "imports an opset"]),
        ("no graph",                  vec![8, 10],                                          &["expected a graph, found none"]),
        ("no output",                 model(21, &[input("x", &[1])]),                       &["at least one output"]),
        ("another domain",            model_of(10, &[("", 21), ("com.microsoft", 1)], &[node_of("com.microsoft", "a", "Gelu", &["x"], &["y"], &[])]), &["node 0 `a` (com.microsoft:Gelu)", "domain ai.onnx", "`Gelu` of domain `com.microsoft`"]),
        ("an unknown operator",       unary("Loop", &[]),                                   &["node 0 (Loop)", "found `Loop`", "--backend ort"]),
        ("a misspelt operator",       unary("Sigmiod", &[]),                                &["the nearest known one is `Sigmoid`"]),
        ("an unknown attribute",      unary("Relu", &[int("slope", 1)]),                    &["only known attributes, found `slope`"]),
        ("an attribute twice",        unary("LeakyRelu", &[float("alpha", 0.1), float("alpha", 0.2)]), &["`alpha`"]),
        ("a graph as attribute",      unary("Relu", &[field_of("body", 5, field::attribute::GRAPH)]), &["attribute `body`", "a graph inside the graph"]),
        ("a sparse attribute",        unary("Relu", &[field_of("v", 11, field::attribute::SPARSE_TENSOR)]), &["a sparse tensor"]),
        ("a type as attribute",       unary("Relu", &[field_of("v", 13, field::attribute::TYPE_PROTO)]), &["found a type"]),
        ("an attribute's reference",  unary("LeakyRelu", &[nested("alpha", 1, field::attribute::REF_NAME, b"outer")]), &["attribute `alpha`", "a reference to an attribute of a function"]),
        ("functions",                 { let mut m = relu(10, &[("", 21)]); m.extend([0xca, 0x01, 0x00]); m }, &["local functions"]),
        ("a sparse initializer",      relu_with(&[(field::graph::SPARSE_INITIALIZER, vec![])]), &["dense initializers"]),
        ("a second graph",            { let mut m = relu(10, &[("", 21)]); m.extend([0x3a, 0x00]); m }, &["one graph, found a second one"]),
        ("an input twice",            relu_with(&[input("x", &[1])]),                       &["input `x`", "a second one of this name"]),
        ("an output twice",           relu_with(&[output("y")]),                            &["output `y`", "a second one of this name"]),
        ("an initializer twice",      relu_with(&[floats_initializer("w", &[1], &[1.0]), floats_initializer("w", &[1], &[1.0])]), &["initializer `w`", "a second one of this name"]),
        ("a value made twice",        relu_with(&[node("Tanh", &["x"], &["y"], &[])]),      &["value `y`", "one producer"]),
        ("an initializer made again", relu_with(&[floats_initializer("y", &[1], &[1.0])]),  &["value `y`", "one producer"]),
        ("a constant twice",          relu_with(&[node("Constant", &[], &["c"], &[int("value_int", 1)]), node("Constant", &[], &["c"], &[int("value_int", 1)])]), &["node 2 (Constant)", "`c` a second time"]),
        ("a value made by nothing",   relu_with(&[output("nothing")]),                      &["value `nothing`", "nothing that produces it"]),
        ("a cycle",                   relu_with(&[node_of("", "a", "Add", &["x", "q"], &["p"], &[]), node("Relu", &["p"], &["q"], &[])]), &["node 1 `a` (Add)", "without cycles"]),
        ("too many outputs",          conv(&["y", "z"]),                                    &["1 to 1 outputs, found 2"]),
        ("too few inputs",            relu_with(&[node("Add", &["x"], &["z"], &[])]),       &["node 1 (Add)", "2 to 2 inputs, found 1"]),
        ("control characters",        relu_with(&[node_of("", "a\n\x1b[31m", "Nop\u{202e}", &[], &["z"], &[])]), &["`a\\u{a}\\u{1b}[31m`", "Nop\\u{202e}"]),
        ("a name that is not UTF-8",  relu_with(&[(field::graph::NAME, vec![0xff, 0xfe])]), &["UTF-8 text"]),
        ("a symbol on axis 1",        inputs(input("x", &[1, -1])),                         &["input `x`", "`N` on axis 1", "with that size fixed"]),
        ("a missing size on axis 2",  inputs(input("x", &[-1, 3, 0])),                      &["`?` on axis 2"]),
        ("a negative size",           inputs(input("x", &[1, -7])),                         &["`-7` on axis 1"]),
        ("an endless input",          inputs(input("x", &[1, 1 << 40])),                    &["at most 2^31"]),
        ("an endless product",        inputs(input("x", &[1, 1 << 20, 1 << 20])),           &["elements"]),
        ("9 dimensions",             inputs(input("x", &[1; 9])),                         &["at most 8 dimensions"]),
        ("an f16 input",              inputs(value(field::graph::INPUT, "x", 10, &[1])),    &["input `x`", "found f16"]),
        ("a u16 input",               inputs(value(field::graph::INPUT, "x", 4, &[1])),     &["found u16"]),
        ("an input without a type",   inputs((field::graph::INPUT, b"\x0a\x01x".to_vec())), &["input `x`", "a tensor, found no type"]),
        ("an input without a shape",  inputs((field::graph::INPUT, b"\x0a\x01x\x12\x04\x0a\x02\x08\x01".to_vec())), &["a shape, found none"]),
        ("a sequence as input",       inputs((field::graph::INPUT, b"\x0a\x01x\x12\x02\x22\x00".to_vec())), &["a tensor, found a sequence"]),
        ("too few elements",          weight(tensor("w", F32, &[2], raw(&[0; 4]))),         &["initializer `w`", "2 elements for shape [2], found 1"]),
        ("a ragged number of bytes",  weight(tensor("w", F32, &[1], raw(&[0; 5]))),         &["a multiple of 4 bytes of f32, found 5"]),
        ("a huge claim",              weight(tensor("w", F32, &[1 << 30], raw(&[0; 8]))),   &["1073741824 elements", "found 2"]),
        ("a claim that overflows",    weight(tensor("w", F32, &[1 << 40, 1 << 40], raw(&[]))), &["at most 2^31"]),
        ("a negative dimension",      weight(tensor("w", F32, &[-2], raw(&[0; 8]))),        &["[-2]"]),
        ("a u16 initializer",         weight(tensor("w", 4, &[2], raw(&[0; 4]))),           &["initializer `w`", "found u16"]),
        ("a string initializer",      weight(tensor("w", 8, &[1], |_| {})),                 &["found string"]),
        ("an unknown type",           weight(tensor("w", 77, &[1], |_| {})),                &["a type that ONNX does not know"]),
        ("external data",             weight(tensor("w", F32, &[2], external)),             &["initializer `w`", "external data in `../../etc/\\u{1b}[2Jpasswd`"]),
        ("int32_data beyond i8",      weight(tensor("w", I8, &[2], |w| w.bytes(5, &[1, 0x80, 0x01]))), &["elements within i8, found 128"]),
        ("f64 beyond f32",            weight(tensor("w", 11, &[1], raw(&1e300_f64.to_le_bytes()))), &["within the range of f32"]),
        ("a boolean of 2",            weight(tensor("w", 9, &[1], raw(&[2]))),              &["booleans that are 0 or 1, found 2"]),
        ("a NaN weight",              weight(tensor("w", F32, &[2], raw(&[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]))), &["initializer `w`: element 1 of 2", "found NaN"]),
        ("an infinite weight",        weight(tensor("w", F32, &[1], raw(&f32::INFINITY.to_le_bytes()))), &["a finite number, found inf"]),
        ("a zero scale",              quantized(0.0, U8),                                   &["node 0 (QuantizeLinear): scale 0 of 1", "found 0"]),
        ("a negative scale",          quantized(-0.5, U8),                                  &["finite scale above 0, found -0.5"]),
        ("a NaN scale",               quantized(f32::NAN, U8),                              &["found NaN"]),
        ("an infinite scale",         quantized(f32::INFINITY, U8),                         &["found inf"]),
        ("another zero point's type", quantized(0.5, I8),                                   &["node 1 (DequantizeLinear)"]),
        ("statistics per element",    model(7, &[node("BatchNormalization", &["x", "w", "w", "w", "w"], &["y"], &[int("spatial", 0)]), input("x", &[1, 1]), output("y"), floats_initializer("w", &[1], &[1.0])]), &["spatial 1"]),
        ("a training node",           model(7, &[node("Dropout", &["x"], &["y"], &[int("is_test", 0)]), input("x", &[1, 1]), output("y")]), &["is_test 1"]),
        ("axes said twice",           model(12, &[node("Squeeze", &["x", "a"], &["y"], &[ints("axes", &[0])]), input("x", &[1, 1]), output("y"), ints_initializer("a", &[0])]), &["`axes` as an attribute or as an input, found both"]),
        ("a constant of text",        model(21, &[node("Constant", &[], &["y"], &[string("value_string", "a")]), output("y")]), &["node 0 (Constant)", "found `value_string`"]),
        ("a constant of nothing",     model(21, &[node("Constant", &[], &["y"], &[]), output("y")]), &["one of value, value_float"]),
        ("a group of protobuf",       vec![0x0b, 0x0c],                                     &["byte 0", "wire type 0, 1, 2 or 5, found 3"]),
        ("field number 0",            vec![0x00, 0x00],                                     &["field number"]),
        ("an endless varint",         vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &["byte 1", "a varint of at most 64 bits"]),
        ("a length beyond the end",   vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00],       &["a length of at most 1", "found 4294967295"]),
        ("a length of 2^64 - 1",      vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &["found 18446744073709551615"]),
        ("a graph that is a number",  vec![0x38, 0x01],                                     &["a length and bytes in field 7, found a varint"]),
    ]
}

#[test]
fn refuses_in_one_line_that_names_the_place() {
    let mut failed = Vec::new();
    for (name, bytes, expected) in cases() {
        match onnx::read(&bytes) {
            Ok(_) => failed.push(format!("{name}: it was read")),
            Err(refusal) => {
                let line = refusal.to_string();
                if line.contains(|c: char| c.is_control()) || !expected.iter().all(|part| line.contains(part)) {
                    failed.push(format!("{name}: expected {expected:?}, found {line}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn infinite_bounds_of_clip_and_fillings_of_pad_are_fine() {
    let infinity = |name| floats_initializer(name, &[], &[f32::NEG_INFINITY]);
    let pieces = [
        node("Clip", &["x", "low"], &["c"], &[]),
        node("Pad", &["c", "pads", "low"], &["y"], &[]),
        input("x", &[1, 4]),
        output("y"),
        infinity("low"),
        ints_initializer("pads", &[0, 1, 0, 1]),
    ];
    onnx::read(&model(21, &pieces)).expect("a model");
}

#[test]
fn converts_other_floats_and_says_so_once() {
    let half = |name: &str| initializer(tensor(name, 10, &[2], raw(&[0x00, 0x3c, 0x00, 0xc0])));
    let pieces = [
        node("Add", &["x", "a"], &["p"], &[]),
        node("Add", &["p", "b"], &["q"], &[]),
        node("Add", &["q", "c"], &["r"], &[]),
        node("Add", &["r", "d"], &["y"], &[]),
        input("x", &[-1, 2]),
        output("y"),
        half("a"),
        // 0x3c00 and 0x4000 as int32_data.
        initializer(tensor("b", 10, &[2], |w| w.bytes(5, &[0x80, 0x78, 0x80, 0x80, 0x01]))),
        initializer(tensor("c", 11, &[1], |w| w.bytes(10, &0.5_f64.to_le_bytes()))),
        initializer(tensor("d", 16, &[1], raw(&[0x80, 0x3f]))),
    ];
    let model = onnx::read(&model(21, &pieces)).expect("a model");
    let values: Vec<_> = model.graph.initializers.values().map(|t| t.get::<f32>().expect("f32").to_vec()).collect();
    assert_eq!(values, [vec![1.0, -2.0], vec![1.0, 2.0], vec![0.5], vec![1.0]]);
    let expected = [
        "1 tensor of bf16 was converted to f32",
        "2 tensors of f16 were converted to f32",
        "1 tensor of f64 was converted to f32",
    ];
    assert_eq!(model.notes, expected);
}

#[test]
fn a_batch_of_any_name_is_the_batch_and_initializers_among_the_inputs_are_not_fed() {
    let pieces = [
        node("Add", &["a", "b"], &["p"], &[]),
        node("Add", &["p", "w"], &["y"], &[]),
        value(field::graph::INPUT, "a", F32, &[-1, 2]),
        value(field::graph::INPUT, "b", F32, &[0, 2]),
        input("w", &[2]),
        output("y"),
        floats_initializer("w", &[2], &[1.0, 2.0]),
    ];
    let graph = onnx::read(&model_of(3, &[("", 8)], &pieces)).expect("a model").graph;
    let inputs: Vec<String> = graph.inputs.iter().map(|&id| graph.value(id).shape.to_string()).collect();
    assert_eq!(inputs, ["[N, 2]", "[N, 2]"]);
    assert_eq!(graph.value(graph.outputs[0]).shape.to_string(), "[N, 2]");
}

#[test]
fn nodes_in_any_order_are_sorted() {
    let pieces = [node("Relu", &["p"], &["y"], &[]), node("Tanh", &["x"], &["p"], &[]), input("x", &[1]), output("y")];
    let graph = onnx::read(&model(21, &pieces)).expect("a model").graph;
    assert_eq!(graph.nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>(), ["Tanh", "Relu"]);
}

#[test]
fn operators_are_named_also_of_models_that_are_refused() {
    let pieces = [node("Loop", &[], &[], &[]), node("Add", &[], &[], &[]), node_of("ml", "", "Tree", &[], &[], &[])];
    assert_eq!(onnx::operators(&model(99, &pieces)).expect("names"), ["Add", "Loop", "ml:Tree"]);
}
