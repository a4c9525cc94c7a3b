//! Batch norm into the weights before it, constants into initializers, what inference does not need away: ONE FILE PER
//! REWRITE; `REWRITES` lists them.

mod batch_norm;
mod bias;
mod constants;
mod linear;
mod pass;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kd_runtime::Result;
use kd_runtime::graph::{Graph, Tensor, ValueId};
use kd_runtime::ops::Op;

/// A rewrite of one node: whether it changed the graph. What a rewrite leaves unused is pruned later.
type Rewrite = fn(&mut Fold, usize) -> Result<bool>;

/// In this order at every node.
const REWRITES: &[Rewrite] =
    &[pass::rewrite, constants::rewrite, linear::rewrite, bias::rewrite, batch_norm::fold, batch_norm::to_conv];

/// Elements that may become initializers, besides some times those there are: a small file could ask for all memory.
const MOST_COMPUTED: usize = 1 << 22;

/// The same function with fewer nodes; validated, pruned. Outputs differ from the original's by float rounding only.
pub fn fold(graph: &Graph) -> Result<Graph> {
    let mut graph = graph.clone();
    let given = graph.initializers.values().map(Tensor::len).fold(0_usize, usize::saturating_add);
    let mut may_compute = given.saturating_mul(4).saturating_add(MOST_COMPUTED);
    loop {
        let mut fold = Fold::new(graph, may_compute);
        let mut changed = false;
        for node in 0..fold.graph.nodes.len() {
            fold.refresh(node);
            for rewrite in REWRITES {
                changed |= rewrite(&mut fold, node)?;
            }
        }
        (graph, may_compute) = (fold.graph, fold.may_compute);
        graph.prune();
        graph.validate()?;
        if !changed {
            return Ok(graph);
        }
    }
}

/// A graph and who makes and reads each value; kept up to date by its own functions only.
struct Fold {
    graph: Graph,
    producers: Vec<Option<usize>>,
    readers: Vec<usize>,
    names: BTreeSet<String>,
    /// What readers of a value read instead; nodes come in order, so each is brought up to date when it is its turn.
    passed: Vec<Option<ValueId>>,
    /// Elements that may still become initializers.
    may_compute: usize,
}

impl Fold {
    fn new(graph: Graph, may_compute: usize) -> Self {
        let producers = graph.producers();
        let mut readers: Vec<usize> = graph.consumers().iter().map(Vec::len).collect();
        graph.outputs.iter().for_each(|id| readers[id.index()] += 1);
        let names = graph.values.iter().map(|value| value.name.clone()).collect();
        let passed = vec![None; graph.values.len()];
        Self { graph, producers, readers, names, passed, may_compute }
    }

    /// A float constant that input `i` of a node is.
    fn floats(&self, node: usize, i: usize) -> Option<&Tensor> {
        let tensor = self.graph.constant(self.graph.nodes[node].input(i))?;
        tensor.get::<f32>().map(|_| tensor)
    }

    /// The node that makes input `i` of a node, if nobody else reads that value and it is no output.
    fn only_source(&self, node: usize, i: usize) -> Option<usize> {
        let id = self.graph.nodes[node].input(i)?;
        let source = self.producers[id.index()]?;
        (self.readers[id.index()] == 1 && !self.graph.outputs.contains(&id)).then_some(source)
    }

    fn op(&self, node: usize) -> &Op {
        &self.graph.nodes[node].op
    }

    /// Sizes of a value without the batch, all known.
    fn rank(&self, id: ValueId) -> usize {
        self.graph.value(id).shape.rank()
    }

    /// Adds an initializer under a name that is not taken.
    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let mut fresh = name.to_string();
        let mut i = 1;
        while !self.names.insert(fresh.clone()) {
            fresh = format!("{name}.{i}");
            i += 1;
        }
        let id = self.graph.add_initializer(&fresh, tensor);
        self.producers.push(None);
        self.readers.push(0);
        self.passed.push(None);
        id
    }

    /// Gives a node another operator and other inputs.
    fn replace(&mut self, node: usize, op: impl Into<Op>, inputs: Vec<Option<ValueId>>) {
        for id in self.graph.nodes[node].inputs.iter().flatten() {
            self.readers[id.index()] -= 1;
        }
        inputs.iter().flatten().for_each(|id| self.readers[id.index()] += 1);
        let node = &mut self.graph.nodes[node];
        node.op = op.into();
        node.inputs = inputs;
    }

    /// Lets all readers of `from`, which is no output, read `to` instead.
    fn pass(&mut self, from: ValueId, to: ValueId) {
        self.passed[from.index()] = Some(to);
        self.readers[to.index()] += std::mem::take(&mut self.readers[from.index()]);
    }

    /// Brings the inputs of a node up to date with what was passed.
    fn refresh(&mut self, node: usize) {
        for id in self.graph.nodes[node].inputs.iter_mut().flatten() {
            while let Some(&Some(to)) = self.passed.get(id.index()) {
                *id = to;
            }
        }
    }

    /// Lets the node that makes `from` make `to` instead, whose node goes away: `to` keeps its name and readers.
    fn take_over(&mut self, source: usize, node: usize) {
        let to = self.graph.nodes[node].outputs[0];
        for id in self.graph.nodes[node].inputs.iter().flatten() {
            self.readers[id.index()] -= 1;
        }
        let from = std::mem::replace(&mut self.graph.nodes[source].outputs[0], to);
        self.producers[to.index()] = Some(source);
        self.producers[from.index()] = None;
        // The node stays in its place as an operator without a reader: pruned at the end of the round.
        let gone = &mut self.graph.nodes[node];
        gone.inputs = vec![];
        gone.outputs = vec![from];
        gone.op = kd_runtime::ops::dropout::Identity.into();
    }
}
