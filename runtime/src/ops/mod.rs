//! Operators: one file each (or close family), with attributes, shape rule, cost and a reference computation;
//! [`table`] lists them. Names and semantics are ONNX's, the normal form is opset 21.
//!
//! To add one: a file with a struct and its `impl Operator`, and a line in `table.rs`.

pub mod attrs;
pub mod frame;
mod rules;
pub mod table;
pub mod walk;
pub mod window;

pub mod activation;
pub mod arith;
pub mod batch_norm;
pub mod cast;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod dropout;
pub mod gate;
pub mod gather;
pub mod gemm;
pub mod gru;
pub mod layer_norm;
pub mod lstm;
pub mod pad;
pub mod pool;
pub mod power;
pub mod quantize_linear;
pub mod recurrent;
pub mod reduce;
pub mod relu;
pub mod reshape;
pub mod resize;
pub mod shape_of;
pub mod slice;
pub mod softmax;
pub mod split;
pub mod transpose;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

pub use attrs::{Attr, Attrs};
pub use frame::Frame;
pub use table::Op;

use crate::error::Refusal;
use crate::graph::{ElementType, Node, Tensor};

/// An element type and a shape of plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub element: ElementType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// One output of this type: what most operators infer.
    pub fn one(element: ElementType, shape: &[usize]) -> Result<Vec<Self>, OpError> {
        Ok(alloc::vec![Self { element, shape: shape.to_vec() }])
    }
}

/// What an operator's shape rule sees of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Element type.
    pub element: ElementType,
    /// Shape.
    pub shape: &'a [usize],
    /// The value, where it is a constant (a shape, axes, bounds).
    pub value: Option<&'a Tensor>,
}

impl Input<'_> {
    /// The constant's elements as i64 (from i64 or i32); an error that names `what` if it is no such constant.
    pub fn ints(&self, what: &str) -> Result<Vec<i64>, OpError> {
        let tensor = self
            .value
            .ok_or_else(|| OpError::new(alloc::format!("{what} that is a constant"), "one that is computed"))?;
        match (tensor.get::<i64>(), tensor.get::<i32>()) {
            (Some(v), _) => Ok(v.to_vec()),
            (_, Some(v)) => Ok(v.iter().map(|&x| i64::from(x)).collect()),
            _ => Err(OpError::new(alloc::format!("{what} of i64 or i32"), tensor.element())),
        }
    }
}

/// What an operator expected and found; the graph adds the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// What would have been right.
    pub expected: String,
    /// What was there.
    pub found: String,
}

impl OpError {
    /// An error.
    pub fn new(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }

    /// The refusal that names the node.
    pub fn at_node(self, index: usize, node: &Node) -> Refusal {
        Refusal::new(node_place(index, node), self.expected, self.found, "repair the model or export it again")
    }
}

/// How messages name a node: ``node 3 `/stem/Conv` (Conv)``.
pub fn node_place(index: usize, node: &Node) -> String {
    if node.name.is_empty() {
        alloc::format!("node {index} ({})", node.op.name())
    } else {
        alloc::format!("node {index} `{}` ({})", node.name, node.op.name())
    }
}

/// An operator with its attributes. Arity is checked by the table before `infer` is called.
pub trait Operator: fmt::Debug {
    /// The attributes in normal form, defaults included, in a fixed order: what the writer writes.
    fn attrs(&self) -> Attrs;

    /// Types and shapes of the outputs. Must refuse whatever `eval` could not compute: after it `eval` may index freely.
    /// Numbers come from files: arithmetic is checked. Missing inputs are `None`; trailing ones may be absent.
    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError>;

    /// Multiply-accumulates, from shapes of inputs and outputs. 0 for what only moves or compares.
    fn macs(&self, _inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        0
    }

    /// Computes the outputs: the reference that fast kernels must equal, and the kernel until there is one.
    /// Allocates nothing. Errors only for what depends on values (an index out of range).
    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError>;

    /// Floats that `eval` needs while it runs, given the shapes of the inputs: one more output of the frame, f32, after
    /// those that the node asks for.
    fn scratch(&self, _inputs: &[Option<&[usize]>]) -> usize {
        0
    }

    /// The output where it depends on shapes alone (`Shape`).
    fn value_from_shapes(&self, _inputs: &[Option<&[usize]>]) -> Option<Tensor> {
        None
    }

    /// Whether the first output is the first input's elements in the same order, perhaps under another shape; the
    /// engine then moves nothing.
    fn is_alias(&self) -> bool {
        false
    }

    /// Whether inputs after the first are a scale and a zero point.
    fn is_quantization(&self) -> bool {
        false
    }
}

/// Evaluates an operator on tensors: infers, allocates, computes. For folding, tests and reference results.
pub fn eval(op: &Op, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let described: Vec<Option<Input<'_>>> = (inputs.iter())
        .map(|input| input.map(|t| Input { element: t.element(), shape: t.shape(), value: Some(t) }))
        .collect();
    let types = op.infer(&described)?;
    eval_as(op, inputs, &types)
}

/// Evaluates an operator whose outputs were inferred to have these types.
pub fn eval_as(op: &Op, inputs: &[Option<&Tensor>], types: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
    let mut outputs: Vec<Tensor> = types.iter().map(|ty| Tensor::zeros(ty.element, &ty.shape)).collect();
    let shapes: Vec<Option<&[usize]>> = inputs.iter().map(|input| input.map(Tensor::shape)).collect();
    let scratch = op.def().scratch(&shapes);
    if scratch > 0 {
        outputs.push(Tensor::zeros(ElementType::F32, &[scratch]));
    }
    frame::with_tensors(inputs, &mut outputs, |frame| op.def().eval(frame))?;
    outputs.truncate(types.len());
    Ok(outputs)
}
