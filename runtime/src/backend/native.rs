//! `native`: our own engine.

use super::{Backend, Options, PlanBytes, available_bytes, check_input};
use crate::engine::Engine;
use crate::error::{Exit, Refusal, Result};
use crate::graph::{Tensor, TensorView};
use crate::onnx;
use crate::ops::TensorType;

struct Native {
    engine: Engine,
    input_names: Vec<String>,
    output_names: Vec<String>,
}

/// Reads and plans a model.
pub(super) fn open(model: &[u8], batch: usize, options: &Options) -> Result<Box<dyn Backend>> {
    if options.threads != 1 {
        let action = "leave --threads out";
        return Err(Refusal::new("--threads", "1: native computes on one thread", options.threads, action));
    }
    let graph = onnx::read(model)?.graph;
    let names = |ids: &[crate::graph::ValueId]| ids.iter().map(|&id| graph.value(id).name.clone()).collect();
    let (input_names, output_names) = (names(&graph.inputs), names(&graph.outputs));
    let engine = Engine::new(&graph, batch)?;
    check_room(&engine)?;
    Ok(Box::new(Native { engine, input_names, output_names }))
}

/// Refuses a plan that does not fit into this machine's memory: where the system promises more than it has, the
/// allocation alone does not say so.
fn check_room(engine: &Engine) -> Result<()> {
    let needed = engine.arena_bytes().saturating_add(engine.weights_bytes());
    match available_bytes() {
        Some(available) if needed > available => {
            let expected = format!("a plan that fits the {} MiB that are free", available >> 20);
            let action = "use a smaller model, or a machine with more memory";
            Err(Refusal::new("memory", expected, format!("{} MiB", needed >> 20), action).with_exit(Exit::Lacking))
        }
        _ => Ok(()),
    }
}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn input_names(&self) -> &[String] {
        &self.input_names
    }

    fn inputs(&self) -> &[TensorType] {
        self.engine.inputs()
    }

    fn output_names(&self) -> &[String] {
        &self.output_names
    }

    fn feed(&mut self, i: usize, x: TensorView<'_>) -> Result<()> {
        check_input(self.engine.inputs(), i, x)?;
        self.engine.input_mut(i).data.copy_from(x.data);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.engine.run()
    }

    fn output(&self, i: usize) -> Result<Tensor> {
        Ok(self.engine.output(i).to_tensor())
    }

    fn plan_bytes(&self) -> Option<PlanBytes> {
        let (arena_bytes, weights_bytes) = (self.engine.arena_bytes(), self.engine.weights_bytes());
        Some(PlanBytes { arena_bytes, weights_bytes })
    }
}
