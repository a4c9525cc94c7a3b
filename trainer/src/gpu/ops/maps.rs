//! Functions of each element.

use kd_runtime::ops::{self, OpError};

use super::Made;
use crate::exec::Real;
use crate::gpu::{Args, Gpu};
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

/// `y = value(x)`; the gradient is a function of x or of y.
struct Map {
    gpu: Gpu,
    forward: &'static str,
    backward: &'static str,
    seen: Seen,
    in_place: bool,
    floats: [f32; 2],
}

/// What the gradient is a function of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Input,
    Output,
    Nothing,
}

macro_rules! map {
    ($gpu:expr, $name:literal, $floats:expr) => {
        Map {
            gpu: $gpu.clone(),
            forward: concat!($name, "_forward"),
            backward: concat!($name, "_backward"),
            seen: Seen::Input,
            in_place: false,
            floats: $floats,
        }
    };
}

fn made(map: Map) -> Made {
    Ok(Box::new(map))
}

/// Relu.
pub fn relu(_op: &ops::relu::Relu, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(Map { seen: Seen::Output, in_place: true, ..map!(gpu, "bent", [0.0; 2]) })
}

/// LeakyRelu.
pub fn leaky_relu(op: &ops::relu::LeakyRelu, _site: &Site<'_>, gpu: &Gpu) -> Made {
    if !(op.alpha >= 0.0 && op.alpha.is_finite()) {
        return Err(OpError::new("alpha of 0 or more to be trained through", op.alpha).into());
    }
    made(Map { seen: Seen::Output, in_place: true, ..map!(gpu, "bent", [op.alpha, 0.0]) })
}

/// Clip; its bounds are constants.
pub fn clip(_op: &ops::relu::Clip, site: &Site<'_>, gpu: &Gpu) -> Made {
    let (low, high) = (site.scalar(1, "a lower bound")?, site.scalar(2, "an upper bound")?);
    made(map!(gpu, "clip", [low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY)]))
}

/// Elu.
pub fn elu(op: &ops::activation::Elu, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "elu", [op.alpha, 0.0]))
}

/// Erf.
pub fn erf(_op: &ops::power::Erf, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "erf", [0.0; 2]))
}

/// Gelu.
pub fn gelu(op: &ops::activation::Gelu, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(if op.tanh { map!(gpu, "gelu_tanh", [0.0; 2]) } else { map!(gpu, "gelu", [0.0; 2]) })
}

/// HardSigmoid.
pub fn hard_sigmoid(op: &ops::activation::HardSigmoid, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "hard_sigmoid", [op.alpha, op.beta]))
}

/// HardSwish.
pub fn hard_swish(_op: &ops::activation::HardSwish, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "hard_swish", [0.0; 2]))
}

/// Pow, whose exponent is one constant.
pub fn pow(_op: &ops::power::Pow, site: &Site<'_>, gpu: &Gpu) -> Made {
    let exponent = crate::ops::activation::exponent(site)?;
    made(map!(gpu, "pow", [exponent as f32, 0.0]))
}

/// Softplus.
pub fn softplus(_op: &ops::activation::Softplus, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "softplus", [0.0; 2]))
}

/// Sqrt.
pub fn sqrt(_op: &ops::power::Sqrt, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(map!(gpu, "sqrt", [0.0; 2]))
}

/// Sigmoid.
pub fn sigmoid(_op: &ops::gate::Sigmoid, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(Map { seen: Seen::Output, ..map!(gpu, "sigmoid", [0.0; 2]) })
}

/// Tanh.
pub fn tanh(_op: &ops::gate::Tanh, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(Map { seen: Seen::Output, ..map!(gpu, "tanh", [0.0; 2]) })
}

/// Whatever the operator, the elements are copied.
pub fn alias<Op>(_op: &Op, _site: &Site<'_>, gpu: &Gpu) -> Made {
    made(Map { seen: Seen::Nothing, ..map!(gpu, "copy", [0.0; 2]) })
}

/// What kernels take for arrays of f32 is that.
fn check<T>() {
    assert_eq!(size_of::<T>(), size_of::<f32>(), "arrays of f32");
}

/// Writes a value everywhere.
pub fn fill<T: Real>(gpu: &Gpu, to: &mut [T], value: T) {
    check::<T>();
    let n = to.len();
    // SAFETY: fill: n elements.
    unsafe { gpu.each("fill", n, &Args::none().write(to).number(n).float(value.to_f32())) };
}

/// Copies, or adds.
pub fn copy<T: Real>(gpu: &Gpu, to: &mut [T], from: &[T], add: bool) {
    check::<T>();
    let n = from.len();
    assert_eq!(to.len(), n, "as many elements");
    // SAFETY: copy_backward: n elements of both.
    unsafe { gpu.each("copy_backward", n, &Args::none().read::<T>(&[]).read(from).write(to).number(n).flag(add)) };
}

/// `to = keep · to + take · from`, with keep and take in `by`.
pub fn blend<T: Real>(gpu: &Gpu, to: &mut [T], from: &[T], by: [T; 2]) {
    check::<T>();
    let n = to.len();
    assert_eq!(from.len(), n, "as many elements");
    let [keep, take] = by.map(Real::to_f32);
    // SAFETY: blend: n elements of both.
    unsafe { gpu.each("blend", n, &Args::none().write(to).read(from).number(n).float(keep).float(take)) };
}

/// Copies, or adds; what is smaller than `least` is 0.
pub fn take_in<T: Real>(gpu: &Gpu, to: &mut [T], from: &[T], least: T, add: bool) {
    check::<T>();
    let n = from.len();
    assert_eq!(to.len(), n, "as many elements");
    let args = Args::none().read(from).write(to).number(n).flag(add).float(least.to_f32());
    // SAFETY: take_in: n elements of both.
    unsafe { gpu.each("take_in", n, &args) };
}

/// `to = by · to`.
pub fn scale<T: Real>(gpu: &Gpu, to: &mut [T], by: T) {
    check::<T>();
    let n = to.len();
    // SAFETY: scale: n elements.
    unsafe { gpu.each("scale", n, &Args::none().write(to).number(n).float(by.to_f32())) };
}

impl Map {
    fn args(&self, args: Args) -> Args {
        args.float(self.floats[0]).float(self.floats[1])
    }
}

impl Kernel<f32> for Map {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        let args = self.args(Args::none().read(x.get(0)).write(y).number(n));
        // SAFETY: FORWARD of maps.cu: x and y of n elements.
        unsafe { self.gpu.each(self.forward, n, &args) };
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let Some((d, add)) = d_x[0].target() else { return };
        let seen = match self.seen {
            Seen::Input => x.get(0),
            Seen::Output => y,
            Seen::Nothing => &[],
        };
        let n = d_y.len();
        let args = self.args(Args::none().read(seen).read(d_y).write(d).number(n).flag(add));
        // SAFETY: BACKWARD of maps.cu: three arrays of n elements.
        unsafe { self.gpu.each(self.backward, n, &args) };
    }

    fn keeps(&self) -> Keeps {
        match self.seen {
            Seen::Input => Keeps::inputs(&[(0, true)]),
            Seen::Output => Keeps::OUTPUT,
            Seen::Nothing => Keeps::NOTHING,
        }
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn forward_in_place(&mut self, _x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let n = y.len();
        let args = self.args(Args::none().read(y).write(y).number(n));
        // SAFETY: FORWARD of maps.cu, which reads an element before it writes it.
        unsafe { self.gpu.each(self.forward, n, &args) };
    }

    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, f32>,
        y: &[f32],
        d: &mut [f32],
        _d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let n = d.len();
        let args = self.args(Args::none().read(y).read(d).write(d).number(n).flag(false));
        // SAFETY: BACKWARD of maps.cu, which reads an element before it writes it.
        unsafe { self.gpu.each(self.backward, n, &args) };
    }
}
