//! Operators that put elements elsewhere: Transpose, Slice, Pad, Concat, Split, Resize, one of several outputs, the two layouts
//! of images; and means along axes.

use kd_runtime::ops;

use super::{AXES, Made, Walk, maps, walk};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::frame::Frame;
use crate::ops::kernels::strided::{View, dense};
use crate::ops::pad::Padded;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

/// Parts that are moved one after another: input `k` (all of the same one, or each its own) from the second view of its walk
/// to the first of the output.
struct Moves {
    gpu: Gpu,
    parts: Vec<(usize, Walk)>,
    /// What is written where no part lies; none where the parts fill the output.
    fill: Option<f32>,
    /// Whether the parts fill the inputs: else their gradients are 0 elsewhere.
    whole: bool,
}

fn one(gpu: &Gpu, walk: Walk, fill: Option<f32>, whole: bool) -> Made {
    Ok(Box::new(Moves { gpu: gpu.clone(), parts: vec![(0, walk)], fill, whole }))
}

/// Transpose.
pub fn transpose(op: &ops::transpose::Transpose, site: &Site<'_>, gpu: &Gpu) -> Made {
    let from = crate::ops::transpose::turned(op, site)?;
    one(gpu, walk(site.output, &View::dense(site.output), &from)?, None, true)
}

/// Slice; starts, ends, axes and steps are constants.
pub fn slice(_op: &ops::slice::Slice, site: &Site<'_>, gpu: &Gpu) -> Made {
    let from = crate::ops::slice::cut(site)?;
    let whole = site.output.iter().product::<usize>() == site.shape(0).iter().product::<usize>();
    one(gpu, walk(site.output, &View::dense(site.output), &from)?, None, whole)
}

/// Pad; pads, value and axes are constants.
pub fn pad(op: &ops::pad::Pad, site: &Site<'_>, gpu: &Gpu) -> Made {
    let Padded { shape, to, from, value } = crate::ops::pad::padded(op, site)?;
    let whole = shape == site.shape(0);
    one(gpu, walk(&shape, &to, &from)?, Some(value), whole)
}

/// Concat.
pub fn concat(op: &ops::concat::Concat, site: &Site<'_>, gpu: &Gpu) -> Made {
    let axis = ops::attrs::axis(op.axis, site.output.len())?;
    let mut to = View::dense(site.output);
    let mut parts = Vec::with_capacity(site.inputs.len());
    for i in 0..site.inputs.len() {
        let shape = site.shape(i);
        parts.push((i, walk(shape, &to, &View::dense(shape))?));
        to.offset += shape[axis] as isize * to.strides[axis];
    }
    Ok(Box::new(Moves { gpu: gpu.clone(), parts, fill: None, whole: true }))
}

/// Split: the parts lie one after another.
pub fn split(op: &ops::split::Split, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let sizes = op.parts(x[axis], site.ints(1, "sizes")?.as_deref())?;
    let mut from = View::dense(x);
    let (mut parts, mut at) = (Vec::new(), 0);
    for &size in sizes.iter().take(site.outputs) {
        let shape: Vec<usize> = (0..x.len()).map(|i| if i == axis { size } else { x[i] }).collect();
        parts.push((0, walk(&shape, &View { offset: at, ..View::dense(&shape) }, &from)?));
        from.offset += size as isize * from.strides[axis];
        at += shape.iter().product::<usize>() as isize;
    }
    let whole = sizes.len() <= site.outputs;
    Ok(Box::new(Moves { gpu: gpu.clone(), parts, fill: None, whole }))
}

/// The output of so many elements that begins at element `from` of those that a node wrote one after another.
pub fn part(from: usize, elements: usize, gpu: &Gpu) -> Made {
    let view = |offset: usize| View { offset: offset as isize, strides: vec![1] };
    one(gpu, walk(&[elements], &view(0), &view(from))?, None, false)
}

/// `[N, H, W, C]` of a frame without halo: elements, and where they lie planar.
fn planar(batch: usize, frame: &Frame) -> ([usize; 4], View, View) {
    let [h, w, c] = [frame.h, frame.w, frame.c];
    let shape = [batch, h, w, c];
    let planar = [c * h * w, w, 1, h * w].map(|stride| stride as isize).to_vec();
    (shape, View::dense(&shape), View { offset: 0, strides: planar })
}

/// Planar images with their channels last.
pub fn to_frame(batch: usize, frame: &Frame, gpu: &Gpu) -> Made {
    let (shape, framed, planar) = planar(batch, frame);
    one(gpu, walk(&shape, &framed, &planar)?, None, true)
}

/// Images with their channels last, planar.
pub fn to_planar(batch: usize, frame: &Frame, gpu: &Gpu) -> Made {
    let (shape, framed, planar) = planar(batch, frame);
    one(gpu, walk(&shape, &planar, &framed)?, None, true)
}

impl Moves {
    fn run(&self, kernel: &'static str, walk: &Walk, args: Args, add: bool) {
        let n = walk.elements();
        // SAFETY: move_forward and move_backward: arrays that the walk's two views stay inside.
        unsafe { self.gpu.each(kernel, n, &walk.tell(args.number(n).flag(add))) };
    }
}

impl Kernel<f32> for Moves {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        if let Some(value) = self.fill {
            maps::fill(&self.gpu, y, value);
        }
        for (input, walk) in &self.parts {
            self.run("move_forward", walk, Args::none().read(x.get(*input)).write(y), false);
        }
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        if !self.whole
            && let Some((d, false)) = d_x[0].target()
        {
            maps::fill(&self.gpu, d, 0.0);
        }
        for (input, walk) in &self.parts {
            let Some((d, add)) = d_x[*input].target() else { continue };
            self.run("move_backward", walk, Args::none().read(d_y).write(d), add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

struct Mean {
    gpu: Gpu,
    /// Over the input: itself, then the output.
    walk: Walk,
    /// A bit for each axis that is reduced.
    reduced: usize,
    weight: f32,
}

/// ReduceMean; its axes are constants.
pub fn mean(op: &ops::reduce::ReduceMean, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let reduced = crate::ops::reduce::reduced(op, site)?;
    let kept: Vec<usize> = x.iter().zip(&reduced).map(|(&n, &r)| if r { 1 } else { n }).collect();
    let strides = dense(&kept).into_iter().zip(&reduced).map(|(s, &r)| if r { 0 } else { s }).collect();
    let count: usize = x.iter().zip(&reduced).filter(|(_, r)| **r).map(|(&n, _)| n).product();
    let walk = walk(x, &View::dense(x), &View { offset: 0, strides })?;
    Ok(Box::new(Mean { gpu: gpu.clone(), walk, reduced: bits(&reduced), weight: 1.0 / count.max(1) as f32 }))
}

/// A bit for each axis of a walk that is so.
fn bits(axes: &[bool]) -> usize {
    let lead = AXES - axes.len();
    axes.iter().enumerate().filter(|(_, is)| **is).map(|(axis, _)| 1 << (lead + axis)).sum()
}

/// Resize, which repeats elements: a mean's way back, and back a mean's way, but for the weight.
pub fn resize(_op: &ops::resize::Resize, site: &Site<'_>, gpu: &Gpu) -> Made {
    let x = site.shape(0);
    let (mut shape, mut strides, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for ((&n, &m), step) in x.iter().zip(site.output).zip(dense(x)) {
        for (size, stride, is_copy) in [(n, step, false), (m.checked_div(n).unwrap_or(0), 0, true)] {
            if size != 1 {
                shape.push(size);
                strides.push(stride);
                copies.push(is_copy);
            }
        }
    }
    let walk = walk(&shape, &View::dense(&shape), &View { offset: 0, strides })?;
    Ok(Box::new(Repeat(Mean { gpu: gpu.clone(), walk, reduced: bits(&copies), weight: 1.0 })))
}

struct Repeat(Mean);

impl Kernel<f32> for Repeat {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        self.0.spread(x.get(0), y, false);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        if let Some((d, add)) = d_x[0].target() {
            self.0.sum(d_y, d, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

impl Mean {
    /// From the elements of the walk to those that are not reduced.
    fn sum(&self, from: &[f32], to: &mut [f32], add: bool) {
        let groups = to.len();
        let args = Args::none().read(from).write(to).number(self.reduced).numbers(&self.walk.sizes).flag(add);
        // SAFETY: mean_forward: as many elements as the walk has, and as are not reduced.
        unsafe { self.gpu.groups("mean_forward", groups, &args.float(self.weight)) };
    }

    /// The way back.
    fn spread(&self, from: &[f32], to: &mut [f32], add: bool) {
        let n = to.len();
        let args = self.walk.tell(Args::none().read(from).write(to).number(n).flag(add)).float(self.weight);
        // SAFETY: mean_backward: as `sum`, the other way round.
        unsafe { self.gpu.each("mean_backward", n, &args) };
    }
}

impl Kernel<f32> for Mean {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        self.sum(x.get(0), y, false);
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        if let Some((d, add)) = d_x[0].target() {
            self.spread(d_y, d, add);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}
