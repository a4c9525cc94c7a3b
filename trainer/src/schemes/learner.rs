//! One network that learns: from the labels, from what frozen teachers say of the same batch, and from itself.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use kd_runtime::contract::Contract;
use kd_runtime::graph::{Graph, ValueId};
use kd_runtime::{Refusal, Result};

use super::At;
use super::meeting::Snapshot;
use super::owed::{Owed, finite};
use super::teachers::{Feed, Taught, Teachers};
use super::terms::{Extended, Passes, Term, extend, only};
use crate::data::{Counts, RawBatch, UNLABELLED, scale};
use crate::exec::{Compute, Executor, Mode, Parameter, Plan, Share};
use crate::gpu::losses::{Given, Seen, count_right};
use crate::losses::ce::{Targets, balanced};
use crate::losses::pair::cut;
use crate::losses::{Batch, OwnGradient, Tap};
use crate::ops::kernels::buffer::Buffer;
use crate::recipe::{ClassWeights, Distill, Train};
use crate::teacher::{Network, largest, same_network};

/// The place of the task's loss among the terms, where it has a weight.
const TASK: Range<usize> = 0..1;

/// A network that learns.
pub struct Learner {
    /// The learning network with its adapters; its parameters (those of the losses behind them) hold the gradients of the
    /// last step.
    pub executor: Executor<f32>,
    /// Names of the loss terms in order: `ce`, then those of the recipe (`kd`; a second one of the same name is `kd.2`).
    pub term_names: Vec<String>,
    /// Values that answer as the output does, from the shallowest.
    pub exits: Vec<Tap>,
    /// Whether terms that read a teacher count: a replica that burns in does not listen to the others.
    pub listens: bool,
    /// Where the optimizer wants it apart: for each parameter the gradient of the task's loss at the last step (empty where
    /// it has none); the executor's is then that of the other terms. Else empty.
    pub task_gradients: Vec<Buffer<f32>>,
    /// This process's share of the next batch, where several have one together: losses, gradients and batch statistics are
    /// then those of the whole.
    pub share: Option<Share>,
    passes: Passes,
    /// For each parameter whether it is the student's, and no adapter's or loss's.
    is_student: Vec<bool>,
    contract: Contract,
    terms: Vec<Wired>,
    teachers: Teachers,
    /// Values of the network that terms read, and the sum of their gradients.
    taps: Vec<(ValueId, Buffer<f32>)>,
    /// Where the network lies on a GPU.
    owed: Option<Owed>,
    output: ValueId,
    x: Vec<f32>,
    /// Gradients that are summed with those of other processes.
    summed: Vec<f32>,
}

/// A term with the values that it reads.
struct Wired {
    term: Term,
    /// Places in [`Learner::taps`] of what it reads of the learning network, and the gradients that it gives.
    student: Vec<usize>,
    d_student: Vec<Buffer<f32>>,
    teacher: Vec<Taught>,
    /// What it reads of the teachers, where the host has that and a GPU reads it.
    sent: Vec<Buffer<f32>>,
    /// Its factor at the last step, where it took part.
    weight: Option<f64>,
    /// What of the whole batch's value that of this process is a part of counts here; 1 of a process that is alone.
    part: f32,
    /// Places of its own arrays among the executor's parameters.
    own: Range<usize>,
}

/// Values of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepValues {
    /// Samples of the batch.
    pub samples: usize,
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Each term's value, not weighted, in the order of [`Learner::term_names`]; 0 of one that does not take part.
    pub terms: Vec<f64>,
    /// What each value counts beside those of other batches: what it was divided by, or the samples of one that is a sum or
    /// does not take part.
    pub counts: Vec<f64>,
    /// The factor of each at this step; 0 of one that does not take part.
    pub weights: Vec<f64>,
    /// Samples whose class is known.
    pub labelled: usize,
    /// Those whose largest logit was their class.
    pub right: usize,
}

impl Learner {
    /// Plans a network with its teachers and the adapters of its terms, whose first weights `seed` decides. Without
    /// `distill` it learns from the labels alone (the baseline, a teacher). `samples` are those that are trained on.
    /// Checks that every term's taps exist and classes agree, that no teacher equals the student.
    pub fn new(
        graph: &Graph,
        contract: &Contract,
        train: &Train,
        distill: Option<(&Distill, &[Network])>,
        compute: Compute<'_>,
        samples: &Counts,
        seed: u64,
    ) -> Result<Self> {
        let networks = distill.map_or(&[][..], |(_, networks)| networks);
        networks.iter().try_for_each(|network| check_teacher(network, graph, contract))?;
        let recipe = distill.map(|(distill, _)| distill);
        let passes = Passes::of(train, recipe);
        let student: BTreeSet<&str> = graph.initializers.keys().map(|&id| graph.value(id).name.as_str()).collect();
        let Extended { graph, exits, terms, .. } =
            extend(graph, contract, recipe, targets(train, samples), only(networks), samples.n, seed)?;
        if terms.is_empty() {
            let action = "set distill.task_weight above 0, or add a term";
            return Err(Refusal::new("distill", "a loss to learn from", "none", action));
        }
        let mut taps: Vec<String> = vec![contract.output.name.clone()];
        taps.extend(terms.iter().flat_map(|term| term.loss.student_taps()).cloned());
        let Compute { threads, gpu } = compute;
        let batch = train.batch.min(samples.n);
        let plan = Plan { batch, taps, backward: true, threads, gpu: gpu.cloned() };
        let mut executor =
            if passes.several() { Executor::for_several_passes(&graph, &plan) } else { Executor::new(&graph, &plan) }?;
        let taught: Vec<&str> = terms.iter().flat_map(|term| term.loss.teacher_taps()).map(String::as_str).collect();
        let mut teachers = Teachers::new(networks, &taught, batch, compute)?;
        let mut taps: Vec<(ValueId, Buffer<f32>)> = Vec::new();
        let term_names = terms.iter().map(|term| term.name.clone()).collect();
        let mut wired = Vec::with_capacity(terms.len());
        for term in terms {
            let (mut student, mut d_student, mut teacher) = (Vec::new(), Vec::new(), Vec::new());
            for name in term.loss.student_taps() {
                let id = executor.tap(name)?;
                let known = taps.iter().position(|(known, _)| *known == id);
                student.push(known.unwrap_or(taps.len()));
                let elements = batch * executor.tap_shape(id).iter().product::<usize>();
                d_student.push(Buffer::in_memory(gpu, elements)?);
                if known.is_none() {
                    taps.push((id, Buffer::in_memory(gpu, elements)?));
                }
            }
            for name in term.loss.teacher_taps() {
                teacher.push(teachers.taught(networks, name, term.temperature, term.loss.average())?);
            }
            executor.freeze(term.loss.frozen());
            let first = executor.adopt(term.loss.own())?;
            let own = first..executor.parameters().len();
            let sent = teacher.iter().map(|_| Buffer::default()).collect();
            wired.push(Wired { term, d_student, student, teacher, sent, weight: None, part: 1.0, own });
        }
        let output = executor.tap(&contract.output.name)?;
        let is_student = executor.parameters().iter().map(|p| student.contains(&*p.name)).collect();
        let apart = if passes.split { executor.parameters().len() } else { 0 };
        let task_gradients = (0..apart).map(|_| Buffer::default()).collect();
        let owed = gpu.map(|gpu| Owed::new(gpu, wired.len(), batch)).transpose()?;
        let (contract, terms, x) = (contract.clone(), wired, Vec::new());
        Ok(Self {
            executor,
            term_names,
            exits,
            listens: true,
            task_gradients,
            share: None,
            passes,
            is_student,
            contract,
            terms,
            teachers,
            taps,
            owed,
            output,
            x,
            summed: Vec::new(),
        })
    }

    /// Keeps in `folder` what teachers that wish it say of all samples, and asks them no more. Remarks go to `note`.
    pub fn keep_answers(
        &mut self,
        folder: &Path,
        feed: &Feed<'_>,
        batch: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.teachers.keep(folder, feed, batch, note)
    }

    /// What it leaves for others to listen to: the student's parameters, and no adapter's or loss's.
    pub fn left(&self) -> Vec<&Parameter<f32>> {
        let all = self.executor.parameters().iter().zip(&self.is_student);
        all.filter(|(_, is_student)| **is_student).map(|(parameter, _)| parameter).collect()
    }

    /// The same, copied.
    pub fn snapshot(&self) -> Vec<(String, Vec<f32>)> {
        self.left().into_iter().map(|parameter| (parameter.name.clone(), parameter.value.to_vec())).collect()
    }

    /// The parameters of those that it listens to, as it knows them.
    pub fn listened_to(&self) -> Vec<&[Parameter<f32>]> {
        self.teachers.parameters()
    }

    /// Listens, from now on, to these snapshots of its teachers, where there are new ones. Says whether any was ever heard.
    pub fn hear(&mut self, snapshots: &[Option<Snapshot>]) -> bool {
        self.teachers.hear(snapshots)
    }

    /// Says which epoch follows; gives the one whose augmentations its samples are to have: another one where teachers'
    /// answers to a few augmented views are kept.
    pub fn begin_epoch(&mut self, epoch: usize) -> usize {
        self.teachers.begin_epoch(epoch)
    }

    /// As [`Learner::queue`], until it is done.
    pub fn step(&mut self, batch: &RawBatch, seed: u64, at: At) -> Result<StepValues> {
        let mut known = self.queue(batch, seed, at)?;
        known.extend(self.settle()?);
        Ok(known.pop().expect("a step that was queued is settled"))
    }

    /// Waits for the steps whose values are not known yet, and gives those. Refuses as [`Learner::queue`].
    pub fn settle(&mut self) -> Result<Vec<StepValues>> {
        let Self { owed, executor, term_names, .. } = self;
        owed.as_mut().map_or(Ok(Vec::new()), |owed| owed.settle(executor, term_names))
    }

    /// Forward, losses and backward of one batch; the optimizer is the caller's. `at` drives the schedules of the terms'
    /// weights, `seed` the dropout masks. Neither the student nor a teacher computes what only terms read that do not
    /// take part. Gives the values of steps that are known by now: on the host of this one, on a GPU at times those of many.
    /// Refuses a loss that is not finite, naming the term.
    pub fn queue(&mut self, batch: &RawBatch, seed: u64, at: At) -> Result<Vec<StepValues>> {
        let Self { executor, contract, terms, teachers, taps, output, x, listens, owed, .. } = self;
        let n = batch.labels.len();
        let (mut read, mut taught) = (vec![*output], Vec::new());
        for wired in &mut *terms {
            let heard = *listens || wired.teacher.is_empty();
            wired.weight = wired.term.factor(at).filter(|_| heard);
            if wired.weight.is_some() {
                read.extend(wired.student.iter().map(|&place| taps[place].0));
                taught.extend_from_slice(&wired.teacher);
            }
        }
        scale(contract, &batch.values, x);
        executor.take_share(self.share.clone());
        executor.queue_forward(&read, x, n, Mode::Train { seed })?;
        teachers.answer(batch, &taught)?;
        let progress = at.step as f64 / at.steps.max(1) as f64;
        let seen = Batch { size: n, labels: &batch.labels, mixed: &batch.mixed, places: &batch.places, progress };
        let mut values = StepValues { samples: n, terms: Vec::with_capacity(terms.len()), ..StepValues::default() };
        let mut on_their_way = vec![None; terms.len()];
        owed.iter_mut().for_each(|owed| owed.begin(&seen));
        for (i, wired) in terms.iter_mut().enumerate() {
            values.weights.push(wired.weight.unwrap_or(0.0));
            let is_mean = wired.weight.is_some() && !wired.term.sums;
            values.counts.push(if is_mean { wired.term.loss.divisor(&seen) } else { n as f64 });
            let Some(weight) = wired.weight else {
                values.terms.push(0.0);
                executor.parameters_mut()[wired.own.clone()].iter_mut().for_each(|own| own.gradient.zero());
                continue;
            };
            if let Some(owed) = owed
                && wired.queue(i, &seen, executor, teachers, taps, owed)?
            {
                on_their_way[i] = Some(weight);
                values.terms.push(0.0);
                continue;
            }
            let value = wired.value(&seen, executor, teachers, taps, weight as f32)?;
            let value = finite(value, &wired.term.name, at.step + 1)?;
            values.terms.push(value);
            values.loss += weight * value;
        }
        values.labelled = batch.labels.iter().filter(|label| **label != UNLABELLED).count();
        if let (Some(owed), Some(gpu)) = (owed, executor.gpu()) {
            let (right, targets) = owed.right(n);
            count_right(gpu, executor.raw(*output), targets, right);
        } else {
            let rows = executor.value(*output).chunks_exact((executor.value(*output).len() / n.max(1)).max(1));
            values.right = rows.zip(&batch.labels).filter(|(row, label)| largest(row) == **label).count();
        }
        if let Some(share) = self.share.clone() {
            self.make_whole(&share, &seen, &mut values)?;
        }
        let all = 0..self.terms.len();
        let takes_part = |terms: &[Wired]| terms.iter().any(|wired| wired.weight.is_some());
        if self.passes.split && takes_part(&self.terms[TASK]) && takes_part(&self.terms[TASK.end..]) {
            self.backward(TASK, false)?;
            self.keep_task_gradients()?;
            self.backward(TASK.end..all.end, true)?;
        } else {
            self.task_gradients.iter_mut().for_each(|task| *task = Buffer::default());
            self.backward(all, false)?;
        }
        let Some(owed) = &mut self.owed else { return Ok(vec![values]) };
        if owed.end(at.step + 1, values, on_their_way) { self.settle() } else { Ok(Vec::new()) }
    }

    /// From the values of a share to those of the whole batch; what the terms' own arrays have of gradients, too. A value is
    /// a mean: it counts by what it was divided by (or a sum).
    fn make_whole(&mut self, share: &Share, seen: &Batch<'_>, values: &mut StepValues) -> Result<()> {
        let divisor = |wired: &Wired| match share.samples {
            0 => 0.0,
            _ if wired.term.sums => 1.0,
            _ => wired.term.loss.divisor(seen),
        };
        let divisors: Vec<f64> = self.terms.iter().map(divisor).collect();
        let mut mine = divisors.clone();
        mine.extend(values.terms.iter().zip(&divisors).map(|(value, divisor)| value * divisor));
        let counts = [values.samples as f64, values.labelled as f64, values.right as f64];
        mine.extend(if share.samples == 0 { [0.0; 3] } else { counts });
        let all = share.group.gather(&mine)?;
        let sum = |i: usize| all.chunks_exact(mine.len()).map(|rank| rank[i]).sum::<f64>();
        let terms = self.terms.len();
        values.loss = 0.0;
        for (i, wired) in self.terms.iter_mut().enumerate() {
            let whole = if wired.term.sums { 1.0 } else { sum(i) };
            let over = |value: f64| if whole > 0.0 { value / whole } else { 0.0 };
            (wired.part, values.terms[i]) = (over(divisors[i]) as f32, over(sum(terms + i)));
            values.loss += wired.weight.unwrap_or(0.0) * values.terms[i];
            values.counts[i] = if wired.weight.is_some() && !wired.term.sums { whole } else { sum(2 * terms) };
            let own = self.executor.parameters_mut()[wired.own.clone()].iter_mut();
            own.flat_map(|own| &mut own.gradient).for_each(|d| *d *= wired.part);
        }
        [values.samples, values.labelled, values.right] = [0, 1, 2].map(|i| sum(2 * terms + i) as usize);
        self.sum_gradients(self.executor.network_parameters()..self.executor.parameters().len())
    }

    /// From the gradients that a share has of some parameters to those of the whole batch.
    fn sum_gradients(&mut self, of: Range<usize>) -> Result<()> {
        let Self { executor, share, summed, .. } = self;
        let Some(share) = share else { return Ok(()) };
        let mut trained: Vec<&mut Buffer<f32>> =
            executor.parameters_mut()[of].iter_mut().filter(|p| p.role.is_trained()).map(|p| &mut p.gradient).collect();
        summed.clear();
        trained.iter().for_each(|gradient| summed.extend_from_slice(gradient));
        if summed.is_empty() {
            return share.group.check();
        }
        share.group.sum(summed)?;
        let mut from = 0;
        for gradient in &mut trained {
            let len = gradient.len();
            gradient.copy_from_slice(&summed[from..from + len]);
            from += len;
        }
        Ok(())
    }

    /// For each parameter whether a term that took part in the last step depends on it.
    pub fn moves(&self) -> Vec<bool> {
        let mut moves = self.executor.reached().to_vec();
        moves.resize(self.executor.parameters().len(), false);
        for wired in &self.terms {
            moves[wired.own.clone()]
                .fill(wired.weight.is_some() && wired.term.loss.own_gradient() != OwnGradient::Nothing);
        }
        moves
    }

    /// From the gradients of some terms, weighted, to those of the parameters; `again`: not the first time for a step.
    fn backward(&mut self, terms: Range<usize>, again: bool) -> Result<()> {
        let Self { executor, taps, .. } = self;
        let mut is_read = vec![false; taps.len()];
        for wired in &self.terms[terms] {
            let Some(weight) = wired.weight else { continue };
            let factor = weight as f32 * wired.part;
            for (&place, d_term) in wired.student.iter().zip(&wired.d_student) {
                let (tap, sum) = &mut taps[place];
                let len = executor.raw(*tap).len();
                let keep = if std::mem::replace(&mut is_read[place], true) { 1.0 } else { 0.0 };
                sum.blend_first(len, keep, factor, d_term);
            }
        }
        let read = taps.iter().zip(is_read).filter(|(_, is_read)| *is_read);
        let d_taps: Vec<(ValueId, &[f32])> =
            read.map(|((tap, d), _)| (*tap, &d.raw()[..executor.raw(*tap).len()])).collect();
        if again { executor.backward_again(&d_taps) } else { executor.backward(&d_taps) }?;
        self.sum_gradients(0..self.executor.network_parameters())
    }

    /// Sets the gradients of the last backward pass aside. Refused where a GPU has no memory for them.
    fn keep_task_gradients(&mut self) -> Result<()> {
        let Self { executor, task_gradients, .. } = self;
        let reached = executor.reached();
        for (i, (kept, p)) in task_gradients.iter_mut().zip(executor.parameters()).enumerate() {
            if reached.get(i) != Some(&true) {
                *kept = Buffer::default();
                continue;
            }
            if kept.len() != p.gradient.len() {
                *kept = p.gradient.beside(p.gradient.len())?;
            }
            kept.copy_from(&p.gradient);
        }
        Ok(())
    }

    /// As [`Executor::check_gradients`], of the last step: what terms that did not take part depend on misses none.
    pub fn check_gradients(&self) -> Result<()> {
        let idle = self.terms.iter().filter(|wired| wired.weight.is_none()).flat_map(|wired| &wired.student);
        let idle: Vec<ValueId> = idle.map(|&place| self.taps[place].0).collect();
        self.executor.check_gradients(&idle)
    }

    /// The 2-norm, over the student's own parameters, of the gradient that each term has with its weight, of the batch of
    /// the last step; without terms that did not take part. Changes nothing that training depends on. Refused unless the
    /// recipe asks for it (`distill.diagnose`), and where one is not finite.
    pub fn gradient_norms(&mut self) -> Result<Vec<(String, f64)>> {
        let kept: Vec<Vec<f32>> = self.executor.parameters().iter().map(|p| p.gradient.to_vec()).collect();
        let mut norms = Vec::with_capacity(self.terms.len());
        for i in 0..self.terms.len() {
            if self.terms[i].weight.is_none() {
                continue;
            }
            self.backward(i..i + 1, true)?;
            let own =
                self.executor.parameters().iter().zip(&self.is_student).filter(|(p, own)| **own && p.role.is_trained());
            let squares: f64 = own.flat_map(|(p, _)| &p.gradient).map(|&g| f64::from(g) * f64::from(g)).sum();
            let norm = squares.sqrt();
            if !norm.is_finite() {
                let (place, action) =
                    (format!("term `{}`", self.terms[i].term.name), "lower the learning rate or check the data");
                return Err(Refusal::new(place, "a finite gradient", norm, action));
            }
            norms.push((self.terms[i].term.name.clone(), norm));
        }
        self.executor
            .parameters_mut()
            .iter_mut()
            .zip(kept)
            .for_each(|(p, gradient)| p.gradient.copy_from_slice(&gradient));
        Ok(norms)
    }

    /// The network with its present parameters, without adapters that its output does not need.
    pub fn network(&self) -> Result<Graph> {
        cut(&self.executor.to_graph(), &self.contract.output.name, &self.contract.output.name)
    }

    /// Refuses teachers whose parameters are not, bit for bit, those they had when the learner was planned.
    pub fn check_teachers_unchanged(&self) -> Result<()> {
        self.teachers.check_unchanged()
    }
}

impl Wired {
    /// Queues term number `i` of a batch, if a GPU does it; says whether. Leaves its gradients by the student in `d_student`, not
    /// weighted.
    fn queue(
        &mut self,
        i: usize,
        batch: &Batch<'_>,
        executor: &Executor<f32>,
        teachers: &Teachers,
        taps: &[(ValueId, Buffer<f32>)],
        owed: &mut Owed,
    ) -> Result<bool> {
        let (Some(kernel), Some(gpu)) = (self.term.loss.on_gpu(), executor.gpu()) else { return Ok(false) };
        for (&taught, sent) in self.teacher.iter().zip(&mut self.sent) {
            let said = teachers.raw(taught);
            if gpu.holds(said) {
                continue;
            }
            if sent.len() < said.len() {
                *sent = Buffer::on(gpu, said.len())?;
            }
            sent.put(said);
        }
        let student: Vec<&[f32]> = self.student.iter().map(|&place| executor.raw(taps[place].0)).collect();
        let teacher = self.teacher.iter().zip(&self.sent).map(|(&taught, sent)| {
            let said = teachers.raw(taught);
            if gpu.holds(said) { said } else { &sent.raw()[..said.len()] }
        });
        let teacher: Vec<&[f32]> = teacher.collect();
        let d_student = self.d_student.iter_mut().zip(&student).map(|(d, student)| &mut d.raw_mut()[..student.len()]);
        let mut d_student: Vec<&mut [f32]> = d_student.collect();
        let (value, sums, targets) = owed.places(i, batch.size);
        let seen = Seen { gpu, batch, targets, student: &student, teacher: &teacher };
        kernel.value(&seen, &mut Given { d_student: &mut d_student, sums, value })?;
        Ok(true)
    }

    /// The term's value for a batch, not weighted. Leaves its gradients by the student in `d_student`, not weighted, and
    /// those by its own arrays, weighted if they are of the value, in the executor.
    fn value(
        &mut self,
        batch: &Batch<'_>,
        executor: &mut Executor<f32>,
        teachers: &Teachers,
        taps: &[(ValueId, Buffer<f32>)],
        weight: f32,
    ) -> Result<f64> {
        let mut own = executor.lend(self.own.clone());
        let student: Vec<&[f32]> = self.student.iter().map(|&place| executor.value(taps[place].0)).collect();
        let teacher: Vec<&[f32]> = self.teacher.iter().map(|&taught| teachers.value(taught)).collect();
        let d_student = self.d_student.iter_mut().zip(&student).map(|(d, student)| &mut d[..student.len()]);
        let mut d_student: Vec<&mut [f32]> = d_student.collect();
        let value =
            executor.wait().and_then(|()| self.term.loss.value(batch, &student, &teacher, &mut d_student, &mut own));
        if self.term.loss.own_gradient() == OwnGradient::OfValue {
            own.iter_mut().flat_map(|own| &mut own.gradient).for_each(|d| *d *= weight);
        }
        executor.give_back(self.own.start, own);
        Ok(f64::from(value?))
    }
}

/// What the task's loss wants of the samples.
fn targets(train: &Train, samples: &Counts) -> Targets<f32> {
    let weights = match train.class_weights {
        ClassWeights::Equal => Vec::new(),
        ClassWeights::Balanced => balanced(&samples.per_class),
    };
    Targets { smoothing: train.label_smoothing as f32, weights }
}

/// Refuses a teacher that answers other classes, that is fed other samples, or that is the student itself.
fn check_teacher(network: &Network, graph: &Graph, contract: &Contract) -> Result<()> {
    let at = format!("teacher `{}`", network.name);
    let (ours, theirs) = (&contract.output.classes, &network.contract.output.classes);
    if ours.len() != theirs.len() {
        let expected = format!("{} classes, as the student has", ours.len());
        return Err(Refusal::new(at, expected, theirs.len(), "choose a teacher of the same classes"));
    }
    let (ours, theirs) = (contract.input.elements(), network.contract.input.elements());
    if ours != theirs {
        let expected = format!("samples of {ours} values, as the student has");
        return Err(Refusal::new(at, expected, theirs, "choose a teacher of the same data"));
    }
    if same_network(graph, &network.graph) {
        let found = "the student itself, with its weights";
        return Err(Refusal::new(at, "a network that differs from the student", found, "choose another teacher"));
    }
    Ok(())
}
