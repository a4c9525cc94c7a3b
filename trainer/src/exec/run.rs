//! One step: forward over the program's steps, then backward over them in reverse.

use std::sync::{Mutex, PoisonError};

use kd_runtime::graph::infer::{self, Bound};
use kd_runtime::graph::{Tensor, ValueId};
use kd_runtime::ops::Op;
use kd_runtime::{Refusal, Result};

use super::layout::{self, Layout, NOWHERE};
use super::program::{Origin, Program, Run, Step, constant};
use super::{Mode, Parameter, Plan, Real, Share, fallback, sizes};
use crate::gpu::Gpu;
use crate::gpu::ops::{Failed, maps, moves};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::frame::Frame;
use crate::ops::kernels::pointwise;
use crate::ops::moments::Moments;
use crate::ops::part::Part;
use crate::ops::{
    Context, Gradient, Inputs, Kernel, Place, Port, Scratch, ScratchSize, Site, batch_norm, convert, table,
};

/// The program's kernels at one batch size.
struct Bindings<T: Real> {
    batch: usize,
    bound: Vec<Option<Bound>>,
    kernels: Vec<Option<Box<dyn Kernel<T>>>>,
    /// For each step whether its kernel runs on the GPU.
    on_gpu: Vec<bool>,
    /// Elements of each root.
    lens: Vec<usize>,
    /// Where the inputs of each step lie.
    places: Vec<Vec<Place>>,
}

/// A graph planned at its largest batch: how large its buffers will be, and none of them yet.
pub struct Planned<T: Real> {
    program: Program<T>,
    parameters: Vec<Parameter<T>>,
    bindings: Bindings<T>,
    layout: Layout,
    scratch: ScratchSize,
    threads: usize,
    gpu: Option<Gpu>,
    repeats: bool,
}

/// All that a step needs, and what it leaves.
pub struct State<T: Real> {
    /// The graph understood.
    pub program: Program<T>,
    /// Values and gradients of the initializers.
    pub parameters: Vec<Parameter<T>>,
    /// For each parameter whether the last backward pass wrote its gradient.
    pub reached: Vec<bool>,
    /// Whether the layout bears several backward passes after a forward pass.
    pub repeats: bool,
    /// [`Planned::elements`].
    pub elements: usize,
    layout: Layout,
    buffers: Vec<Buffer<T>>,
    constants: Vec<Buffer<T>>,
    scratch: Scratch<T>,
    input: Buffer<T>,
    /// What is no float.
    others: Vec<Option<Tensor>>,
    /// At the planned batch size, and at the last other one.
    bindings: Vec<Bindings<T>>,
    current: usize,
    mode: Option<Mode>,
    /// The taps that the last forward pass was for, for each root whether they depend on it, and the steps that it takes.
    asked: Vec<ValueId>,
    needed: Vec<bool>,
    running: Vec<usize>,
    /// Of the backward pass: which roots' gradients are written, and the places for a step's gradients.
    written: Vec<bool>,
    targets: Vec<Vec<Gradient<T>>>,
    /// Of the batch, where others have the rest of it.
    pub share: Option<Share>,
    /// Where it runs, if not on the host.
    pub gpu: Option<Gpu>,
}

impl<T: Real> Bindings<T> {
    fn new(program: &Program<T>, batch: usize, gpu: Option<&Gpu>) -> Result<Self> {
        let bound = infer::bind(&program.graph, batch)?;
        sizes::check(program, &bound)?;
        let elements = |value: usize| bound[value].as_ref().map_or(0, |b| b.shape.iter().product::<usize>());
        let planar = |root: usize| match program.packed.get(&root) {
            Some(&node) => program.graph.nodes[node].outputs.iter().map(|id| elements(id.index())).sum(),
            None => elements(program.value_of[root]),
        };
        let len = |root: usize| program.frames[root].map_or_else(|| planar(root), |frame| batch * frame.image());
        let lens = (0..program.root.len()).map(len).collect();
        let (mut kernels, mut on_gpu) = (Vec::with_capacity(program.steps.len()), Vec::new());
        for step in &program.steps {
            let (kernel, is_on_gpu) = match step.fallback {
                true => (None, false),
                false => build(program, &bound, step, batch, gpu).map(|(kernel, on_gpu)| (Some(kernel), on_gpu))?,
            };
            kernels.push(kernel);
            on_gpu.push(is_on_gpu);
        }
        Ok(Self { batch, bound, kernels, on_gpu, lens, places: Vec::new() })
    }

    /// Finds where inputs lie, once the buffers are planned.
    fn place(&mut self, program: &Program<T>, layout: &Layout) {
        self.places = (program.steps.iter())
            .map(|step| {
                let place = |root: &Option<usize>| {
                    root.map_or(Place::Nowhere, |root| place(program, layout, root, self.lens[root]))
                };
                step.inputs.iter().map(place).collect()
            })
            .collect();
    }
}

fn place<T: Real>(program: &Program<T>, layout: &Layout, root: usize, len: usize) -> Place {
    match program.origin[root] {
        Origin::Input => Place::Input,
        Origin::Parameter(i) => Place::Parameter(i),
        Origin::Constant(i) => Place::Constant(i),
        Origin::Computed if layout.value[root] != NOWHERE => Place::Buffer(layout.value[root], len),
        Origin::Other => Place::Other(root),
        _ => Place::Nowhere,
    }
}

/// The kernel of a step, and whether it runs on the GPU.
fn build<T: Real>(
    program: &Program<T>,
    bound: &[Option<Bound>],
    step: &Step,
    batch: usize,
    gpu: Option<&Gpu>,
) -> Result<(Box<dyn Kernel<T>>, bool)> {
    let node = &program.graph.nodes[step.node];
    let shape = |value: usize| bound[value].as_ref().map_or(&[][..], |b| &b.shape[..]);
    let ports: Vec<Option<Port<'_>>> = (step.ids.iter().zip(&step.inputs).enumerate())
        .map(|(i, (id, root))| {
            let root = (*root)?;
            let value = id.map_or(program.value_of[root], |id| id.index());
            let trained = matches!(program.origin[root], Origin::Parameter(_) | Origin::Computed);
            let constant = id.and_then(|id| constant(&program.graph, bound, id)).filter(|_| !trained);
            Some(Port { shape: shape(value), value: constant, wanted: step.wanted[i], frame: program.frames[root] })
        })
        .collect();
    let output = shape(program.value_of[step.output]);
    let frame = program.frames[step.output].or_else(|| Frame::of(output));
    let outputs = if program.packed.contains_key(&step.output) { node.outputs.len() } else { 1 };
    let site = Site { inputs: &ports, output, outputs, frame };
    let before = |k: usize| node.outputs[..k].iter().map(|id| shape(id.index()).iter().product::<usize>()).sum();
    let frame = program.frames[step.output];
    let there = |frame: Option<Frame>| {
        let at = kd_runtime::ops::node_place(step.node, node);
        frame.ok_or_else(|| Refusal::new(at, "the layout of images", "none", "report it"))
    };
    if let Some(gpu) = gpu {
        let made = match (step.run, &node.op) {
            (Run::Part(k), _) => Some(moves::part(before(k), output.iter().product(), gpu)),
            (Run::ToFrame, _) => Some(moves::to_frame(batch, &there(frame)?, gpu)),
            (Run::ToPlanar, _) => Some(moves::to_planar(batch, &there(site.frame(0))?, gpu)),
            (Run::Norm { relu }, Op::BatchNormalization(op)) => {
                Some(crate::gpu::ops::batch_norm::fused(op, &site, gpu, relu))
            }
            (_, op) => crate::gpu::table::build(op, &site, gpu),
        };
        let made = match made {
            Some(Ok(kernel)) => Some(kernel),
            Some(Err(Failed::Node(error))) => return Err(error.at_node(step.node, node)),
            Some(Err(Failed::Machine(refusal))) => return Err(refusal),
            Some(Err(Failed::Host)) | None => None,
        };
        if let Some(kernel) = made.and_then(crate::gpu::table::among) {
            return Ok((kernel, true));
        }
    }
    let built = match (step.run, &node.op) {
        (Run::Part(k), _) => return Ok((Box::new(Part { from: before(k) }), false)),
        (Run::ToFrame, _) => return Ok((Box::new(convert::ToFrame(there(frame)?)), false)),
        (Run::ToPlanar, _) => {
            return Ok((Box::new(convert::ToPlanar(there(site.frame(0))?)), false));
        }
        (Run::Norm { relu }, Op::BatchNormalization(op)) => Some(batch_norm::fused(op, &site, relu)),
        (_, op) => table::build(op, &site),
    };
    match built {
        Some(kernel) => kernel.map(|kernel| (kernel, false)).map_err(|error| error.at_node(step.node, node)),
        None => Err(table::no_gradient(&node.op).at_node(step.node, node)),
    }
}

/// What the kernels of one batch size need of scratch memory, one after another.
fn scratch<T: Real>(kernels: &[Option<Box<dyn Kernel<T>>>]) -> ScratchSize {
    let needs = kernels.iter().flatten().map(|kernel| kernel.scratch());
    let most =
        |a: ScratchSize, b: ScratchSize| ScratchSize { shared: a.shared.max(b.shared), lane: a.lane.max(b.lane) };
    needs.fold(ScratchSize::default(), most)
}

impl<T: Real> Planned<T> {
    /// Plans everything at the largest batch; `repeats`: for several backward passes after a forward pass.
    pub fn new(graph: &kd_runtime::graph::Graph, plan: &Plan, repeats: bool) -> Result<Self> {
        let (program, parameters) = Program::new(graph, plan)?;
        let mut bindings = Bindings::new(&program, plan.batch, plan.gpu.as_ref())?;
        let layout = layout::plan(&program, &bindings.kernels, &bindings.lens, repeats);
        bindings.place(&program, &layout);
        let scratch = scratch(&bindings.kernels);
        let gpu = plan.gpu.clone();
        Ok(Self { program, parameters, bindings, layout, scratch, threads: plan.threads, gpu, repeats })
    }

    /// Elements of the network's input.
    fn input(&self) -> usize {
        self.bindings.lens[self.program.graph.inputs[0].index()]
    }

    /// Elements of all buffers.
    pub fn elements(&self) -> usize {
        self.layout.sizes.iter().map(|&size| Buffer::<T>::room(size)).sum::<usize>()
            + Buffer::<T>::room(self.input())
            + Buffer::<T>::room(self.scratch.shared)
            + self.threads * Buffer::<T>::room(self.scratch.lane)
            + self.parameters.iter().map(|p| p.value.len() + p.gradient.len()).sum::<usize>()
    }
}

impl<T: Real> State<T> {
    /// Makes the buffers. Refused where a GPU has not enough memory.
    pub fn new(planned: Planned<T>) -> Result<Self> {
        let (elements, input) = (planned.elements(), planned.input());
        let Planned { mut program, mut parameters, bindings, layout, scratch, threads, gpu, repeats } = planned;
        let mut constants: Vec<Buffer<T>> =
            std::mem::take(&mut program.constants).into_iter().map(Buffer::from).collect();
        if let Some(gpu) = &gpu {
            for parameter in &mut parameters {
                parameter.value = Buffer::moved(gpu, &parameter.value)?;
                parameter.gradient = Buffer::moved(gpu, &parameter.gradient)?;
            }
            for constant in &mut constants {
                *constant = Buffer::moved(gpu, constant)?;
            }
        }
        let targets = program.steps.iter().map(|step| step.inputs.iter().map(|_| Gradient::default()).collect());
        let (asked, needed) = (program.taps.clone(), program.needed(&program.taps));
        Ok(Self {
            reached: vec![false; parameters.len()],
            repeats,
            elements,
            constants,
            buffers: layout.sizes.iter().map(|&size| Buffer::in_memory(gpu.as_ref(), size)).collect::<Result<_>>()?,
            scratch: Scratch {
                shared: Buffer::new(scratch.shared),
                lanes: (0..threads).map(|_| Mutex::new(Buffer::new(scratch.lane))).collect(),
                moments: Moments::default(),
            },
            input: Buffer::in_memory(gpu.as_ref(), input)?,
            others: vec![None; program.root.len()],
            written: vec![false; program.root.len()],
            targets: targets.collect(),
            bindings: vec![bindings],
            current: 0,
            mode: None,
            asked,
            needed,
            running: (0..program.steps.len()).collect(),
            program,
            parameters,
            layout,
            share: None,
            gpu,
        })
    }

    /// Waits until the GPU has done all, and says what failed.
    pub fn wait(&self) -> Result<()> {
        self.gpu.as_ref().map_or(Ok(()), Gpu::wait)
    }

    /// Takes the input of a step.
    pub fn prepare(&mut self, x: &[T], batch: usize) -> Result<()> {
        let sample = self.input.len() / self.program.batch;
        if batch == 0 || batch > self.program.batch || x.len() != batch * sample {
            return Err(Refusal::new(
                "batch",
                format!("1 to {} samples of {sample} floats", self.program.batch),
                format!("{batch} samples in {} floats", x.len()),
                "plan for the largest batch",
            ));
        }
        self.current = match self.bindings.iter().position(|b| b.batch == batch) {
            Some(i) => i,
            None => {
                let mut bindings = Bindings::new(&self.program, batch, self.gpu.as_ref())?;
                bindings.place(&self.program, &self.layout);
                self.make_room(&bindings);
                self.bindings.truncate(1);
                self.bindings.push(bindings);
                1
            }
        };
        match self.gpu.as_ref().filter(|gpu| gpu.holds(x)) {
            Some(gpu) => maps::copy(gpu, &mut self.input.raw_mut()[..x.len()], x, false),
            None => self.input.put(x),
        }
        self.mode = None;
        Ok(())
    }

    /// Scratch memory for kernels of another batch size: a smaller batch may be cut into more pieces than the planned one.
    fn make_room(&mut self, bindings: &Bindings<T>) {
        let needs = scratch(&bindings.kernels);
        if self.scratch.shared.len() < needs.shared {
            self.scratch.shared = Buffer::new(needs.shared);
        }
        for lane in &mut self.scratch.lanes {
            let lane = lane.get_mut().unwrap_or_else(PoisonError::into_inner);
            if lane.len() < needs.lane {
                *lane = Buffer::new(needs.lane);
            }
        }
    }

    /// Leaves out of the forward passes that follow what none of these taps depends on.
    pub fn aim(&mut self, taps: &[ValueId]) {
        if self.asked != taps {
            let program = &self.program;
            self.asked = taps.to_vec();
            self.needed = program.needed(taps);
            let runs = |&i: &usize| program.outputs(&program.steps[i]).any(|root| self.needed[root]);
            self.running = (0..program.steps.len()).filter(runs).collect();
        }
    }

    /// Runs the steps that [`State::aim`] chose on the input that [`State::prepare`] took.
    pub fn forward(&mut self, mode: Mode) -> Result<()> {
        let batch = &mut self.bindings[self.current];
        let input = batch.lens[self.program.graph.inputs[0].index()];
        for (place, &i) in self.running.iter().enumerate() {
            let step = &self.program.steps[i];
            let on_gpu = batch.on_gpu[i];
            let x = if on_gpu { &self.input.raw()[..input] } else { self.input.first(input) };
            if step.fallback {
                let inputs = Inputs {
                    on_gpu,
                    places: &batch.places[i],
                    x,
                    parameters: &self.parameters,
                    constants: &self.constants,
                    buffers: &self.buffers,
                    others: &self.others,
                };
                let outputs = fallback::evaluate(&self.program, &batch.bound, step, &self.others, |k| inputs.get(k))?;
                for (value, tensor) in outputs {
                    fallback::store(&mut self.buffers, &mut self.others, &self.layout, value, tensor);
                }
                continue;
            }
            let Some(kernel) = &mut batch.kernels[i] else { continue };
            let buffer = self.layout.value[step.output];
            let mut y = std::mem::take(&mut self.buffers[buffer]);
            let inputs = Inputs {
                on_gpu,
                places: &batch.places[i],
                x,
                parameters: &self.parameters,
                constants: &self.constants,
                buffers: &self.buffers,
                others: &self.others,
            };
            let next = self.running.get(place + 1).map(|&next| &self.program.steps[next]);
            let is_norm = |next: &Step| matches!(next.run, Run::Norm { .. }) && next.inputs[0] == Some(step.output);
            self.scratch.moments.wanted =
                self.gpu.is_none() && matches!(mode, Mode::Train { .. }) && next.is_some_and(is_norm);
            let share = self.share.as_ref();
            let mut context = Context { mode, node: step.node, scratch: &mut self.scratch, share };
            let out = if on_gpu { y.raw_mut() } else { &mut y[..] };
            let out = &mut out[..batch.lens[step.output]];
            if self.layout.in_place[i] {
                kernel.forward_in_place(&inputs, out, &mut context);
            } else {
                kernel.forward(&inputs, out, &mut context);
            }
            self.buffers[buffer] = y;
            if let (Mode::Train { .. }, Some(statistics)) = (mode, kernel.statistics()) {
                update_statistics(
                    &mut self.parameters,
                    &batch.places[i],
                    statistics,
                    self.gpu.as_ref().filter(|_| on_gpu),
                );
            }
        }
        self.mode = Some(mode);
        Ok(())
    }

    /// A tap's values; empty where the last forward pass left it out.
    pub fn value(&self, tap: ValueId) -> &[T] {
        self.tapped(tap).map_or(&[], |(buffer, len)| buffer.first(len))
    }

    /// The same, where they lie.
    pub fn raw(&self, tap: ValueId) -> &[T] {
        self.tapped(tap).map_or(&[], |(buffer, len)| &buffer.raw()[..len])
    }

    /// The buffer that a tap's values lie in, and how many they are.
    fn tapped(&self, tap: ValueId) -> Option<(&Buffer<T>, usize)> {
        let batch = &self.bindings[self.current];
        let &root = self.program.root.get(tap.index())?;
        if self.program.origin[root] == Origin::Computed && !self.needed[root] {
            return None;
        }
        match place(&self.program, &self.layout, root, batch.lens[root]) {
            Place::Input => Some((&self.input, batch.lens[root])),
            Place::Parameter(i) => Some((&self.parameters[i].value, self.parameters[i].value.len())),
            Place::Constant(i) => Some((&self.constants[i], self.constants[i].len())),
            Place::Buffer(b, len) => Some((&self.buffers[b], len)),
            Place::Other(_) | Place::Nowhere => None,
        }
    }

    /// Refuses a backward pass that cannot be: not planned, no forward pass, not a tap or one left out, another length.
    pub fn check_backward(&self, d_taps: &[(ValueId, &[T])]) -> Result<()> {
        if !self.program.backward || self.mode.is_none() {
            let found = if self.program.backward { "none" } else { "a plan without backward" };
            return Err(Refusal::new("backward", "a forward pass before", found, "plan for backward, run forward"));
        }
        let lens = &self.bindings[self.current].lens;
        for (i, (tap, d)) in d_taps.iter().enumerate() {
            let root = self.program.root.get(tap.index());
            let is_computed = self.program.taps.contains(tap) && root.is_some_and(|&root| self.needed[root]);
            let known = is_computed && !d_taps[..i].iter().any(|(other, _)| other == tap);
            let expected = root.and_then(|&root| lens.get(root)).copied().unwrap_or(0);
            if !known || d.len() != expected {
                let name = self.program.graph.values.get(tap.index()).map_or("?", |value| &value.name);
                let at = format!("gradient of `{name}`");
                let unknown = " for no tap, one that was left out, or a second time";
                let found = format!("{} floats{}", d.len(), if known { "" } else { unknown });
                return Err(Refusal::new(
                    at,
                    format!("{expected} floats, once for a tap"),
                    found,
                    "name each tap once",
                ));
            }
        }
        Ok(())
    }

    /// From gradients of taps to those of the parameters. A gradient so small that its products with weights would be denormal
    /// is taken for 0: where a loss has reached 0 all are, and a step would take many times as long.
    pub fn backward(&mut self, d_taps: &[(ValueId, &[T])]) -> Result<()> {
        self.written.fill(false);
        let least = T::SMALLEST * T::from_usize(1 << 26);
        for (tap, d) in d_taps {
            let root = self.program.root[tap.index()];
            let buffer = self.layout.gradient[root];
            if buffer == NOWHERE {
                continue;
            }
            let (add, to) = (self.written[root], &mut self.buffers[buffer]);
            if let Some(gpu) = &self.gpu {
                let sent = if gpu.holds(d) { Buffer::default() } else { Buffer::moved(gpu, d)? };
                let d = if sent.is_empty() { d } else { sent.raw() };
                maps::take_in(gpu, &mut to.raw_mut()[..d.len()], d, least, add);
            } else {
                let sum = |sum: T, d: T| if add { sum + d.flushed(least) } else { d.flushed(least) };
                pointwise::update_with(&mut to[..d.len()], d, sum);
            }
            self.written[root] = true;
        }
        for i in (0..self.program.steps.len()).rev() {
            if self.written[self.program.steps[i].output] {
                self.step_back(i)?;
            }
        }
        // Guests, behind the network's parameters, have their gradients from their owner.
        for (i, (parameter, id)) in self.parameters.iter_mut().zip(&self.program.parameters).enumerate() {
            self.reached[i] = self.written[id.index()];
            if !self.reached[i] {
                parameter.gradient.zero();
            }
        }
        Ok(())
    }

    fn step_back(&mut self, i: usize) -> Result<()> {
        let step = &self.program.steps[i];
        let batch = &mut self.bindings[self.current];
        let Some(kernel) = &mut batch.kernels[i] else { return Ok(()) };
        let on_gpu = batch.on_gpu[i];
        let in_place = self.layout.gradient_in_place[i];
        let mut targets = std::mem::take(&mut self.targets[i]);
        for (k, target) in targets.iter_mut().enumerate() {
            let root = step.inputs[k].unwrap_or(0);
            target.wanted = step.wanted[k] && !(in_place && k == 0);
            if !target.wanted {
                continue;
            }
            (target.len, target.on_gpu) = (batch.lens[root], on_gpu);
            let twin = self.layout.twins[i][k];
            target.add = self.written[root] && twin == NOWHERE;
            target.buffer = match (twin, self.program.origin[root]) {
                (NOWHERE, Origin::Parameter(p)) => std::mem::take(&mut self.parameters[p].gradient),
                (NOWHERE, _) => std::mem::take(&mut self.buffers[self.layout.gradient[root]]),
                (twin, _) => std::mem::take(&mut self.buffers[twin]),
            };
        }
        let gradient = self.layout.gradient[step.output];
        let mut d = std::mem::take(&mut self.buffers[gradient]);
        let input = batch.lens[self.program.graph.inputs[0].index()];
        let inputs = Inputs {
            on_gpu,
            places: &batch.places[i],
            x: if on_gpu { &self.input.raw()[..input] } else { self.input.first(input) },
            parameters: &self.parameters,
            constants: &self.constants,
            buffers: &self.buffers,
            others: &self.others,
        };
        let len = batch.lens[step.output];
        let y = &self.buffers[self.layout.value[step.output]];
        let y = match y.len() < len {
            true => &[],
            false if on_gpu => &y.raw()[..len],
            false => y.first(len),
        };
        let from = if on_gpu { d.raw_mut() } else { &mut d[..] };
        let mode = self.mode.unwrap_or(Mode::Eval);
        let share = self.share.as_ref();
        let mut context = Context { mode, node: step.node, scratch: &mut self.scratch, share };
        if in_place {
            kernel.backward_in_place(&inputs, y, &mut from[..len], &mut targets, &mut context);
        } else {
            kernel.backward(&inputs, y, &from[..len], &mut targets, &mut context);
        }
        self.buffers[gradient] = d;
        self.give_back(i, targets);
        Ok(())
    }

    /// Returns a step's gradients to their owners.
    fn give_back(&mut self, i: usize, mut targets: Vec<Gradient<T>>) {
        let step = &self.program.steps[i];
        for (k, target) in targets.iter_mut().enumerate().filter(|(k, _)| step.wanted[*k]) {
            let root = step.inputs[k].unwrap_or(0);
            self.written[root] = true;
            if !target.wanted {
                continue;
            }
            let buffer = std::mem::take(&mut target.buffer);
            let twin = self.layout.twins[i][k];
            let gradient = self.layout.gradient[root];
            match (twin, self.program.origin[root]) {
                (NOWHERE, Origin::Parameter(p)) => self.parameters[p].gradient = buffer,
                (NOWHERE, _) => self.buffers[gradient] = buffer,
                (_, origin) => {
                    let owner = match origin {
                        Origin::Parameter(p) => &mut self.parameters[p].gradient,
                        _ => &mut self.buffers[gradient],
                    };
                    let len = target.len;
                    match &self.gpu {
                        Some(gpu) => maps::copy(gpu, &mut owner.raw_mut()[..len], &buffer.raw()[..len], true),
                        None => pointwise::copy(&mut owner[..len], true, &buffer[..len]),
                    }
                    self.buffers[twin] = buffer;
                }
            }
        }
        self.targets[i] = targets;
    }
}

/// `running = running * momentum + batch * (1 - momentum)`, ONNX's convention.
fn update_statistics<T: Real>(
    parameters: &mut [Parameter<T>],
    places: &[Place],
    (mean, var, momentum): (&[T], &[T], T),
    gpu: Option<&Gpu>,
) {
    for (place, batch) in [(places.get(3), mean), (places.get(4), var)] {
        if let Some(&Place::Parameter(p)) = place {
            if let Some(gpu) = gpu {
                maps::blend(gpu, parameters[p].value.raw_mut(), batch, [momentum, T::ONE - momentum]);
                continue;
            }
            for (running, &batch) in parameters[p].value.iter_mut().zip(batch) {
                *running = *running * momentum + batch * (T::ONE - momentum);
            }
        }
    }
}
