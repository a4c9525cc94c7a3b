//! Graph → forward and backward: its own tape over plain buffers that are planned once and reused every step.
//!
//! [`Executor::new`] walks the graph once ([`program`]): which initializers are trained, which values need a gradient,
//! what must be kept for backward, what may be overwritten in place, and which buffer every value and gradient lies in
//! (`buffers`). A step (`run`) then allocates nothing that grows with the batch, writes each gradient once (only a second consumer adds), and
//! computes none that nobody needs. The bits of a result depend on the seed, not on the number of threads.
//!
//! Parameters, gradients and activations are `Vec`s; [`candle`] turns parameters into candle tensors and back, and lets
//! a small loss be written in candle.

pub mod candle;
pub mod cases;
pub mod program;
pub mod random;

mod buffers;
mod fallback;
mod frames;
mod layout;
mod real;
mod run;
mod share;
mod sizes;
#[cfg(test)]
mod tests;

use std::any::TypeId;

use kd_runtime::graph::{Dim, Graph, Tensor, ValueId};
use kd_runtime::{Refusal, Result};

use crate::gpu::Gpu;
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::threads::Threads;
pub use real::Real;
pub use share::Share;

/// One trainable or running array of a network, named as its initializer.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<T> {
    /// The initializer's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is to the optimiser.
    pub role: Role,
    /// The values, row-major.
    pub value: Buffer<T>,
    /// The gradient of the last backward pass; empty for [`Role::Statistic`].
    pub gradient: Buffer<T>,
}

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weights of convolutions and linear layers.
    Weight,
    /// Biases, and scale and bias of normalisations: may be excluded from weight decay.
    BiasOrNorm,
    /// Never changed by the optimiser: running mean and variance, which the forward pass updates, and what is frozen.
    Statistic,
}

impl Role {
    /// Whether the optimiser changes it.
    pub fn is_trained(self) -> bool {
        self != Self::Statistic
    }
}

/// How a forward pass behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics and dropout; the seed (and the sample's place in the batch) decides the dropout mask.
    Train {
        /// Of this step.
        seed: u64,
    },
    /// Running statistics, no dropout.
    Eval,
}

/// What computes.
#[derive(Clone, Copy, Debug)]
pub struct Compute<'a> {
    /// Threads of the host; the result does not depend on them.
    pub threads: usize,
    /// The GPU, if there is one: the host does what it has no kernel for.
    pub gpu: Option<&'a Gpu>,
}

impl Compute<'_> {
    /// The host alone.
    pub fn host(threads: usize) -> Self {
        Self { threads, gpu: None }
    }
}

/// What an executor is planned for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The largest batch of a step; smaller ones may be run.
    pub batch: usize,
    /// Values to be seen (and given gradients) from outside, by name. The graph's outputs always are.
    pub taps: Vec<String>,
    /// Whether backward will be called.
    pub backward: bool,
    /// Threads; the result does not depend on it.
    pub threads: usize,
    /// The GPU that it runs on, if it does: then of f32.
    pub gpu: Option<Gpu>,
}

/// A graph planned for training (or for a teacher's forward passes alone), with its parameters.
pub struct Executor<T: Real> {
    threads: Threads,
    state: run::State<T>,
}

impl<T: Real> Executor<T> {
    /// Plans a validated graph with one f32 input `[N, …]`. Refuses, naming the node, what cannot be trained (or run).
    pub fn new(graph: &Graph, plan: &Plan) -> Result<Self> {
        Self::planned(graph, plan, false)
    }

    /// As [`Executor::new`]; besides, [`Executor::backward_again`] may be called: what a backward pass reads is kept until
    /// the next step, which takes more memory.
    pub fn for_several_passes(graph: &Graph, plan: &Plan) -> Result<Self> {
        Self::planned(graph, plan, true)
    }

    fn planned(graph: &Graph, plan: &Plan, repeats: bool) -> Result<Self> {
        if plan.gpu.is_some() && TypeId::of::<T>() != TypeId::of::<f32>() {
            return Err(Refusal::new("plan", "f32 on a GPU", "another float", "plan it for the host"));
        }
        if plan.batch == 0 || plan.threads == 0 {
            return Err(Refusal::new(
                "plan",
                "a batch and a number of threads of at least 1",
                format!("batch {}, {} threads", plan.batch, plan.threads),
                "set both",
            ));
        }
        let threads = Threads::new(plan.threads).map_err(|error| {
            let action = "ask for fewer threads";
            Refusal::new("threads", format!("{} threads", plan.threads), error, action)
                .with_exit(kd_runtime::Exit::Lacking)
        })?;
        let state = run::State::new(run::Planned::new(graph, plan, repeats)?)?;
        Ok(Self { threads, state })
    }

    /// The parameters, in the order of the graph's nodes.
    pub fn parameters(&self) -> &[Parameter<T>] {
        &self.state.parameters
    }

    /// The parameters, for the optimiser.
    pub fn parameters_mut(&mut self) -> &mut [Parameter<T>] {
        &mut self.state.parameters
    }

    /// The GPU that it runs on.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.state.gpu.as_ref()
    }

    /// How many of the parameters, from the first, are the graph's; adopted arrays follow.
    pub fn network_parameters(&self) -> usize {
        self.state.program.parameters.len()
    }

    /// Takes in arrays that no node reads: a loss's own. They follow the network's parameters, get room for a gradient where
    /// they are trained, and are stepped and stored with the others. Gives the place of the first. Refused where a GPU has
    /// not enough memory.
    pub fn adopt(&mut self, guests: Vec<Parameter<T>>) -> Result<usize> {
        let first = self.state.parameters.len();
        for mut guest in guests {
            let len = if guest.role.is_trained() { guest.value.len() } else { 0 };
            if let Some(gpu) = self.state.gpu.as_ref().filter(|_| len > 0) {
                guest.value = Buffer::moved(gpu, &guest.value)?;
            }
            guest.gradient = guest.value.beside(len)?;
            self.state.parameters.push(guest);
        }
        Ok(first)
    }

    /// Keeps parameters of these names what they are: the optimizer passes them by, and nobody misses their gradient.
    pub fn freeze(&mut self, names: &[String]) {
        for parameter in self.state.parameters.iter_mut().filter(|parameter| names.contains(&parameter.name)) {
            parameter.role = Role::Statistic;
        }
    }

    /// Takes adopted arrays out, so that their owner can write them while it reads taps.
    pub fn lend(&mut self, guests: std::ops::Range<usize>) -> Vec<Parameter<T>> {
        self.state.parameters.drain(guests).collect()
    }

    /// Puts lent arrays back where they were.
    pub fn give_back(&mut self, first: usize, guests: Vec<Parameter<T>>) {
        self.state.parameters.splice(first..first, guests);
    }

    /// Says that the batches of the passes that follow are shares of one that several processes have: batch statistics and
    /// dropout masks are those of the whole, and gradients of parameters are this share's part of a sum.
    pub fn take_share(&mut self, share: Option<Share>) {
        self.state.share = share;
    }

    /// Calls `f` with the parameters; its loops run on the threads of this executor.
    pub fn update<R>(&mut self, f: impl FnOnce(&mut [Parameter<T>]) -> R) -> R {
        let parameters = &mut self.state.parameters;
        self.threads.run(|| f(parameters))
    }

    /// The id of a tap; refused if it was not planned.
    pub fn tap(&self, name: &str) -> Result<ValueId> {
        let graph = &self.state.program.graph;
        let id = graph.find(name).filter(|id| self.state.program.taps.contains(id));
        id.ok_or_else(|| {
            let known: Vec<&str> = self.state.program.taps.iter().map(|&id| graph.value(id).name.as_str()).collect();
            Refusal::new("tap", format!("one of {}", known.join(", ")), format!("`{name}`"), "name a planned tap")
        })
    }

    /// Shape of a tap for one sample, without the batch.
    pub fn tap_shape(&self, tap: ValueId) -> &[usize] {
        let program = &self.state.program;
        program.taps.iter().position(|&id| id == tap).map_or(&[], |i| &program.tap_shapes[i])
    }

    /// Runs `batch` samples; `x` holds them one after another.
    pub fn forward(&mut self, x: &[T], batch: usize, mode: Mode) -> Result<()> {
        let all = self.state.program.taps.clone();
        self.forward_to(&all, x, batch, mode)
    }

    /// As [`Executor::forward`], for these taps alone: what none of them depends on is not run, has no values, moves no
    /// running statistics and takes no gradient.
    pub fn forward_to(&mut self, taps: &[ValueId], x: &[T], batch: usize, mode: Mode) -> Result<()> {
        self.queue_forward(taps, x, batch, mode)?;
        self.wait()
    }

    /// As [`Executor::forward_to`], but a GPU may have it still to do when this returns, and what fails there is told by
    /// [`Executor::wait`].
    pub fn queue_forward(&mut self, taps: &[ValueId], x: &[T], batch: usize, mode: Mode) -> Result<()> {
        let state = &mut self.state;
        state.prepare(x, batch)?;
        state.aim(taps);
        self.threads.run(|| state.forward(mode))
    }

    /// Waits until a GPU has done all; refuses what failed. Values that were read before it, of a pass that was queued, are those
    /// of nothing then.
    pub fn wait(&self) -> Result<()> {
        self.state.wait()
    }

    /// A tap's values of the last forward pass, `batch` samples one after another; none where it was left out.
    pub fn value(&self, tap: ValueId) -> &[T] {
        self.state.value(tap)
    }

    /// The same, where they lie: for kernels of the GPU.
    pub fn raw(&self, tap: ValueId) -> &[T] {
        self.state.raw(tap)
    }

    /// From gradients of taps to the gradients of all parameters (overwritten). A tap may be named once.
    pub fn backward(&mut self, d_taps: &[(ValueId, &[T])]) -> Result<()> {
        let state = &mut self.state;
        state.check_backward(d_taps)?;
        self.threads.run(|| state.backward(d_taps))
    }

    /// As [`Executor::backward`], after it and for the same forward pass: gradients are overwritten, but a parameter that a
    /// pass before had a gradient for stays reached. Refused unless it was planned.
    pub fn backward_again(&mut self, d_taps: &[(ValueId, &[T])]) -> Result<()> {
        if !self.state.repeats {
            let found = "a plan for one";
            return Err(Refusal::new("backward", "a plan for several backward passes", found, "plan for several"));
        }
        let before = self.state.reached.clone();
        self.backward(d_taps)?;
        self.state.reached.iter_mut().zip(before).for_each(|(reached, before)| *reached |= before);
        Ok(())
    }

    /// For each of the graph's parameters whether the backward pass (or one before it for the same forward pass) had a
    /// gradient for it.
    pub fn reached(&self) -> &[bool] {
        &self.state.reached
    }

    /// Names the first trainable parameter whose gradient of the last backward pass is missing (no tap that was given a
    /// gradient, nor one of `idle`, depends on it) or not finite: what a run checks after its first step.
    pub fn check_gradients(&self, idle: &[ValueId]) -> Result<()> {
        self.state.wait()?;
        let run::State { program, reached, .. } = &self.state;
        let excused = program.needed(idle);
        let misses = |i: usize| program.parameters.get(i).is_some_and(|id| !reached[i] && !excused[id.index()]);
        for (i, parameter) in self.state.parameters.iter().enumerate().filter(|(_, p)| p.role.is_trained()) {
            let at = format!("parameter `{}`", parameter.name);
            if misses(i) {
                let action = "leave it out of the student, or add a loss term that depends on it";
                return Err(Refusal::new(at, "a gradient", "none: no loss term depends on it", action));
            }
            if let Some(place) = parameter.gradient.iter().position(|g| !g.is_finite()) {
                let found = format!("{:?} at element {place}", parameter.gradient[place]);
                return Err(Refusal::new(at, "a finite gradient", found, "lower the learning rate or check the data"));
            }
        }
        Ok(())
    }

    /// For each parameter the axis along which the units lie whose incoming weights it holds: the last one of a matrix
    /// that is multiplied from the right, the second of recurrent layers and transposed convolutions, else the first.
    pub fn unit_axes(&self) -> Vec<usize> {
        self.state.program.unit_axes()
    }

    /// The graph with the present parameters in its initializers.
    pub fn to_graph(&self) -> Graph {
        let mut graph = self.state.program.graph.clone();
        for (parameter, &id) in self.state.parameters.iter().zip(&self.state.program.parameters) {
            let values: Vec<f32> = parameter.value.iter().map(|v| v.to_f32()).collect();
            graph.initializers.insert(id, Tensor::from_vec(&parameter.shape, values));
        }
        graph
    }

    /// Bytes of all buffers, as they were planned.
    pub fn buffer_bytes(&self) -> usize {
        self.state.elements * size_of::<T>()
    }

    /// What [`Executor::buffer_bytes`] of a plan would be, without its buffers; `repeats`: for several passes.
    pub fn planned_bytes(graph: &Graph, plan: &Plan, repeats: bool) -> Result<usize> {
        Ok(run::Planned::<T>::new(graph, plan, repeats)?.elements() * size_of::<T>())
    }
}

/// A value's shape for one sample; refused if its first size is not the batch.
fn sample_shape(graph: &Graph, id: ValueId) -> Result<Vec<usize>> {
    let value = graph.value(id);
    let rest: Option<Vec<usize>> = match value.shape.0.split_first() {
        Some((Dim::Batch, rest)) => {
            rest.iter().map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect()
        }
        _ => None,
    };
    rest.ok_or_else(|| {
        Refusal::new(
            format!("value `{}`", value.name),
            "a shape [N, …] with the batch first and only there",
            &value.shape,
            "choose another value, or export the model with a symbolic batch",
        )
    })
}
