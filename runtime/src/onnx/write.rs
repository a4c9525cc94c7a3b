//! From a graph to bytes: opset 21, IR 10, the same bytes for the same graph.

use alloc::string::String;
use alloc::vec::Vec;

use super::messages::{
    field::{attribute, graph as g, model, node as n, opset, tensor as t, type_proto, value_info},
    type_code,
};
use super::wire::Writer;
use crate::graph::{Data, Dim, Graph, Node, Tensor, Value};
use crate::ops::Attr;

/// The version of the file format that is written.
pub const IR_VERSION: i64 = 10;
/// The version of the operators that is written: the normal form.
pub const OPSET: i64 = 21;

/// Writes a validated graph: opset 21, IR 10, deterministic, every value shaped, the batch symbol as `N`.
///
/// Initializers are not listed among the inputs; elements are raw and little-endian; rank-0 tensors stay rank 0.
pub fn write(graph: &Graph) -> Vec<u8> {
    let mut file = Writer::default();
    file.int(model::IR_VERSION, IR_VERSION);
    file.bytes(model::PRODUCER_NAME, b"kd");
    file.bytes(model::PRODUCER_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    file.message(model::GRAPH, |w| write_graph(w, graph));
    file.message(model::OPSET_IMPORT, |w| {
        w.bytes(opset::DOMAIN, b"");
        w.int(opset::VERSION, OPSET);
    });
    file.finish()
}

fn write_graph(w: &mut Writer, graph: &Graph) {
    for node in &graph.nodes {
        w.message(g::NODE, |w| write_node(w, graph, node));
    }
    w.bytes(g::NAME, graph.name.as_bytes());
    for (&id, tensor) in &graph.initializers {
        w.message(g::INITIALIZER, |w| write_tensor(w, &graph.value(id).name, tensor));
    }
    for &id in &graph.inputs {
        w.message(g::INPUT, |w| write_value(w, graph.value(id)));
    }
    for &id in &graph.outputs {
        w.message(g::OUTPUT, |w| write_value(w, graph.value(id)));
    }
    let is_output = {
        let mut is_output = alloc::vec![false; graph.values.len()];
        graph.outputs.iter().for_each(|id| is_output[id.index()] = true);
        is_output
    };
    for &id in graph.nodes.iter().flat_map(|node| &node.outputs).filter(|id| !is_output[id.index()]) {
        w.message(g::VALUE_INFO, |w| write_value(w, graph.value(id)));
    }
}

fn write_node(w: &mut Writer, graph: &Graph, node: &Node) {
    for input in &node.inputs {
        w.bytes(n::INPUT, input.map_or("", |id| graph.value(id).name.as_str()).as_bytes());
    }
    for &output in &node.outputs {
        w.bytes(n::OUTPUT, graph.value(output).name.as_bytes());
    }
    if !node.name.is_empty() {
        w.bytes(n::NAME, node.name.as_bytes());
    }
    w.bytes(n::OP_TYPE, node.op.name().as_bytes());
    for (name, attr) in &node.op.def().attrs().0 {
        w.message(n::ATTRIBUTE, |w| write_attribute(w, name, attr));
    }
}

fn write_attribute(w: &mut Writer, name: &str, attr: &Attr) {
    w.bytes(attribute::NAME, name.as_bytes());
    let kind = match attr {
        Attr::Float(v) => {
            w.float(attribute::FLOAT, *v);
            1
        }
        Attr::Int(v) => {
            w.int(attribute::INT, *v);
            2
        }
        Attr::String(v) => {
            w.bytes(attribute::STRING, v.as_bytes());
            3
        }
        Attr::Tensor(v) => {
            w.message(attribute::TENSOR, |w| write_tensor(w, "", v));
            4
        }
        Attr::Floats(values) => {
            values.iter().for_each(|&v| w.float(attribute::FLOATS, v));
            6
        }
        Attr::Ints(values) => {
            values.iter().for_each(|&v| w.int(attribute::INTS, v));
            7
        }
        Attr::Strings(values) => {
            values.iter().for_each(|v: &String| w.bytes(attribute::STRINGS, v.as_bytes()));
            8
        }
    };
    w.int(attribute::TYPE, kind);
}

fn write_tensor(w: &mut Writer, name: &str, tensor: &Tensor) {
    for &dim in tensor.shape() {
        w.int(t::DIMS, size(dim));
    }
    w.int(t::DATA_TYPE, type_code(tensor.element()));
    if !name.is_empty() {
        w.bytes(t::NAME, name.as_bytes());
    }
    w.bytes(t::RAW_DATA, &raw(tensor.data()));
}

/// The elements, little-endian.
fn raw(data: &Data) -> Vec<u8> {
    match data {
        Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U8(v) => v.clone(),
        Data::I8(v) => v.iter().map(|x| x.cast_unsigned()).collect(),
        Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
    }
}

fn write_value(w: &mut Writer, value: &Value) {
    w.bytes(value_info::NAME, value.name.as_bytes());
    w.message(value_info::TYPE, |w| {
        w.message(type_proto::TENSOR, |w| {
            w.int(type_proto::ELEM_TYPE, type_code(value.element));
            w.message(type_proto::SHAPE, |w| {
                for dim in &value.shape.0 {
                    w.message(type_proto::DIM, |w| match *dim {
                        Dim::Known(n) => w.int(type_proto::DIM_VALUE, size(n)),
                        Dim::Batch => w.bytes(type_proto::DIM_PARAM, b"N"),
                    });
                }
            });
        });
    });
}

fn size(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
