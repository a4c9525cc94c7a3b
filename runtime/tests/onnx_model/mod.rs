//! Builds ONNX files piece by piece, right ones and wrong ones, without the writer that is under test.
#![allow(dead_code)]

use kd_runtime::onnx::messages::field::{
    attribute, graph, model, node as n, opset as o, tensor as t, type_proto, value_info,
};
use kd_runtime::onnx::wire::Writer;

/// Element type codes.
pub const F32: i64 = 1;
pub const U8: i64 = 2;
pub const I8: i64 = 3;
pub const I64: i64 = 7;

/// A piece of a graph: field number and message.
pub type Piece = (u32, Vec<u8>);

fn message(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    write(&mut w);
    w.finish()
}

/// A model of one graph.
pub fn model(opset: i64, pieces: &[Piece]) -> Vec<u8> {
    model_of(10, &[("", opset)], pieces)
}

/// A model with its IR version and imports.
pub fn model_of(ir: i64, imports: &[(&str, i64)], pieces: &[Piece]) -> Vec<u8> {
    message(|w| {
        w.int(model::IR_VERSION, ir);
        for (domain, version) in imports {
            w.message(model::OPSET_IMPORT, |w| {
                w.bytes(o::DOMAIN, domain.as_bytes());
                w.int(o::VERSION, *version);
            });
        }
        w.message(model::GRAPH, |w| pieces.iter().for_each(|(number, bytes)| w.bytes(*number, bytes)));
    })
}

/// A size of an input: 0 is left out, negative ones are the symbol `N`.
pub fn value(number: u32, name: &str, elem_type: i64, dims: &[i64]) -> Piece {
    let bytes = message(|w| {
        w.bytes(value_info::NAME, name.as_bytes());
        w.message(value_info::TYPE, |w| {
            w.message(type_proto::TENSOR, |w| {
                w.int(type_proto::ELEM_TYPE, elem_type);
                w.message(type_proto::SHAPE, |w| {
                    for &dim in dims {
                        w.message(type_proto::DIM, |w| match dim {
                            0 => {}
                            -1 => w.bytes(type_proto::DIM_PARAM, b"N"),
                            dim => w.int(type_proto::DIM_VALUE, dim),
                        });
                    }
                });
            });
        });
    });
    (number, bytes)
}

pub fn input(name: &str, dims: &[i64]) -> Piece {
    value(graph::INPUT, name, F32, dims)
}

pub fn output(name: &str) -> Piece {
    (graph::OUTPUT, message(|w| w.bytes(value_info::NAME, name.as_bytes())))
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Piece {
    node_of("", "", op, inputs, outputs, attributes)
}

pub fn node_of(domain: &str, name: &str, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Piece {
    let bytes = message(|w| {
        inputs.iter().for_each(|name| w.bytes(n::INPUT, name.as_bytes()));
        outputs.iter().for_each(|name| w.bytes(n::OUTPUT, name.as_bytes()));
        w.bytes(n::NAME, name.as_bytes());
        w.bytes(n::OP_TYPE, op.as_bytes());
        attributes.iter().for_each(|bytes| w.bytes(n::ATTRIBUTE, bytes));
        w.bytes(n::DOMAIN, domain.as_bytes());
    });
    (graph::NODE, bytes)
}

fn attribute_of(name: &str, kind: i64, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    message(|w| {
        w.bytes(attribute::NAME, name.as_bytes());
        write(w);
        w.int(attribute::TYPE, kind);
    })
}

pub fn int(name: &str, value: i64) -> Vec<u8> {
    attribute_of(name, 2, |w| w.int(attribute::INT, value))
}

pub fn float(name: &str, value: f32) -> Vec<u8> {
    attribute_of(name, 1, |w| w.float(attribute::FLOAT, value))
}

pub fn string(name: &str, value: &str) -> Vec<u8> {
    attribute_of(name, 3, |w| w.bytes(attribute::STRING, value.as_bytes()))
}

pub fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    attribute_of(name, 7, |w| values.iter().for_each(|&v| w.int(attribute::INTS, v)))
}

pub fn floats(name: &str, values: &[f32]) -> Vec<u8> {
    attribute_of(name, 6, |w| values.iter().for_each(|&v| w.float(attribute::FLOATS, v)))
}

/// An attribute that holds a message (a tensor, a graph, …).
pub fn nested(name: &str, kind: i64, number: u32, bytes: &[u8]) -> Vec<u8> {
    attribute_of(name, kind, |w| w.bytes(number, bytes))
}

pub fn tensor_attribute(name: &str, tensor: &[u8]) -> Vec<u8> {
    nested(name, 4, attribute::TENSOR, tensor)
}

/// A tensor message; `data` writes the elements.
pub fn tensor(name: &str, data_type: i64, dims: &[i64], data: impl FnOnce(&mut Writer)) -> Vec<u8> {
    message(|w| {
        dims.iter().for_each(|&dim| w.int(t::DIMS, dim));
        w.int(t::DATA_TYPE, data_type);
        w.bytes(t::NAME, name.as_bytes());
        data(w);
    })
}

pub fn raw(bytes: &[u8]) -> impl FnOnce(&mut Writer) + '_ {
    |w| w.bytes(t::RAW_DATA, bytes)
}

pub fn initializer(tensor: Vec<u8>) -> Piece {
    (graph::INITIALIZER, tensor)
}

pub fn floats_initializer(name: &str, dims: &[i64], values: &[f32]) -> Piece {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    initializer(tensor(name, F32, dims, raw(&bytes)))
}

pub fn ints_initializer(name: &str, values: &[i64]) -> Piece {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    initializer(tensor(name, I64, &[values.len() as i64], raw(&bytes)))
}
