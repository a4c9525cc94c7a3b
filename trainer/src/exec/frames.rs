//! Which values are images with their channels last, with what halo, and which steps are run as one.
//!
//! A batch norm takes the sum and the ReLU after it with it. Convolutions, pools and normalisations work on frames;
//! element-wise steps follow their inputs; all others are planar. Where neighbours differ a step that converts is put
//! in. What a tap sees is planar.

use std::collections::BTreeMap;

use kd_runtime::Refusal;
use kd_runtime::Result;
use kd_runtime::graph::ValueId;
use kd_runtime::graph::infer::Bound;
use kd_runtime::ops::Op;

use super::Real;
use super::program::{Origin, Program, Run, Step};
use crate::ops::kernels::frame::Frame;
use crate::ops::kernels::taps::{gradient_halo, value_halo};
use crate::ops::kernels::window::Window2;

/// What a step asks of its inputs that are images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Frames, and its output is one.
    Frames,
    /// Frames, and its output is planar.
    FramesToPlanar,
    /// Whatever its first input is.
    Follow,
    /// Planar.
    Planar,
}

/// Plans the frames of a program whose steps are those of the graph; `halos`: whether convolutions read their pads.
pub fn plan<T: Real>(program: &mut Program<T>, bound: &[Option<Bound>], halos: bool) -> Result<()> {
    fuse(program, bound);
    let mut planner = Planner { bound, framed: BTreeMap::new(), planar: BTreeMap::new(), links: Vec::new() };
    for step in std::mem::take(&mut program.steps) {
        planner.add(program, step);
    }
    for i in 0..program.taps.len() {
        let tap = program.taps[i].index();
        program.root[tap] = planner.planar_of(program, program.root[tap]);
    }
    if halos {
        planner.set_halos(program)?;
    }
    check_sizes(program)
}

/// Runs a batch norm, an Add of a same-shaped value and a Relu as one step, where nobody else sees what lies between. Each
/// reads what the one before gives under the shape that it has there: behind a Flatten its elements are others' neighbours.
fn fuse<T: Real>(program: &mut Program<T>, bound: &[Option<Bound>]) {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); program.root.len()];
    for (i, step) in program.steps.iter().enumerate() {
        step.inputs.iter().flatten().for_each(|&root| readers[root].push(i));
    }
    for tap in &program.taps {
        // Somebody outside reads it: never the only reader.
        readers[program.root[tap.index()]].extend([usize::MAX; 2]);
    }
    let op = |steps: &[Step], i: usize| program.graph.nodes[steps[i].node].op.clone();
    let only_reader = |root: usize| match readers[root][..] {
        [i] => Some(i),
        _ => None,
    };
    let shape = |root: usize| bound[root].as_ref().map(|b| &b.shape);
    let reads = |step: &Step, k: usize, as_root: usize| {
        step.ids[k].is_some_and(|id| shape(id.index()).is_some() && shape(id.index()) == shape(as_root))
    };
    let mut steps = std::mem::take(&mut program.steps);
    let mut gone = vec![false; steps.len()];
    for i in (0..steps.len()).rev() {
        if gone[i] || steps[i].fallback || !matches!(op(&steps, i), Op::BatchNormalization(_)) {
            continue;
        }
        let mut last = i;
        let mut fused = steps[i].clone();
        if let Some(j) = only_reader(fused.output).filter(|&j| !gone[j] && matches!(op(&steps, j), Op::Add(_))) {
            let own = usize::from(steps[j].inputs[1] == Some(fused.output));
            if let Some(other) = steps[j].inputs[1 - own]
                && program.origin[other] == Origin::Computed
                && shape(other) == shape(fused.output)
                && reads(&steps[j], own, fused.output)
                && reads(&steps[j], 1 - own, other)
            {
                fused.inputs.push(Some(other));
                fused.ids.push(steps[j].ids[1 - own]);
                fused.wanted.push(steps[j].wanted[1 - own]);
                fused.output = steps[j].output;
                (gone[last], last) = (true, j);
            }
        }
        let mut relu = false;
        let is_relu = |j: &usize| !gone[*j] && matches!(op(&steps, *j), Op::Relu(_));
        if let Some(j) = only_reader(fused.output).filter(is_relu).filter(|&j| reads(&steps[j], 0, fused.output)) {
            fused.output = steps[j].output;
            (gone[last], last) = (true, j);
            relu = true;
        }
        fused.run = Run::Norm { relu };
        steps[last] = fused;
    }
    program.steps = steps.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(step, _)| step).collect();
}

struct Planner<'a> {
    bound: &'a [Option<Bound>],
    /// Frames made of a root for a shape, and planar copies of framed roots.
    framed: BTreeMap<(usize, Vec<usize>), usize>,
    planar: BTreeMap<usize, usize>,
    /// Roots whose pixels must lie at the same places, and whether they also share what is read of their halos.
    links: Vec<(usize, usize, bool)>,
}

impl Planner<'_> {
    fn shape<T>(&self, program: &Program<T>, root: usize) -> Vec<usize> {
        self.bound[program.value_of[root]].as_ref().map(|b| b.shape.clone()).unwrap_or_default()
    }

    fn wish<T: Real>(&self, program: &Program<T>, step: &Step) -> Wish {
        let node = &program.graph.nodes[step.node];
        let shape = |k: usize| step.ids.get(k).copied().flatten().and_then(|id| self.bound[id.index()].as_ref());
        let Some(first) = shape(0).filter(|_| !step.fallback) else { return Wish::Planar };
        let rank = first.shape.len();
        match &node.op {
            Op::BatchNormalization(_) if rank == 2 => Wish::Planar,
            Op::Conv(_) | Op::BatchNormalization(_) | Op::MaxPool(_) | Op::AveragePool(_) if rank == 3 || rank == 4 => {
                Wish::Frames
            }
            Op::GlobalAveragePool(_) if rank == 3 || rank == 4 => Wish::FramesToPlanar,
            Op::Relu(_) | Op::LeakyRelu(_) => Wish::Follow,
            Op::Clip(_) => {
                let bound = |k: usize| step.ids.get(k).copied().flatten().map(|id| program.graph.initializers.get(&id));
                let float = |k: usize, default: f32| match bound(k) {
                    None => Some(default),
                    Some(tensor) => tensor.and_then(|t| t.get::<f32>()).and_then(<[f32]>::first).copied(),
                };
                let holds_zero =
                    float(1, -1.0).is_some_and(|low| low <= 0.0) && float(2, 1.0).is_some_and(|high| high >= 0.0);
                if holds_zero { Wish::Follow } else { Wish::Planar }
            }
            Op::Add(_) | Op::Mul(_) if shape(1).is_some_and(|second| second.shape == first.shape) => Wish::Follow,
            _ => Wish::Planar,
        }
    }

    fn add<T: Real>(&mut self, program: &mut Program<T>, mut step: Step) {
        let wish = self.wish(program, &step);
        let images: &[usize] = match program.graph.nodes[step.node].op {
            Op::Add(_) | Op::Mul(_) => &[0, 1],
            Op::BatchNormalization(_) => &[0, 5],
            _ => &[0],
        };
        let is_frame = |root: &usize| program.frames[*root].is_some();
        let frames = match wish {
            Wish::Frames | Wish::FramesToPlanar => true,
            Wish::Follow => images.iter().any(|&k| {
                let is_image =
                    |id: &ValueId| self.bound[id.index()].as_ref().and_then(|b| Frame::of(&b.shape)).is_some();
                let root = step.inputs.get(k).copied().flatten();
                root.is_some_and(|root| is_frame(&root)) && step.ids[k].as_ref().is_some_and(is_image)
            }),
            Wish::Planar => false,
        };
        for k in 0..step.inputs.len() {
            let (Some(root), Some(id)) = (step.inputs[k], step.ids[k]) else { continue };
            step.inputs[k] = Some(if frames && images.contains(&k) {
                let shape = self.bound[id.index()].as_ref().map(|b| b.shape.clone()).unwrap_or_default();
                self.in_frame(program, root, id.index(), shape)
            } else {
                self.planar_of(program, root)
            });
        }
        if frames && wish != Wish::FramesToPlanar {
            program.frames[step.output] = Frame::of(&self.shape(program, step.output));
            if matches!(program.graph.nodes[step.node].op, Op::BatchNormalization(_)) {
                // So that the gradient of its input can be written over that of its output.
                self.links.extend(step.inputs[0].map(|root| (root, step.output, false)));
            }
            if wish == Wish::Follow {
                let inputs = images.iter().filter_map(|&k| step.inputs.get(k).copied().flatten());
                self.links.extend(inputs.map(|root| (root, step.output, true)));
            }
        }
        program.steps.push(step);
    }

    /// The root that holds a value (a root's elements under this shape) as a frame.
    fn in_frame<T: Real>(&mut self, program: &mut Program<T>, root: usize, value: usize, shape: Vec<usize>) -> usize {
        if program.frames[root].is_some() && self.shape(program, root) == shape {
            return root;
        }
        let root = self.planar_of(program, root);
        if let Some(&made) = self.framed.get(&(root, shape.clone())) {
            return made;
        }
        let made = convert(program, root, Run::ToFrame, value);
        program.frames[made] = Frame::of(&shape);
        self.framed.insert((root, shape), made);
        made
    }

    /// The root that holds a value planar.
    fn planar_of<T: Real>(&mut self, program: &mut Program<T>, root: usize) -> usize {
        if program.frames[root].is_none() {
            return root;
        }
        if let Some(&made) = self.planar.get(&root) {
            return made;
        }
        let value = program.value_of[root];
        let made = convert(program, root, Run::ToPlanar, value);
        self.planar.insert(root, made);
        made
    }

    /// Gives every frame the halo that the convolutions around it ask for.
    fn set_halos<T: Real>(&self, program: &mut Program<T>) -> Result<()> {
        for i in 0..program.steps.len() {
            let step = &program.steps[i];
            let Op::Conv(conv) = &program.graph.nodes[step.node].op else { continue };
            let (Run::Node, Some(x), Some(w)) = (step.run, step.inputs[0], step.ids.get(1).copied().flatten()) else {
                continue;
            };
            let place = |error: kd_runtime::ops::OpError| error.at_node(step.node, &program.graph.nodes[step.node]);
            let spatial = &self.shape(program, x)[2..];
            let weights = self.bound[w.index()].as_ref().map(|b| b.shape.clone()).unwrap_or_default();
            let axes = conv.window.resolve(spatial, weights.get(2..)).map_err(place)?;
            let Some(window) = Window2::new(&axes) else { continue };
            let (output, d_input) = (step.output, step.wanted[0]);
            if let Some(frame) = &mut program.frames[x] {
                let ((top, bottom), (left, right)) = (value_halo(&window.y), value_halo(&window.x));
                frame.value_halo |= top + bottom + left + right > 0;
                frame.widen([top, bottom, left, right]);
            }
            if let Some(frame) = program.frames[output].as_mut().filter(|_| d_input) {
                let ((top, bottom), (left, right)) = (gradient_halo(&window.y), gradient_halo(&window.x));
                frame.gradient_halo |= top + bottom + left + right > 0;
                frame.widen([top, bottom, left, right]);
            }
        }
        self.unite(program);
        Ok(())
    }

    /// Makes linked frames the same: the widest halo of all.
    fn unite<T: Real>(&self, program: &mut Program<T>) {
        let mut changed = true;
        while changed {
            changed = false;
            for &(a, b, halos) in &self.links {
                let (Some(one), Some(two)) = (program.frames[a], program.frames[b]) else { continue };
                let (mut new_one, mut new_two) = (one, two);
                new_one.widen([two.top, two.bottom, two.left, two.right]);
                new_two.widen([one.top, one.bottom, one.left, one.right]);
                if halos {
                    new_one.value_halo |= two.value_halo;
                    new_one.gradient_halo |= two.gradient_halo;
                    new_two = new_one;
                }
                changed |= (one, two) != (new_one, new_two);
                (program.frames[a], program.frames[b]) = (Some(new_one), Some(new_two));
            }
        }
    }
}

/// Refuses images whose places do not fit in the kernels' tables.
fn check_sizes<T: Real>(program: &Program<T>) -> Result<()> {
    let most = u32::MAX as usize / 2;
    for (root, frame) in program.frames.iter().enumerate() {
        if let Some(frame) = frame.filter(|frame| frame.image() > most) {
            let at = format!("value `{}`", program.graph.values[program.value_of[root]].name);
            let found = format!("{} elements with its pads", frame.image());
            return Err(Refusal::new(at, format!("images of at most {most} elements"), found, "use smaller images"));
        }
    }
    Ok(())
}

/// Adds a step that converts a root, and the root of its result.
fn convert<T: Real>(program: &mut Program<T>, from: usize, run: Run, value: usize) -> usize {
    let made = program.root.len();
    program.root.push(made);
    program.origin.push(Origin::Computed);
    program.needs.push(program.needs[from]);
    program.frames.push(None);
    program.value_of.push(value);
    let wanted = program.backward && program.needs[from];
    program.steps.push(Step {
        // Never asked for its operator: conversions have none.
        node: program.steps.last().map_or(0, |step| step.node),
        run,
        ids: vec![None],
        inputs: vec![Some(from)],
        output: made,
        wanted: vec![wanted],
        fallback: false,
    });
    made
}
