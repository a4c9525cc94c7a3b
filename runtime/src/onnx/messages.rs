//! The messages of `onnx.proto` that we read and write.
//!
//! A message borrows the file. Repeated messages (nodes, initializers, inputs, attributes) stay bytes until someone
//! walks over them, so reading a message allocates at most a few words for each of its strings.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::wire::{Bytes, Field, Fields, damaged};
use crate::error::Result;
pub use crate::ops::attrs::{element_type, type_code};

/// The name of a `TensorProto.DataType`, ours or not, for messages.
pub fn type_name(code: i64) -> &'static str {
    const NAMES: [&str; 28] = [
        "undefined",
        "f32",
        "u8",
        "i8",
        "u16",
        "i16",
        "i32",
        "i64",
        "string",
        "bool",
        "f16",
        "f64",
        "u32",
        "u64",
        "complex64",
        "complex128",
        "bf16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "u4",
        "i4",
        "float4e2m1",
        "float8e8m0",
        "u2",
        "i2",
        "float6",
    ];
    usize::try_from(code).ok().and_then(|i| NAMES.get(i)).copied().unwrap_or("a type that ONNX does not know")
}

/// Field numbers that reader and writer share.
#[allow(missing_docs)]
pub mod field {
    pub mod model {
        pub const IR_VERSION: u32 = 1;
        pub const PRODUCER_NAME: u32 = 2;
        pub const PRODUCER_VERSION: u32 = 3;
        pub const GRAPH: u32 = 7;
        pub const OPSET_IMPORT: u32 = 8;
        pub const FUNCTIONS: u32 = 25;
    }
    pub mod opset {
        pub const DOMAIN: u32 = 1;
        pub const VERSION: u32 = 2;
    }
    pub mod graph {
        pub const NODE: u32 = 1;
        pub const NAME: u32 = 2;
        pub const INITIALIZER: u32 = 5;
        pub const INPUT: u32 = 11;
        pub const OUTPUT: u32 = 12;
        pub const VALUE_INFO: u32 = 13;
        pub const SPARSE_INITIALIZER: u32 = 15;
    }
    pub mod node {
        pub const INPUT: u32 = 1;
        pub const OUTPUT: u32 = 2;
        pub const NAME: u32 = 3;
        pub const OP_TYPE: u32 = 4;
        pub const ATTRIBUTE: u32 = 5;
        pub const DOMAIN: u32 = 7;
    }
    pub mod attribute {
        pub const NAME: u32 = 1;
        pub const FLOAT: u32 = 2;
        pub const INT: u32 = 3;
        pub const STRING: u32 = 4;
        pub const TENSOR: u32 = 5;
        pub const GRAPH: u32 = 6;
        pub const FLOATS: u32 = 7;
        pub const INTS: u32 = 8;
        pub const STRINGS: u32 = 9;
        pub const TENSORS: u32 = 10;
        pub const GRAPHS: u32 = 11;
        pub const TYPE_PROTO: u32 = 14;
        pub const TYPE_PROTOS: u32 = 15;
        pub const TYPE: u32 = 20;
        pub const REF_NAME: u32 = 21;
        pub const SPARSE_TENSOR: u32 = 22;
        pub const SPARSE_TENSORS: u32 = 23;
    }
    pub mod tensor {
        pub const DIMS: u32 = 1;
        pub const DATA_TYPE: u32 = 2;
        pub const SEGMENT: u32 = 3;
        pub const FLOAT_DATA: u32 = 4;
        pub const INT32_DATA: u32 = 5;
        pub const STRING_DATA: u32 = 6;
        pub const INT64_DATA: u32 = 7;
        pub const NAME: u32 = 8;
        pub const RAW_DATA: u32 = 9;
        pub const DOUBLE_DATA: u32 = 10;
        pub const UINT64_DATA: u32 = 11;
        pub const EXTERNAL_DATA: u32 = 13;
        pub const DATA_LOCATION: u32 = 14;
    }
    pub mod entry {
        pub const KEY: u32 = 1;
        pub const VALUE: u32 = 2;
    }
    pub mod value_info {
        pub const NAME: u32 = 1;
        pub const TYPE: u32 = 2;
    }
    pub mod type_proto {
        pub const TENSOR: u32 = 1;
        pub const SEQUENCE: u32 = 4;
        pub const MAP: u32 = 5;
        pub const OPAQUE: u32 = 7;
        pub const SPARSE: u32 = 8;
        pub const OPTIONAL: u32 = 9;
        pub const ELEM_TYPE: u32 = 1;
        pub const SHAPE: u32 = 2;
        pub const DIM: u32 = 1;
        pub const DIM_VALUE: u32 = 1;
        pub const DIM_PARAM: u32 = 2;
    }
}

fn each<'a>(message: Bytes<'a>, mut f: impl FnMut(Field<'a>) -> Result<()>) -> Result<()> {
    let mut fields = message.fields();
    while let Some(field) = fields.next_field()? {
        f(field)?;
    }
    Ok(())
}

/// Walks over the fields of one number that hold messages.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Messages<'a> {
    /// Those of field `number` in `message`.
    pub fn new(message: Bytes<'a>, number: u32) -> Self {
        Self { fields: message.fields(), number }
    }

    /// The next one.
    pub fn next_message(&mut self) -> Result<Option<Bytes<'a>>> {
        while let Some(field) = self.fields.next_field()? {
            if field.number == self.number {
                return field.bytes().map(Some);
            }
        }
        Ok(None)
    }
}

/// A model file.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelProto<'a> {
    /// Version of the file format; 0 where it is missing.
    pub ir_version: i64,
    /// Version of the default domain (`` or `ai.onnx`), if it is imported.
    pub opset: Option<i64>,
    /// The network.
    pub graph: Option<Bytes<'a>>,
    /// Whether the model brings functions of its own.
    pub has_functions: bool,
}

impl<'a> ModelProto<'a> {
    /// Reads it. Two graphs, or two different versions of the default domain, are refused.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        use field::model as f;
        let mut model = Self::default();
        each(message, |field| {
            match field.number {
                f::IR_VERSION => model.ir_version = field.int()?,
                f::FUNCTIONS => model.has_functions = true,
                f::GRAPH => {
                    let graph = field.bytes()?;
                    if model.graph.replace(graph).is_some() {
                        return Err(damaged(field.at, "one graph", "a second one"));
                    }
                }
                f::OPSET_IMPORT => {
                    let import = OperatorSetId::read(field.bytes()?)?;
                    if is_default_domain(import.domain)
                        && model.opset.replace(import.version).is_some_and(|v| v != import.version)
                    {
                        return Err(damaged(field.at, "one version of the default domain", "two"));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(model)
    }
}

/// Whether a domain is ONNX's own.
pub fn is_default_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// A set of operators and its version.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct OperatorSetId<'a> {
    pub domain: &'a str,
    pub version: i64,
}

impl<'a> OperatorSetId<'a> {
    fn read(message: Bytes<'a>) -> Result<Self> {
        let mut import = Self::default();
        each(message, |field| {
            match field.number {
                field::opset::DOMAIN => import.domain = field.text()?,
                field::opset::VERSION => import.version = field.int()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(import)
    }
}

/// A network.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct GraphProto<'a> {
    pub message: Bytes<'a>,
    pub name: &'a str,
    /// Whether it has sparse initializers.
    pub has_sparse: bool,
}

impl<'a> GraphProto<'a> {
    /// Reads its name; the rest stays bytes.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        let mut graph = Self { message, name: "", has_sparse: false };
        each(message, |field| {
            match field.number {
                field::graph::NAME => graph.name = field.text()?,
                field::graph::SPARSE_INITIALIZER => graph.has_sparse = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(graph)
    }

    /// The messages of one field ([`field::graph`]).
    pub fn messages(&self, number: u32) -> Messages<'a> {
        Messages::new(self.message, number)
    }
}

/// An operator applied.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NodeProto<'a> {
    pub name: &'a str,
    pub op_type: &'a str,
    pub domain: &'a str,
    /// Empty where an optional input is left out.
    pub inputs: Vec<&'a str>,
    /// Empty where nobody wants an output.
    pub outputs: Vec<&'a str>,
    /// Attributes, as messages.
    pub attributes: Vec<Bytes<'a>>,
}

impl<'a> NodeProto<'a> {
    /// Reads it, except for its attributes.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        use field::node as f;
        let mut node = Self::default();
        each(message, |field| {
            match field.number {
                f::INPUT => node.inputs.push(field.text()?),
                f::OUTPUT => node.outputs.push(field.text()?),
                f::NAME => node.name = field.text()?,
                f::OP_TYPE => node.op_type = field.text()?,
                f::DOMAIN => node.domain = field.text()?,
                f::ATTRIBUTE => node.attributes.push(field.bytes()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(node)
    }
}

/// An attribute of a node: its name and kind; the values stay bytes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct AttributeProto<'a> {
    pub message: Bytes<'a>,
    pub name: &'a str,
    /// `AttributeProto.AttributeType`; where a file does not say it, found from the fields; 0 if there are none.
    pub kind: i64,
    /// Whether it refers to an attribute of an enclosing function.
    pub is_reference: bool,
}

impl<'a> AttributeProto<'a> {
    /// Reads name and kind.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        use field::attribute as f;
        let mut attribute = Self { message, name: "", kind: 0, is_reference: false };
        let mut seen = 0;
        each(message, |field| {
            match field.number {
                f::NAME => attribute.name = field.text()?,
                f::TYPE => attribute.kind = field.int()?,
                f::REF_NAME => attribute.is_reference = !field.text()?.is_empty(),
                f::FLOAT => seen = 1,
                f::INT => seen = 2,
                f::STRING => seen = 3,
                f::TENSOR => seen = 4,
                f::GRAPH => seen = 5,
                f::FLOATS => seen = 6,
                f::INTS => seen = 7,
                f::STRINGS => seen = 8,
                f::TENSORS => seen = 9,
                f::GRAPHS => seen = 10,
                f::SPARSE_TENSOR => seen = 11,
                f::SPARSE_TENSORS => seen = 12,
                f::TYPE_PROTO => seen = 13,
                f::TYPE_PROTOS => seen = 14,
                _ => {}
            }
            Ok(())
        })?;
        if attribute.kind == 0 {
            attribute.kind = seen;
        }
        Ok(attribute)
    }

    /// Hands each field of one number to `f`.
    pub fn each(&self, number: u32, mut f: impl FnMut(Field<'a>) -> Result<()>) -> Result<()> {
        each(self.message, |field| if field.number == number { f(field) } else { Ok(()) })
    }
}

/// The most dimensions of a tensor.
pub const MOST_DIMS: usize = crate::graph::infer::MOST_RANK;

/// A tensor: its description; the elements stay bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct TensorProto<'a> {
    pub message: Bytes<'a>,
    pub name: &'a str,
    pub dims: Vec<i64>,
    pub data_type: i64,
    pub raw_data: Option<Bytes<'a>>,
    /// Where the elements are, if they are not in this file.
    pub external: Option<&'a str>,
    pub is_segment: bool,
}

impl<'a> TensorProto<'a> {
    /// Reads the description.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        use field::tensor as f;
        let mut tensor = Self {
            message,
            name: "",
            dims: Vec::new(),
            data_type: 0,
            raw_data: None,
            external: None,
            is_segment: false,
        };
        let (mut location, mut is_external) = (None, false);
        each(message, |field| {
            match field.number {
                f::NAME => tensor.name = field.text()?,
                f::DIMS => field.each_int(|dim| {
                    if tensor.dims.len() == MOST_DIMS {
                        return Err(damaged(field.at, alloc::format!("at most {MOST_DIMS} dimensions"), "more"));
                    }
                    tensor.dims.push(dim);
                    Ok(())
                })?,
                f::DATA_TYPE => tensor.data_type = field.int()?,
                f::RAW_DATA => tensor.raw_data = Some(field.bytes()?),
                f::SEGMENT => tensor.is_segment = true,
                f::DATA_LOCATION => is_external = field.int()? == 1,
                f::EXTERNAL_DATA => {
                    let entry = StringStringEntry::read(field.bytes()?)?;
                    if entry.key == "location" {
                        location = Some(entry.value);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        if is_external || location.is_some() {
            tensor.external = Some(location.unwrap_or(""));
        }
        Ok(tensor)
    }

    /// Hands each field of one number to `f`.
    pub fn each(&self, number: u32, mut f: impl FnMut(Field<'a>) -> Result<()>) -> Result<()> {
        each(self.message, |field| if field.number == number { f(field) } else { Ok(()) })
    }
}

/// A key and a value.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct StringStringEntry<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

impl<'a> StringStringEntry<'a> {
    fn read(message: Bytes<'a>) -> Result<Self> {
        let mut entry = Self::default();
        each(message, |field| {
            match field.number {
                field::entry::KEY => entry.key = field.text()?,
                field::entry::VALUE => entry.value = field.text()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(entry)
    }
}

/// An input or output of the graph.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct ValueInfoProto<'a> {
    pub name: &'a str,
    pub type_proto: Option<Bytes<'a>>,
}

impl<'a> ValueInfoProto<'a> {
    /// Reads it; the type stays bytes.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        let mut info = Self::default();
        each(message, |field| {
            match field.number {
                field::value_info::NAME => info.name = field.text()?,
                field::value_info::TYPE => info.type_proto = Some(field.bytes()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(info)
    }
}

/// One dimension of a declared shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DimProto<'a> {
    Value(i64),
    /// A symbol; empty where the file says nothing.
    Symbol(&'a str),
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum TypeProto<'a> {
    /// A tensor: element type code, and dimensions if they are declared.
    #[allow(missing_docs)]
    Tensor { elem_type: i64, shape: Option<Vec<DimProto<'a>>> },
    /// Something else: its name.
    Other(&'static str),
}

impl<'a> TypeProto<'a> {
    /// Reads it.
    pub fn read(message: Bytes<'a>) -> Result<Self> {
        use field::type_proto as f;
        let mut found = Self::Other("no type");
        each(message, |field| {
            match field.number {
                f::TENSOR => found = Self::read_tensor(field.bytes()?)?,
                f::SEQUENCE => found = Self::Other("a sequence"),
                f::MAP => found = Self::Other("a map"),
                f::OPAQUE => found = Self::Other("an opaque type"),
                f::SPARSE => found = Self::Other("a sparse tensor"),
                f::OPTIONAL => found = Self::Other("an optional"),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn read_tensor(message: Bytes<'a>) -> Result<Self> {
        use field::type_proto as f;
        let (mut elem_type, mut shape) = (0, None);
        each(message, |field| {
            match field.number {
                f::ELEM_TYPE => elem_type = field.int()?,
                f::SHAPE => shape = Some(Self::read_shape(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self::Tensor { elem_type, shape })
    }

    fn read_shape(message: Bytes<'a>) -> Result<Vec<DimProto<'a>>> {
        use field::type_proto as f;
        let mut dims = Vec::new();
        each(message, |field| {
            if field.number != f::DIM {
                return Ok(());
            }
            if dims.len() == MOST_DIMS {
                return Err(damaged(field.at, alloc::format!("at most {MOST_DIMS} dimensions"), "more"));
            }
            let mut dim = DimProto::Symbol("");
            each(field.bytes()?, |field| {
                match field.number {
                    f::DIM_VALUE => dim = DimProto::Value(field.int()?),
                    f::DIM_PARAM => dim = DimProto::Symbol(field.text()?),
                    _ => {}
                }
                Ok(())
            })?;
            dims.push(dim);
            Ok(())
        })?;
        Ok(dims)
    }
}

impl core::fmt::Display for DimProto<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Value(v) => f.write_str(&v.to_string()),
            Self::Symbol("") => f.write_str("?"),
            Self::Symbol(name) => f.write_str(name),
        }
    }
}
