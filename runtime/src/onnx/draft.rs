//! A node on its way from the file into the graph: names instead of values, attributes still by name. The upgrade
//! rules rewrite it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::messages::{AttributeProto, NodeProto, field::attribute as f};
use super::tensor;
use crate::error::{Refusal, Result};
use crate::graph::Tensor;
use crate::ops::{Attr, Attrs, OpError};

const REPAIR: &str = "repair the model or export it again";

/// An input of a draft.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// Left out.
    None,
    /// A value of the file.
    Named(&'a str),
    /// What an attribute said in an older opset; the text ends the name of the new initializer.
    Constant(&'static str, Tensor),
}

/// A node that is being read.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// Its name; may be empty.
    pub name: &'a str,
    /// The operator's name.
    pub op_type: &'a str,
    /// Its inputs.
    pub inputs: Vec<Source<'a>>,
    /// Its outputs; empty where nobody wants one. Trailing ones are cut off.
    pub outputs: Vec<&'a str>,
    /// How many outputs the file states, those at the end that nobody wants among them.
    pub stated_outputs: usize,
    /// Its attributes.
    pub attrs: Attrs,
    /// Outputs that an upgrade dropped: if anything reads one, the model is refused.
    pub dropped: Vec<&'a str>,
    /// Element types that attributes were converted from.
    pub converted: Vec<&'static str>,
}

/// How messages name a node: ``node 3 `/stem/Conv` (Conv)``.
pub fn place(index: usize, proto: &NodeProto<'_>) -> String {
    let domain = if proto.domain.is_empty() { String::new() } else { format!("{}:", proto.domain) };
    if proto.name.is_empty() {
        format!("node {index} ({domain}{})", proto.op_type)
    } else {
        format!("node {index} `{}` ({domain}{})", proto.name, proto.op_type)
    }
}

impl<'a> Draft<'a> {
    /// Decodes the attributes of a node.
    pub fn read(proto: NodeProto<'a>, place: &str) -> Result<Self> {
        let mut draft = Self {
            name: proto.name,
            op_type: proto.op_type,
            inputs: (proto.inputs.into_iter())
                .map(|name| if name.is_empty() { Source::None } else { Source::Named(name) })
                .collect(),
            stated_outputs: proto.outputs.len(),
            outputs: proto.outputs,
            attrs: Attrs::new(),
            dropped: Vec::new(),
            converted: Vec::new(),
        };
        while matches!(draft.inputs.last(), Some(Source::None)) {
            draft.inputs.pop();
        }
        while draft.outputs.len() > 1 && draft.outputs.last().is_some_and(|name| name.is_empty()) {
            draft.outputs.pop();
        }
        let mut seen = alloc::collections::BTreeSet::new();
        for message in proto.attributes {
            let attribute = AttributeProto::read(message)?;
            if attribute.name.is_empty() || !seen.insert(attribute.name) {
                let found = format!("`{}`", attribute.name);
                return Err(Refusal::new(place, "attributes with names of their own", found, REPAIR));
            }
            let attr = draft.read_attr(&attribute, place)?;
            draft.attrs.0.push((attribute.name.to_string(), attr));
        }
        Ok(draft)
    }

    fn read_attr(&mut self, proto: &AttributeProto<'a>, place: &str) -> Result<Attr> {
        let named = format!("{place}: attribute `{}`", proto.name);
        let refuse = |found: &str| {
            let expected = "a number, a string, a tensor, or a list of numbers or strings";
            Err(Refusal::new(&named, expected, found, "export the model without it"))
        };
        if proto.is_reference {
            return refuse("a reference to an attribute of a function");
        }
        Ok(match proto.kind {
            1 => {
                let mut value = 0.0;
                proto.each(f::FLOAT, |field| field.float().map(|v| value = v))?;
                Attr::Float(value)
            }
            2 => {
                let mut value = 0;
                proto.each(f::INT, |field| field.int().map(|v| value = v))?;
                Attr::Int(value)
            }
            3 => {
                let mut value = "";
                proto.each(f::STRING, |field| field.text().map(|v| value = v))?;
                Attr::String(value.to_string())
            }
            4 => {
                let mut message = None;
                proto.each(f::TENSOR, |field| field.bytes().map(|v| message = Some(v)))?;
                let Some(message) = message else { return refuse("a tensor that is not there") };
                let read = tensor::decode(&super::messages::TensorProto::read(message)?, &named)?;
                self.converted.extend(read.converted);
                Attr::Tensor(read.tensor)
            }
            5 | 10 => return refuse("a graph inside the graph"),
            6 => {
                let mut values = Vec::new();
                proto.each(f::FLOATS, |field| {
                    field.each_float(|v| {
                        values.push(v);
                        Ok(())
                    })
                })?;
                Attr::Floats(values)
            }
            7 => {
                let mut values = Vec::new();
                proto.each(f::INTS, |field| {
                    field.each_int(|v| {
                        values.push(v);
                        Ok(())
                    })
                })?;
                Attr::Ints(values)
            }
            8 => {
                let mut values = Vec::new();
                proto.each(f::STRINGS, |field| field.text().map(|v| values.push(v.to_string())))?;
                Attr::Strings(values)
            }
            9 => return refuse("a list of tensors"),
            11 | 12 => return refuse("a sparse tensor"),
            13 | 14 => return refuse("a type"),
            other => return refuse(&format!("attribute type {other}")),
        })
    }

    /// Appends an input that older opsets said with an attribute; leaves out the ones between.
    /// Refuses if the node has that input already.
    pub fn set_constant(
        &mut self,
        input: usize,
        suffix: &'static str,
        tensor: Tensor,
    ) -> core::result::Result<(), OpError> {
        if !matches!(self.inputs.get(input), None | Some(Source::None)) {
            return Err(OpError::new(format!("`{suffix}` as an attribute or as an input"), "both"));
        }
        while self.inputs.len() <= input {
            self.inputs.push(Source::None);
        }
        self.inputs[input] = Source::Constant(suffix, tensor);
        Ok(())
    }

    /// Turns the attribute `name`, a list of integers, into the input of that place (i64).
    pub fn ints_to_input(&mut self, name: &'static str, input: usize) -> core::result::Result<(), OpError> {
        let Some(values) = self.attrs.ints(name)? else { return Ok(()) };
        let Some(tensor) = Tensor::new(alloc::vec![values.len()], crate::graph::Data::I64(values)) else {
            return Ok(());
        };
        self.set_constant(input, name, tensor)
    }

    /// Turns the attribute `name`, a float, into the rank-0 input of that place.
    pub fn float_to_input(&mut self, name: &'static str, input: usize) -> core::result::Result<(), OpError> {
        match self.attrs.take(name) {
            None => Ok(()),
            Some(Attr::Float(value)) => self.set_constant(input, name, Tensor::scalar(value)),
            Some(_) => Err(OpError::new(format!("a float as attribute `{name}`"), "another type")),
        }
    }

    /// Drops the outputs from `keep` on, which mean something in training only.
    pub fn drop_outputs(&mut self, keep: usize) {
        let extra = self.outputs.split_off(keep.min(self.outputs.len()));
        self.dropped.extend(extra.into_iter().filter(|name| !name.is_empty()));
    }
}
