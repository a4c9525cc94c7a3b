//! A network: nodes in topological order over values; the only description of one that the three programs share.
//!
//! Values are known by dense ids inside and by name at the edges. Every producer (the ONNX reader, the zoo, folding,
//! quantizing) ends with [`Graph::validate`]; code after it relies on what it checks.

pub mod edit;
pub mod infer;
pub mod shape;
pub mod stats;
pub mod tensor;
pub mod validate;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use shape::{Dim, Shape};
pub use tensor::{Data, Element, ElementType, Slice, SliceMut, Tensor, TensorView, TensorViewMut};

use crate::ops::Op;

/// A value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Its place in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An input, an initializer, or what a node computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Unique in its graph, never empty.
    pub name: String,
    /// Element type. Of a node's output: set by [`Graph::validate`].
    pub element: ElementType,
    /// Shape. Of a node's output: set by [`Graph::validate`].
    pub shape: Shape,
}

/// One operator applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// For messages and reports; may be empty, need not be unique.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Its outputs.
    pub outputs: Vec<ValueId>,
}

impl Node {
    /// Input `i`, if it is there.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// For people; may be empty.
    pub name: String,
    /// What is fed, in order.
    pub inputs: Vec<ValueId>,
    /// What is computed, in order. May name an input or an initializer.
    pub outputs: Vec<ValueId>,
    /// In topological order once validated.
    pub nodes: Vec<Node>,
    /// All values; a [`ValueId`] is a place in here.
    pub values: Vec<Value>,
    /// Values that are known: weights and constants.
    pub initializers: BTreeMap<ValueId, Tensor>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), ..Self::default() }
    }

    /// The value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.values.iter().position(|value| value.name == name).map(|i| ValueId(i as u32))
    }

    /// The initializer that an input of a node names, if it is one.
    pub fn constant(&self, id: Option<ValueId>) -> Option<&Tensor> {
        self.initializers.get(&id?)
    }

    fn add_value(&mut self, name: &str, element: ElementType, shape: Shape) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(Value { name: name.to_string(), element, shape });
        id
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: &str, element: ElementType, shape: Shape) -> ValueId {
        let id = self.add_value(name, element, shape);
        self.inputs.push(id);
        id
    }

    /// Adds an initializer.
    pub fn add_initializer(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.add_value(name, tensor.element(), Shape::known(tensor.shape()));
        self.initializers.insert(id, tensor);
        id
    }

    /// Adds a node and its output values, whose types [`Graph::validate`] will find.
    pub fn add_node(
        &mut self,
        name: &str,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        outputs: &[&str],
    ) -> Vec<ValueId> {
        let outputs: Vec<_> =
            outputs.iter().map(|output| self.add_value(output, ElementType::F32, Shape::default())).collect();
        let node = Node { name: name.to_string(), op: op.into(), inputs: inputs.to_vec(), outputs: outputs.clone() };
        self.nodes.push(node);
        outputs
    }

    /// Adds a node with one output, which gives the node its name.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId], output: &str) -> ValueId {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.add_node(output, op, &inputs, &[output])[0]
    }

    /// For each value the node that computes it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = alloc::vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                producers[output.index()] = Some(i);
            }
        }
        producers
    }

    /// For each value the nodes that read it, in order; a node that reads it twice is there twice.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut consumers = alloc::vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for input in node.inputs.iter().flatten() {
                consumers[input.index()].push(i);
            }
        }
        consumers
    }

    /// A name that no value has: `base`, or `base.1`, `base.2`, …
    pub fn fresh_name(&self, base: &str) -> String {
        let taken: BTreeSet<&str> = self.values.iter().map(|value| value.name.as_str()).collect();
        if !taken.contains(base) {
            return base.to_string();
        }
        (1..).map(|i| alloc::format!("{base}.{i}")).find(|name| !taken.contains(name.as_str())).expect("endless")
    }
}
