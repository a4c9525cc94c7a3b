//! From bytes to a graph in normal form.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::draft::{self, Draft, Source};
use super::messages::{
    self, DimProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, field, type_name,
};
use super::wire::Bytes;
use super::{Model, constant, lint, tensor, upgrade};
use crate::error::{Refusal, Result};
use crate::graph::{Dim, ElementType, Graph, Node, Shape, Tensor, Value, ValueId};
use crate::nearest::nearest;
use crate::ops::{Op, OpError, table};

/// Versions of the file format that are read.
pub const IR_VERSIONS: [i64; 2] = [3, 14];
const REPAIR: &str = "repair the model or export it again";

/// Reads a model. Refuses, in one line, what is not a model, what is not supported and what the lint finds.
pub fn read(bytes: &[u8]) -> Result<Model> {
    read_with(bytes, &[])
}

/// Reads a model whose inputs of these names are known: they become constants. For models that take a shape, axes or
/// pads as an input, which a graph has to know. Names that are no inputs are ignored.
pub fn read_with(bytes: &[u8], known: &[(&str, &Tensor)]) -> Result<Model> {
    read_model(bytes, known).map_err(shortened)
}

fn read_model(bytes: &[u8], known: &[(&str, &Tensor)]) -> Result<Model> {
    if bytes.is_empty() {
        return Err(Refusal::new("", "an ONNX model", "0 bytes", "get the file again"));
    }
    let model = ModelProto::read(Bytes::whole(bytes))?;
    let (graph, opset) = check_model(&model)?;
    let mut reader = Reader { opset, ..Reader::default() };
    reader.graph.name = graph.name.to_string();
    reader.read_initializers(&graph)?;
    reader.read_inputs(&graph, known)?;
    reader.read_nodes(&graph)?;
    reader.read_outputs(&graph)?;
    reader.finish()
}

/// The operators that a model's nodes name, each once, sorted; of other domains as `DOMAIN:NAME`. Reads no more than
/// that: also of models that [`read`] refuses.
pub fn operators(bytes: &[u8]) -> Result<Vec<String>> {
    let Some(graph) = ModelProto::read(Bytes::whole(bytes))?.graph else {
        return Err(no_graph());
    };
    let mut names = BTreeSet::new();
    let mut messages = GraphProto::read(graph)?.messages(field::graph::NODE);
    while let Some(message) = messages.next_message()? {
        let NodeProto { domain, op_type, .. } = NodeProto::read(message)?;
        names.insert(match messages::is_default_domain(domain) {
            true => op_type.to_string(),
            false => format!("{domain}:{op_type}"),
        });
    }
    Ok(names.into_iter().collect())
}

fn no_graph() -> Refusal {
    Refusal::new("model", "a graph", "none", "check that the file is an ONNX model")
}

/// A file may hold names and lists of any length; a line that people read may not.
fn shortened(mut refusal: Refusal) -> Refusal {
    const MOST_CHARS: usize = 240;
    for part in [&mut refusal.at, &mut refusal.expected, &mut refusal.found, &mut refusal.action] {
        if let Some((end, _)) = part.char_indices().nth(MOST_CHARS) {
            let left_out = part.chars().count() - MOST_CHARS;
            part.truncate(end);
            part.push_str(&format!("… ({left_out} more characters)"));
        }
    }
    refusal
}

/// Checks versions; the graph and the opset (0 where the default domain is not imported).
fn check_model<'a>(model: &ModelProto<'a>) -> Result<(GraphProto<'a>, i64)> {
    let [oldest, newest] = IR_VERSIONS;
    if model.ir_version < oldest || model.ir_version > newest {
        let found = if model.ir_version == 0 { "none".to_string() } else { model.ir_version.to_string() };
        let action = "convert the model with a newer exporter, or check that the file is an ONNX model";
        return Err(Refusal::new("model", format!("IR version {oldest} to {newest}"), found, action));
    }
    if model.has_functions {
        let action = "inline them when exporting (onnx.inliner)";
        return Err(Refusal::new("model", "a model without functions of its own", "local functions", action));
    }
    let Some(graph) = model.graph else {
        return Err(no_graph());
    };
    let [oldest, newest] = [upgrade::OLDEST_OPSET, upgrade::NEWEST_OPSET];
    if let Some(opset) = model.opset.filter(|&v| v < oldest || v > newest) {
        let action = "convert the model with onnx.version_converter or export it again";
        return Err(Refusal::new("model", format!("opset {oldest} to {newest}"), opset, action));
    }
    let graph = GraphProto::read(graph)?;
    if graph.has_sparse {
        return Err(Refusal::new("model", "dense initializers", "a sparse one", "store it as a dense tensor"));
    }
    Ok((graph, model.opset.unwrap_or(0)))
}

#[derive(Default)]
struct Reader<'a> {
    opset: i64,
    graph: Graph,
    ids: BTreeMap<&'a str, ValueId>,
    /// Values that get their names at the end, when all names of the file are known: what the name begins with.
    unnamed: Vec<(ValueId, String)>,
    /// Outputs that an upgrade dropped, and their node.
    dropped: Vec<(&'a str, String)>,
    /// Outputs of operators that are finished after shapes are known.
    pending: Vec<ValueId>,
    /// How many tensors were converted from each type.
    converted: BTreeMap<&'static str, usize>,
}

impl<'a> Reader<'a> {
    /// The value of a name, which may come later in the file.
    fn value(&mut self, name: &'a str) -> Result<ValueId> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let id = self.push(name)?;
        self.ids.insert(name, id);
        Ok(id)
    }

    fn push(&mut self, name: &str) -> Result<ValueId> {
        let Ok(id) = u32::try_from(self.graph.values.len()) else {
            return Err(Refusal::new("model", "fewer than 2^32 values", "more", "use a smaller model"));
        };
        let value = Value { name: name.to_string(), element: ElementType::F32, shape: Shape::default() };
        self.graph.values.push(value);
        Ok(ValueId(id))
    }

    fn unnamed(&mut self, base: String) -> Result<ValueId> {
        let id = self.push("")?;
        self.unnamed.push((id, base));
        Ok(id)
    }

    fn insert_initializer(&mut self, id: ValueId, tensor: Tensor) {
        if let Some(value) = self.graph.values.get_mut(id.index()) {
            value.element = tensor.element();
            value.shape = Shape::known(tensor.shape());
        }
        self.graph.initializers.insert(id, tensor);
    }

    fn read_initializers(&mut self, graph: &GraphProto<'a>) -> Result<()> {
        let mut messages = graph.messages(field::graph::INITIALIZER);
        while let Some(message) = messages.next_message()? {
            let proto = TensorProto::read(message)?;
            let place = format!("initializer `{}`", proto.name);
            if proto.name.is_empty() || self.ids.contains_key(proto.name) {
                let found = if proto.name.is_empty() { "none" } else { "a second one of this name" };
                return Err(Refusal::new(place, "a name of its own", found, REPAIR));
            }
            let read = tensor::decode(&proto, &place)?;
            self.note_conversions(read.converted);
            let id = self.value(proto.name)?;
            self.insert_initializer(id, read.tensor);
        }
        Ok(())
    }

    fn note_conversions(&mut self, types: impl IntoIterator<Item = &'static str>) {
        for name in types {
            *self.converted.entry(name).or_default() += 1;
        }
    }

    fn read_inputs(&mut self, graph: &GraphProto<'a>, known: &[(&str, &Tensor)]) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut messages = graph.messages(field::graph::INPUT);
        while let Some(message) = messages.next_message()? {
            let info = ValueInfoProto::read(message)?;
            let place = format!("input `{}`", info.name);
            if info.name.is_empty() || !seen.insert(info.name) {
                let found = if info.name.is_empty() { "none" } else { "a second one of this name" };
                return Err(Refusal::new(place, "a name of its own", found, REPAIR));
            }
            // IR 3 lists initializers among the inputs; later versions mean a default by it. Both are constants here.
            if self.ids.contains_key(info.name) {
                continue;
            }
            if let Some((_, tensor)) = known.iter().find(|(name, _)| *name == info.name) {
                let id = self.value(info.name)?;
                self.insert_initializer(id, (*tensor).clone());
                continue;
            }
            let (element, shape) = input_type(&info, &place)?;
            let id = self.value(info.name)?;
            if let Some(value) = self.graph.values.get_mut(id.index()) {
                value.element = element;
                value.shape = shape;
            }
            self.graph.inputs.push(id);
        }
        Ok(())
    }

    fn read_nodes(&mut self, graph: &GraphProto<'a>) -> Result<()> {
        let mut messages = graph.messages(field::graph::NODE);
        let mut index = 0;
        while let Some(message) = messages.next_message()? {
            let proto = NodeProto::read(message)?;
            let place = draft::place(index, &proto);
            self.check_operator(&proto, &place)?;
            let mut draft = Draft::read(proto, &place)?;
            self.note_conversions(core::mem::take(&mut draft.converted));
            if draft.op_type == "Constant" {
                self.add_constant(draft, &place)?;
            } else {
                self.add_node(draft, index, &place)?;
            }
            index += 1;
        }
        Ok(())
    }

    fn check_operator(&self, proto: &NodeProto<'_>, place: &str) -> Result<()> {
        let name = proto.op_type;
        if !messages::is_default_domain(proto.domain) {
            let found = format!("`{name}` of domain `{}`", proto.domain);
            return Err(Refusal::new(place, "operators of domain ai.onnx", found, "export the model without it"));
        }
        if self.opset == 0 {
            let expected = "a model that imports an opset of domain ai.onnx";
            return Err(Refusal::new(place, expected, "none", REPAIR));
        }
        if name != "Constant" && !table::NAMES.contains(&name) {
            let near = nearest(name, table::NAMES).filter(|near| near.chars().next() == name.chars().next());
            let near = near.map_or(String::new(), |near| format!("the nearest known one is `{near}`; "));
            let action = format!("{near}export the model without `{name}`, or run it with --backend ort");
            return Err(Refusal::new(place, "an operator that kd knows", format!("`{name}`"), action));
        }
        Ok(())
    }

    fn add_constant(&mut self, draft: Draft<'a>, place: &str) -> Result<()> {
        let [name] = draft.outputs[..] else {
            return Err(Refusal::new(place, "1 output", draft.outputs.len(), REPAIR));
        };
        if name.is_empty() {
            return Ok(());
        }
        let refuse = |e: OpError| Refusal::new(place, e.expected, e.found, REPAIR);
        let tensor = constant::value(draft).map_err(refuse)?;
        let id = self.value(name)?;
        if self.graph.initializers.contains_key(&id) {
            return Err(Refusal::new(place, "an output name of its own", format!("`{name}` a second time"), REPAIR));
        }
        self.insert_initializer(id, tensor);
        Ok(())
    }

    fn add_node(&mut self, mut draft: Draft<'a>, index: usize, place: &str) -> Result<()> {
        let refuse = |e: OpError| Refusal::new(place, e.expected, e.found, REPAIR);
        upgrade::apply(&mut draft, self.opset).map_err(refuse)?;
        let op = match Op::read(draft.op_type, draft.attrs) {
            Some(op) => op.map_err(refuse)?,
            None => return Err(Refusal::new(place, "an operator that kd knows", draft.op_type, REPAIR)),
        };
        op.check_outputs(draft.outputs.len()).map_err(refuse)?;
        let base = match draft.outputs.iter().find(|name| !name.is_empty()) {
            Some(name) => (*name).to_string(),
            None => format!("node_{index}"),
        };
        let mut inputs = Vec::with_capacity(draft.inputs.len());
        for source in draft.inputs {
            inputs.push(match source {
                Source::None => None,
                Source::Named(name) => Some(self.value(name)?),
                Source::Constant(suffix, tensor) => {
                    let id = self.unnamed(format!("{base}.{suffix}"))?;
                    self.insert_initializer(id, tensor);
                    Some(id)
                }
            });
        }
        let mut outputs = Vec::with_capacity(draft.outputs.len());
        for (i, name) in draft.outputs.iter().enumerate() {
            outputs.push(match name.is_empty() {
                true => self.unnamed(format!("node_{index}.output_{i}"))?,
                false => self.value(name)?,
            });
        }
        if upgrade::needs_shapes(&op, self.opset) {
            self.pending.extend(outputs.first());
        }
        self.dropped.extend(draft.dropped.into_iter().map(|name| (name, place.to_string())));
        self.graph.nodes.push(Node { name: draft.name.to_string(), op, inputs, outputs });
        Ok(())
    }

    fn read_outputs(&mut self, graph: &GraphProto<'a>) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut messages = graph.messages(field::graph::OUTPUT);
        while let Some(message) = messages.next_message()? {
            let info = ValueInfoProto::read(message)?;
            let place = format!("output `{}`", info.name);
            if info.name.is_empty() || !seen.insert(info.name) {
                let found = if info.name.is_empty() { "none" } else { "a second one of this name" };
                return Err(Refusal::new(place, "a name of its own", found, REPAIR));
            }
            let id = self.value(info.name)?;
            self.graph.outputs.push(id);
        }
        if self.graph.outputs.is_empty() {
            return Err(Refusal::new("graph", "at least one output", "none", REPAIR));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Model> {
        for (name, place) in &self.dropped {
            if self.ids.contains_key(name) {
                let expected = "outputs of training that nothing reads";
                let found = format!("a reader of `{name}`");
                return Err(Refusal::new(place, expected, found, "export the model for inference"));
            }
        }
        self.name_values();
        self.graph.validate()?;
        upgrade::settle(&mut self.graph, &self.pending)?;
        lint::lint(&self.graph)?;
        let notes = (self.converted.iter())
            .map(|(name, count)| match count {
                1 => format!("1 tensor of {name} was converted to f32"),
                _ => format!("{count} tensors of {name} were converted to f32"),
            })
            .collect();
        Ok(Model { graph: self.graph, notes })
    }

    /// Names what the reader made. Each beginning is tried once more for every name of the file that is in its way.
    fn name_values(&mut self) {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        // Numbers that were tried behind each beginning: no one is tried twice.
        let mut tried: BTreeMap<String, u64> = BTreeMap::new();
        for (id, base) in core::mem::take(&mut self.unnamed) {
            let free = |name: &String| !self.ids.contains_key(name.as_str()) && !taken.contains(name);
            let mut name = base.clone();
            let i = tried.entry(base.clone()).or_default();
            while !free(&name) {
                *i += 1;
                name = format!("{base}.{i}");
            }
            taken.insert(name.clone());
            if let Some(value) = self.graph.values.get_mut(id.index()) {
                value.name = name;
            }
        }
    }
}

/// The type of an input. A size that is not known is the batch on axis 0 and refused elsewhere.
fn input_type(info: &ValueInfoProto<'_>, place: &str) -> Result<(ElementType, Shape)> {
    let ty = match info.type_proto {
        Some(message) => TypeProto::read(message)?,
        None => TypeProto::Other("no type"),
    };
    let (elem_type, dims) = match ty {
        TypeProto::Tensor { elem_type, shape } => (elem_type, shape),
        TypeProto::Other(what) => return Err(Refusal::new(place, "a tensor", what, "export the model without it")),
    };
    let Some(element) = messages::element_type(elem_type) else {
        let action = "convert the model to one of these types";
        return Err(Refusal::new(place, "elements of f32, u8, i8, i32, i64 or bool", type_name(elem_type), action));
    };
    let Some(dims) = dims else {
        return Err(Refusal::new(place, "a shape", "none", "export the model with fixed input shapes"));
    };
    let shape = dims.iter().enumerate().map(|(axis, dim)| match *dim {
        DimProto::Value(n) if n >= 1 => usize::try_from(n)
            .ok()
            .filter(|&n| n <= crate::graph::infer::MOST_ELEMENTS)
            .map(Dim::Known)
            .ok_or_else(|| Refusal::new(place, "sizes of at most 2^31", n, REPAIR)),
        DimProto::Value(-1 | 0) | DimProto::Symbol(_) if axis == 0 => Ok(Dim::Batch),
        _ => {
            let expected = "fixed sizes (the first may be the batch)";
            let action = "export the model with that size fixed";
            Err(Refusal::new(place, expected, format!("`{dim}` on axis {axis}"), action))
        }
    });
    Ok((element, Shape(shape.collect::<Result<_>>()?)))
}
