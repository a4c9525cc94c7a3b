//! What every graph keeps: unique names, inputs that exist, one producer a value, topological order, types and shapes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Graph, Shape, ValueId, infer};
use crate::error::{Refusal, Result};

impl Graph {
    /// Sorts the nodes topologically (stable: an order that is right already is kept), checks names and producers, and
    /// infers the type and shape of every value. Errors name the node or value at fault.
    pub fn validate(&mut self) -> Result<()> {
        let mut names = BTreeSet::new();
        for value in &self.values {
            if value.name.is_empty() || !names.insert(value.name.as_str()) {
                return Err(Refusal::new(
                    alloc::format!("value `{}`", value.name),
                    "a name that is not empty and not taken",
                    if value.name.is_empty() { "an empty one" } else { "a second value of this name" },
                    "rename it",
                ));
            }
        }
        self.check_producers()?;
        self.sort()?;
        for (id, tensor) in &self.initializers {
            let value = &mut self.values[id.index()];
            value.element = tensor.element();
            value.shape = Shape::known(tensor.shape());
        }
        infer::infer(self)
    }

    fn check_producers(&self) -> Result<()> {
        let mut produced = alloc::vec![false; self.values.len()];
        let all = (self.inputs.iter().chain(self.initializers.keys()))
            .chain(self.nodes.iter().flat_map(|node| node.outputs.iter()));
        for id in all {
            if core::mem::replace(&mut produced[id.index()], true) {
                return Err(Refusal::new(
                    alloc::format!("value `{}`", self.value(*id).name),
                    "one producer",
                    "two",
                    "give each output a name of its own",
                ));
            }
        }
        let used = (self.outputs.iter()).chain(self.nodes.iter().flat_map(|node| node.inputs.iter().flatten()));
        for id in used {
            if !produced[id.index()] {
                return Err(Refusal::new(
                    alloc::format!("value `{}`", self.value(*id).name),
                    "an input, an initializer or a node's output",
                    "nothing that produces it",
                    "repair the model",
                ));
            }
        }
        Ok(())
    }

    /// Kahn's algorithm over an explicit heap: no recursion, and the smallest original place goes first.
    fn sort(&mut self) -> Result<()> {
        let producers = self.producers();
        let mut waiting: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut followers: Vec<Vec<usize>> = alloc::vec![Vec::new(); self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            let before: BTreeSet<usize> =
                node.inputs.iter().flatten().filter_map(|id: &ValueId| producers[id.index()]).collect();
            waiting.push(before.len());
            for j in before {
                followers[j].push(i);
            }
        }
        let mut ready: BTreeSet<usize> = (0..self.nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &j in &followers[i] {
                waiting[j] -= 1;
                if waiting[j] == 0 {
                    ready.insert(j);
                }
            }
        }
        if order.len() < self.nodes.len() {
            let stuck = (0..self.nodes.len()).find(|&i| waiting[i] > 0).unwrap_or(0);
            return Err(Refusal::new(
                crate::ops::node_place(stuck, &self.nodes[stuck]),
                "a graph without cycles",
                "a node that depends on its own output",
                "repair the model",
            ));
        }
        let mut nodes: Vec<_> = core::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().map(|i| nodes[i].take().expect("each once")).collect();
        Ok(())
    }
}
