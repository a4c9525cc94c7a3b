//! Steps of optimizers on a GPU, and what comes before and after: each is its namesake in [`crate::optim`]. All arrays lie in its
//! memory.

use kd_runtime::Result;

use super::{Args, GROUP, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::optim::{adamw, dot, rmsprop, sgd};

type Array = Buffer<f32>;

/// As [`sgd::update`]; `velocity` is empty without momentum.
pub fn sgd(gpu: &Gpu, p: &mut Array, g: &Array, velocity: &mut Array, step: &sgd::Step<f32>) {
    let (keep, take) = if step.first { (0.0, 1.0) } else { (step.momentum, 1.0 - step.dampening) };
    let (p, g, velocity) = (p.raw_mut(), g.raw(), velocity.raw_mut());
    let n = p.len();
    assert!(g.len() == n && (velocity.len() == n || velocity.is_empty()), "arrays of one parameter");
    let args = Args::none().read(g).write(p).write(velocity).number(n).flag(step.nesterov);
    let args = args.float(step.lr).float(keep).float(take).float(step.decay).float(step.momentum);
    // SAFETY: sgd: arrays of n elements.
    unsafe { gpu.each("sgd", n, &args) };
}

/// As [`adamw::update`].
pub fn adam(gpu: &Gpu, p: &mut Array, g: &Array, m: &mut Array, v: &mut Array, step: &adamw::Step<f32>) {
    let (p, g, m, v) = (p.raw_mut(), g.raw(), m.raw_mut(), v.raw_mut());
    let n = p.len();
    assert!([g.len(), m.len(), v.len()] == [n; 3], "arrays of one parameter");
    let args = Args::none().read(g).write(p).write(m).write(v).number(n).float(step.keep).float(step.coupled);
    let args = args.float(step.size * step.root).float(step.epsilon * step.root).float(step.beta1).float(step.beta2);
    // SAFETY: adam: arrays of n elements.
    unsafe { gpu.each("adam", n, &args) };
}

/// As [`rmsprop::update`].
pub fn rmsprop(gpu: &Gpu, p: &mut Array, g: &Array, state: &mut rmsprop::State<f32>, step: &rmsprop::Step<f32>) {
    let rmsprop::State { square, mean, velocity } = state;
    let (p, g, square) = (p.raw_mut(), g.raw(), square.raw_mut());
    let (mean, velocity, n) = (mean.raw_mut(), velocity.raw_mut(), p.len());
    let is_whole = |array: &[f32]| array.len() == n || array.is_empty();
    assert!([g.len(), square.len()] == [n; 2] && is_whole(mean) && is_whole(velocity), "arrays of one parameter");
    let args = Args::none().read(g).write(p).write(square).write(mean).write(velocity).number(n);
    let args = args.float(step.lr).float(step.alpha).float(step.epsilon).float(step.momentum).float(step.decay);
    // SAFETY: rmsprop: arrays of n elements.
    unsafe { gpu.each("rmsprop", n, &args) };
}

/// As [`dot::update`].
pub fn dot(gpu: &Gpu, p: &mut Array, g: [&Array; 2], v: [&mut Array; 2], step: &dot::Step<f32>) {
    let (p, [g_task, g_distill], [v_task, v_distill]) = (p.raw_mut(), g.map(Buffer::raw), v.map(Buffer::raw_mut));
    let n = p.len();
    assert!([g_task.len(), g_distill.len(), v_task.len(), v_distill.len()] == [n; 4], "arrays of one parameter");
    let args = Args::none().read(g_task).write(p).write(v_task).read(g_distill).write(v_distill).number(n);
    let args = args.float(step.lr).float(step.momenta[0]).float(step.momenta[1]).float(step.decay);
    // SAFETY: dot: arrays of n elements.
    unsafe { gpu.each("dot", n, &args) };
}

/// A gradient, and the part of it that lies elsewhere, if there is one.
pub type Parts<'a> = (&'a mut Array, Option<&'a mut Array>);

/// As [`clip::values`](crate::optim::clip::values), of one gradient.
pub fn clip_values(gpu: &Gpu, (own, part): Parts<'_>, most: f32) {
    let (own, part) = (own.raw_mut(), part.map_or(&mut [][..], Buffer::raw_mut));
    let n = own.len();
    assert!(part.len() == n || part.is_empty(), "parts of one gradient");
    // SAFETY: clip_values: arrays of n elements.
    unsafe { gpu.each("clip_values", n, &Args::none().write(own).write(part).number(n).float(most)) };
}

/// What clipping by the length of all gradients keeps on the GPU: no step waits for it.
pub struct Length {
    /// Sums of squares, of some elements each.
    squares: Buffer<f64>,
    factor: Array,
}

/// Elements that a group of `clip_squares` takes.
const SQUARES: usize = 16 * GROUP;

impl Length {
    /// For gradients of so many elements. Refused where there is not enough memory.
    pub fn new(gpu: &Gpu, lens: impl Iterator<Item = usize>) -> Result<Self> {
        let groups = lens.map(|n| n.div_ceil(SQUARES)).sum();
        Ok(Self { squares: Buffer::on(gpu, groups)?, factor: Array::on(gpu, 1)? })
    }

    /// As [`clip::global_norm`](crate::optim::clip::global_norm).
    pub fn clip(&mut self, gpu: &Gpu, gradients: &mut [Parts<'_>], most: f32) {
        let Self { squares, factor } = self;
        let mut from = 0;
        for (own, part) in gradients.iter() {
            let (own, part) = (own.raw(), part.as_ref().map_or(&[][..], |part| part.raw()));
            let (n, groups) = (own.len(), own.len().div_ceil(SQUARES));
            assert!(part.len() == n || part.is_empty(), "parts of one gradient");
            assert!(from + groups <= squares.len(), "gradients of the lengths that were named");
            let args = Args::none().read(own).read(part).write(squares.raw_mut()).number(n).number(from);
            // SAFETY: clip_squares: arrays of n elements; a sum for each group.
            unsafe { gpu.groups("clip_squares", groups, &args) };
            from += groups;
        }
        let args = Args::none().read(squares.raw()).write(factor.raw_mut()).number(from).float(most);
        // SAFETY: clip_factor: so many sums, and one number.
        unsafe { gpu.groups("clip_factor", 1, &args) };
        for (own, part) in gradients {
            for array in std::iter::once(&mut **own).chain(part.as_deref_mut()) {
                let n = array.len();
                let args = Args::none().write(array.raw_mut()).read(factor.raw()).number(n);
                // SAFETY: clip_scale: n elements, and one number.
                unsafe { gpu.each("clip_scale", n, &args) };
            }
        }
    }
}

/// As [`max_norm::constrain`](crate::optim::max_norm::constrain), of one parameter with its units along an axis.
pub fn max_norm(gpu: &Gpu, p: &mut Array, shape: &[usize], axis: usize, most: f32) {
    let sizes = [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product::<usize>()];
    let p = p.raw_mut();
    assert_eq!(p.len(), sizes.iter().product::<usize>(), "a parameter of this shape");
    // SAFETY: max_norm: an array of this shape; a group for each unit.
    unsafe { gpu.groups("max_norm", sizes[1], &Args::none().write(p).numbers(&sizes).float(most)) };
}
