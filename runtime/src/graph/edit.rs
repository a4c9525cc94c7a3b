//! Rewriting: replace a value, drop what nobody needs.

use alloc::vec::Vec;

use super::{Graph, ValueId};

impl Graph {
    /// Lets every reader of `from`, and the graph's outputs, read `to` instead.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        let inputs = self.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().flatten());
        for id in inputs.chain(self.outputs.iter_mut()) {
            if *id == from {
                *id = to;
            }
        }
    }

    /// Drops nodes, initializers and values that no output depends on (inputs stay), and renumbers the values.
    /// Needs nodes in topological order.
    pub fn prune(&mut self) {
        let mut needed = alloc::vec![false; self.values.len()];
        for id in self.outputs.iter().chain(&self.inputs) {
            needed[id.index()] = true;
        }
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|id| needed[id.index()]) {
                for id in node.inputs.iter().flatten().chain(&node.outputs) {
                    needed[id.index()] = true;
                }
            }
        }
        self.nodes.retain(|node| node.outputs.iter().any(|id| needed[id.index()]));
        self.initializers.retain(|id, _| needed[id.index()]);
        let mut new_ids = Vec::with_capacity(self.values.len());
        let mut next = 0;
        for &keep in &needed {
            new_ids.push(ValueId(next));
            next += u32::from(keep);
        }
        let mut i = 0;
        self.values.retain(|_| {
            i += 1;
            needed[i - 1]
        });
        let node_ids =
            (self.nodes.iter_mut()).flat_map(|node| node.inputs.iter_mut().flatten().chain(node.outputs.iter_mut()));
        for id in node_ids.chain(self.inputs.iter_mut()).chain(self.outputs.iter_mut()) {
            *id = new_ids[id.index()];
        }
        self.initializers =
            core::mem::take(&mut self.initializers).into_iter().map(|(id, t)| (new_ids[id.index()], t)).collect();
    }
}
