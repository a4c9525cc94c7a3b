//! ONNX files: reader (opset 7 to 28, brought to one normal form) and writer (opset 21, IR 10). No protoc, no prost:
//! a bounded reader of the wire format over borrowed bytes, so that files are read on bare metal too.
//!
//! Files are hostile: every length is compared with the bytes that are left, nothing is allocated on a file's word,
//! nothing recurses, and what is refused is refused in one line that names the node or the byte.

pub mod messages;
pub mod wire;

mod constant;
mod draft;
mod lint;
mod read;
mod tensor;
mod upgrade;
mod write;

use alloc::string::String;
use alloc::vec::Vec;

use crate::graph::Graph;

pub use lint::lint;
pub use read::{IR_VERSIONS, operators, read, read_with};
pub use tensor::read_tensor;
pub use upgrade::{NEWEST_OPSET, OLDEST_OPSET};
pub use write::{IR_VERSION, OPSET, write};

/// A model as read: the graph in normal form, and what the reader has to say about it (converted element types).
#[derive(Debug)]
pub struct Model {
    /// Validated and linted.
    pub graph: Graph,
    /// One line each, for people.
    pub notes: Vec<String>,
}
