//! Weights as safetensors: the initializers of the ONNX file beside it, under the same names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use kd_runtime::graph::{Data, ElementType, Graph, Slice, Tensor};
use kd_runtime::{Refusal, Result};
use safetensors::tensor::{Dtype, SafeTensors, View, serialize};

/// What the metadata says under `schema`.
pub const SCHEMA: &str = "kd.weights/1";

/// A tensor as the crate wants to see it.
struct Stored<'a>(&'a Tensor);

fn dtype(element: ElementType) -> Option<Dtype> {
    match element {
        ElementType::F32 => Some(Dtype::F32),
        ElementType::U8 => Some(Dtype::U8),
        ElementType::I8 => Some(Dtype::I8),
        ElementType::I32 => Some(Dtype::I32),
        _ => None,
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        dtype(self.0.element()).unwrap_or(Dtype::F32)
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match self.0.data().view() {
            Slice::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Slice::I32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Slice::U8(values) => values.to_vec(),
            Slice::I8(values) => values.iter().map(|x| x.cast_unsigned()).collect(),
            _ => Vec::new(),
        })
    }

    fn data_len(&self) -> usize {
        self.0.bytes()
    }
}

/// What the format calls its own entry.
const METADATA: &str = "__metadata__";

fn write(graph: &Graph, kept: impl Fn(ElementType) -> bool) -> Result<Vec<u8>> {
    let tensors: BTreeMap<&str, Stored<'_>> = (graph.initializers.iter())
        .filter(|(_, tensor)| kept(tensor.element()) && dtype(tensor.element()).is_some())
        .map(|(&id, tensor)| (graph.value(id).name.as_str(), Stored(tensor)))
        .collect();
    if tensors.contains_key(METADATA) {
        return Err(Refusal::new(
            "safetensors",
            "another name of a tensor",
            format!("`{METADATA}`"),
            "rename the weights",
        ));
    }
    let metadata = HashMap::from([("schema".to_string(), SCHEMA.to_string())]);
    serialize(tensors, Some(metadata))
        .map_err(|error| Refusal::new("safetensors", "tensors that can be stored", error, "rename the weights"))
}

/// The float initializers of a network, in a fixed order.
pub fn write_float(graph: &Graph) -> Result<Vec<u8>> {
    write(graph, |element| element == ElementType::F32)
}

/// All initializers of a quantized network but shapes: int8 weights, int32 biases, scales, zero points, and what stays
/// float.
pub fn write_int8(graph: &Graph) -> Result<Vec<u8>> {
    write(graph, |_| true)
}

/// Reads a file; every length is checked against the bytes that are there.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let refuse = |expected: &str, found: &dyn std::fmt::Display| {
        Refusal::new("safetensors", expected, found, "copy or export the file again")
    };
    let file = SafeTensors::deserialize(bytes).map_err(|error| refuse("a whole safetensors file", &error))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let data = view.data();
        let words = || data.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(words().map(f32::from_le_bytes).collect()),
            Dtype::I32 => Data::I32(words().map(i32::from_le_bytes).collect()),
            Dtype::U8 => Data::U8(data.to_vec()),
            Dtype::I8 => Data::I8(data.iter().map(|x| x.cast_signed()).collect()),
            other => return Err(refuse("tensors of f32, i32, i8 or u8", &format!("`{name}` {other:?}"))),
        };
        let tensor = Tensor::new(view.shape().to_vec(), data);
        let tensor = tensor.ok_or_else(|| refuse("as many elements as the shape says", &format!("`{name}`")))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let mut graph = Graph::new("weights");
        graph.add_initializer("b", Tensor::from_vec(&[2], vec![1.5_f32, -0.0]));
        graph.add_initializer("a", Tensor::from_vec(&[1, 3], vec![-128_i8, 0, 127]));
        graph.add_initializer("c", Tensor::scalar(7_u8));
        graph.add_initializer("d", Tensor::from_vec(&[1], vec![i32::MIN]));
        graph.add_initializer("shape", Tensor::from_vec(&[1], vec![4_i64]));
        graph
    }

    #[test]
    fn a_tensor_called_like_the_formats_own_entry_is_refused() {
        let mut graph = graph();
        graph.add_initializer("__metadata__", Tensor::scalar(1.0_f32));
        let line = write_float(&graph).unwrap_err().to_string();
        assert!(line.contains("expected another name of a tensor, found `__metadata__`"), "{line}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = write_int8(&graph()).unwrap();
        assert_eq!(bytes, write_int8(&graph()).unwrap(), "the same bytes every time");
        let read = read(&bytes).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        for (id, tensor) in graph().initializers.iter().filter(|(_, t)| t.element() != ElementType::I64) {
            assert_eq!(read[&graph().value(*id).name], *tensor);
        }
        assert_eq!(super::read(&write_float(&graph()).unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn damaged_files_are_refused_or_read_and_never_panic() {
        let bytes = write_int8(&graph()).unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = read(&damaged);
        }
    }
}
