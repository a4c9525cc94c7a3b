//! Element-wise arithmetic with broadcasting.

use kd_runtime::ops;

use super::{AXES, Made, Walk, walk};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::strided::View;
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

/// In the order of arith.cu.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
}

struct Arith {
    gpu: Gpu,
    kind: Kind,
    /// Over the output: where each input lies.
    walk: Walk,
    /// Whether both lie as the output does.
    same: bool,
    /// Of each input: elements, and a bit for each axis that it is stretched along.
    stretch: [(usize, usize); 2],
    wanted: [bool; 2],
}

/// Add.
pub fn add(_op: &ops::arith::Add, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(Kind::Add, site, gpu)
}

/// Sub.
pub fn sub(_op: &ops::arith::Sub, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(Kind::Sub, site, gpu)
}

/// Mul.
pub fn mul(_op: &ops::arith::Mul, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(Kind::Mul, site, gpu)
}

/// Div.
pub fn div(_op: &ops::arith::Div, site: &Site<'_>, gpu: &Gpu) -> Made {
    build(Kind::Div, site, gpu)
}

fn build(kind: Kind, site: &Site<'_>, gpu: &Gpu) -> Made {
    let shapes = [site.shape(0), site.shape(1)];
    let [a, b] = shapes.map(|shape| View::broadcast(shape, site.output));
    let walk = walk(site.output, &a, &b)?;
    let elements: usize = site.output.iter().product();
    let same = shapes.iter().all(|shape| shape.iter().product::<usize>() == elements);
    let stretch = [&walk.a, &walk.b].map(|strides| {
        let is_stretched = |axis: usize| strides[axis] == 0 && walk.sizes[axis] > 1;
        let along = (0..AXES).filter(|&axis| is_stretched(axis));
        let elements: usize = (0..AXES).filter(|&axis| !is_stretched(axis)).map(|axis| walk.sizes[axis]).product();
        (elements, along.map(|axis| 1 << axis).sum())
    });
    Ok(Box::new(Arith { gpu: gpu.clone(), kind, walk, same, stretch, wanted: [site.wanted(0), site.wanted(1)] }))
}

impl Arith {
    /// Of both inputs and the output.
    fn run(&self, args: Args, n: usize) {
        let args = self.walk.tell(args.number(n).number(self.kind as usize).flag(self.same));
        // SAFETY: arith_forward: y of n elements, and inputs that the walk over it stays inside.
        unsafe { self.gpu.each("arith_forward", n, &args) };
    }

    fn gradient(&self, which: usize, inputs: [&[f32]; 2], d_y: &[f32], d: &mut [f32], add: bool) {
        let (elements, stretch) = self.stretch[which];
        let n = d_y.len();
        let args = Args::none().read(inputs[0]).read(inputs[1]).read(d_y).write(d);
        let args = args.number(n).number(self.kind as usize).number(which).flag(self.same).flag(add).number(stretch);
        let args = self.walk.tell(args);
        // SAFETY: arith_backward and arith_backward_sum: d_y of n elements, d of as many or of those of the input, inputs as
        // in the forward pass (of Add and Sub none is read).
        unsafe {
            match stretch {
                0 => self.gpu.each("arith_backward", n, &args),
                _ => self.gpu.groups("arith_backward_sum", elements, &args),
            }
        }
    }
}

impl Kernel<f32> for Arith {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        self.run(Args::none().read(x.get(0)).read(x.get(1)).write(y), n);
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        for (which, gradient) in d_x.iter_mut().enumerate() {
            if let Some((d, add)) = gradient.target() {
                self.gradient(which, [x.get(0), x.get(1)], d_y, d, add);
            }
        }
    }

    fn keeps(&self) -> Keeps {
        let [a, b] = self.wanted;
        match self.kind {
            Kind::Add | Kind::Sub => Keeps::NOTHING,
            Kind::Mul => Keeps::inputs(&[(0, b), (1, a)]),
            Kind::Div => Keeps::inputs(&[(0, b), (1, a || b)]),
        }
    }

    fn in_place(&self) -> bool {
        self.kind == Kind::Add && self.stretch[0].1 == 0
    }

    fn forward_in_place(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        self.run(Args::none().read(y).read(x.get(1)).write(y), n);
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, f32>,
        _y: &[f32],
        d: &mut [f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        if let Some((d_b, add)) = d_x[1].target() {
            self.gradient(1, [&[], &[]], d, d_b, add);
        }
    }
}
