//! A copy of the teacher's last layers, on a value of the student.

use std::collections::BTreeMap;

use kd_exporter::fold::fold;
use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::{LOGITS, Pair, Tap};

impl Pair<'_> {
    /// Copies what a teacher's answer is made of behind one of its taps, and applies it to a value of the student. Gives the
    /// copy's answer (before a last softmax) and the names of its parameters. It computes as the teacher in eval mode does:
    /// dropouts are gone, batch norms are folded. Refuses a teacher whose answer needs more than that tap, and layers that do
    /// not fit the student's value.
    pub fn graft(&mut self, at: &Tap, teacher_tap: &Tap) -> Result<(Tap, Vec<String>)> {
        let tail = fold(&behind(self.teacher_graph()?, &self.teacher(LOGITS)?.name, teacher_tap)?)?;
        let refused = |expected: String, found: String| {
            let at = format!("the teacher's layers behind `{}`", teacher_tap.name);
            Refusal::new(at, expected, found, "name another tap of both (`features`)")
        };
        let norm = tail.nodes.iter().find(|node| matches!(node.op, Op::BatchNormalization(_)));
        if let Some(node) = norm {
            return Err(refused("batch norms of constants".into(), format!("`{}`, which would learn", node.name)));
        }
        let start = self.student.find(&at.name).expect("a tap is a value of its graph");
        let mut ids: BTreeMap<ValueId, ValueId> = BTreeMap::from([(tail.inputs[0], start)]);
        let (student, prefix) = (&mut self.student, &self.prefix);
        let mut parameters = Vec::new();
        for (&id, tensor) in &tail.initializers {
            let name = format!("{prefix}.teacher.{}", tail.value(id).name);
            ids.insert(id, student.add_initializer(&name, tensor.clone()));
            parameters.push(name);
        }
        for node in &tail.nodes {
            let inputs: Vec<Option<ValueId>> =
                node.inputs.iter().map(|id| id.and_then(|id| ids.get(&id).copied())).collect();
            let names: Vec<String> =
                node.outputs.iter().map(|&id| format!("{prefix}.teacher.{}", tail.value(id).name)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let outputs = student.add_node(names[0], node.op.clone(), &inputs, &names);
            ids.extend(node.outputs.iter().copied().zip(outputs));
        }
        student
            .validate()
            .map_err(|e| refused(format!("layers that take a student's value {:?}", at.shape), e.found))?;
        let name = student.value(ids[&tail.outputs[0]]).name.clone();
        let answer = self.student(&name)?;
        Ok((answer, parameters))
    }
}

/// What a network's answer (before a last softmax) is made of behind one of its values, as a network of its own.
fn behind(graph: &Graph, answer: &str, tap: &Tap) -> Result<Graph> {
    let refused = |found: String| {
        let at = format!("tap `{}` of the teacher", tap.name);
        let action = "name a tap that all of its answer goes through";
        Refusal::new(at, "a value that the teacher's answer is made of alone", found, action)
    };
    let (Some(from), Some(mut end)) = (graph.find(&tap.name), graph.find(answer)) else {
        return Err(refused("no such value".into()));
    };
    let producers = graph.producers();
    if let Some(node) = producers[end.index()].map(|i| &graph.nodes[i])
        && let (Op::Softmax(_), Some(scores)) = (&node.op, node.input(0))
    {
        end = scores;
    }
    let mut needed = vec![false; graph.values.len()];
    needed[end.index()] = true;
    let makes_tap = |i: usize| graph.nodes[i].outputs.contains(&from);
    for i in (0..graph.nodes.len()).rev().filter(|&i| !makes_tap(i)) {
        let node = &graph.nodes[i];
        if node.outputs.iter().any(|id| needed[id.index()]) {
            node.inputs.iter().flatten().for_each(|id| needed[id.index()] = true);
        }
    }
    if let Some(input) = graph.inputs.iter().find(|&&id| id != from && needed[id.index()]) {
        return Err(refused(format!("one that needs `{}` too", graph.value(*input).name)));
    }
    if end == from || !needed[from.index()] {
        return Err(refused("one that it does not need".into()));
    }
    let mut tail = graph.clone();
    tail.nodes.retain(|node| !node.outputs.contains(&from));
    (tail.inputs, tail.outputs) = (vec![from], vec![end]);
    tail.prune();
    tail.validate()?;
    Ok(tail)
}
