//! Differentiable operators: forward and analytic backward over plain buffers; one file each, same names as
//! `kd_runtime::ops`; [`table`] lists them.
//!
//! A [`Kernel`] is made for one node at one batch size. Work is split into pieces that depend on shapes alone and what
//! the pieces sum is added in their order, so the bits do not depend on the number of threads.

pub mod kernels;
pub mod table;

pub mod activation;
mod alias;
mod arith;
pub mod batch_norm;
mod concat;
mod conv;
mod conv_transpose;
pub mod convert;
mod depthwise;
pub mod dropout;
mod gate;
pub(crate) mod gather;
mod gemm;
mod global_max;
mod gru;
mod layer_norm;
mod lstm;
mod matmul;
pub mod moments;
pub mod pad;
pub mod part;
mod pool;
pub(crate) mod recurrent;
pub mod reduce;
mod relu;
mod resize;
pub mod slice;
mod softmax;
mod split;
pub mod transpose;
mod winograd;

use std::sync::Mutex;

use kd_runtime::graph::Tensor;
use kd_runtime::ops::OpError;

use crate::exec::{Mode, Parameter, Real, Share};
use kernels::buffer::Buffer;
use kernels::frame::Frame;

/// A kernel, or what the node expected and found.
pub type Built<T> = Result<Box<dyn Kernel<T>>, OpError>;

/// What is known of an input when a kernel is made.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// Shape at this batch size.
    pub shape: &'a [usize],
    /// The value, where it is a constant that is not trained.
    pub value: Option<&'a Tensor>,
    /// Whether a gradient is wanted.
    pub wanted: bool,
    /// Its layout, if it holds images with their channels last.
    pub frame: Option<Frame>,
}

/// Where a kernel is to work: shapes at one batch size.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Inputs; `None` where an optional one is left out.
    pub inputs: &'a [Option<Port<'a>>],
    /// Shape of the first output.
    pub output: &'a [usize],
    /// How many outputs the kernel writes, one after another; more than 1 only of [`table::writes_all`].
    pub outputs: usize,
    /// Layout of the first output; without halo where it is planar and could be either.
    pub frame: Option<Frame>,
}

impl<'a> Site<'a> {
    /// Shape of input `i`, which is there.
    pub fn shape(&self, i: usize) -> &'a [usize] {
        self.port(i).map_or(&[], |port| port.shape)
    }

    /// Layout of input `i`, if it is there; without halo where it is planar and could be either.
    pub fn frame(&self, i: usize) -> Option<Frame> {
        self.port(i).and_then(|port| port.frame.or_else(|| Frame::of(port.shape)))
    }

    /// Whether the gradient of input `i` is wanted.
    pub fn wanted(&self, i: usize) -> bool {
        self.port(i).is_some_and(|port| port.wanted)
    }

    /// Input `i`, if it is there.
    pub fn port(&self, i: usize) -> Option<Port<'a>> {
        self.inputs.get(i).copied().flatten()
    }

    /// Integers of input `i`, if it is there; an error if it is no constant.
    pub fn ints(&self, i: usize, what: &str) -> Result<Option<Vec<i64>>, OpError> {
        let Some(port) = self.port(i) else { return Ok(None) };
        let input = kd_runtime::ops::Input {
            element: port.value.map_or(kd_runtime::graph::ElementType::I64, Tensor::element),
            shape: port.shape,
            value: port.value,
        };
        input.ints(what).map(Some)
    }

    /// The f32 scalar at input `i`, if it is there; an error if it is no constant.
    pub fn scalar(&self, i: usize, what: &str) -> Result<Option<f32>, OpError> {
        let Some(port) = self.port(i) else { return Ok(None) };
        match port.value.and_then(|value| value.get::<f32>()).and_then(<[f32]>::first) {
            Some(&x) => Ok(Some(x)),
            None => Err(OpError::new(format!("{what} that is a constant f32"), "another value")),
        }
    }
}

/// What backward needs besides the gradients: kept until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeps {
    /// The inputs, as bits.
    pub inputs: u64,
    /// The output.
    pub output: bool,
}

impl Keeps {
    /// Nothing.
    pub const NOTHING: Self = Self { inputs: 0, output: false };
    /// The output.
    pub const OUTPUT: Self = Self { inputs: 0, output: true };

    /// These inputs, where their condition holds.
    pub fn inputs(which: &[(usize, bool)]) -> Self {
        let bits = which.iter().filter(|(_, needed)| *needed).map(|(i, _)| 1_u64 << i);
        Self { inputs: bits.sum(), output: false }
    }
}

/// Floats of scratch memory that a kernel asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScratchSize {
    /// Once.
    pub shared: usize,
    /// For each thread.
    pub lane: usize,
}

/// Scratch memory of all kernels; its content means nothing between calls.
#[derive(Debug)]
pub struct Scratch<T> {
    /// Of the caller.
    pub shared: Buffer<T>,
    /// One of each thread; see `Scratch::lane`.
    pub lanes: Vec<Mutex<Buffer<T>>>,
    /// What a convolution leaves for the batch norm behind it; this does mean something between those two calls.
    pub moments: moments::Moments,
}

/// Calls `f` on the lane of the thread that it is called on. Lanes are never contended.
pub fn with_lane<T, R>(lanes: &[Mutex<Buffer<T>>], f: impl FnOnce(&mut [T]) -> R) -> R {
    let index = kernels::threads::index() % lanes.len();
    let mut lane = lanes[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    f(&mut lane[..])
}

/// What a call may use.
pub struct Context<'a, T> {
    /// How the pass behaves.
    pub mode: Mode,
    /// The node's place in the graph: decides its random numbers.
    pub node: usize,
    /// Scratch memory.
    pub scratch: &'a mut Scratch<T>,
    /// Where others have the rest of the batch: what is made of all samples is made with them.
    pub share: Option<&'a Share>,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The step's input.
    Input,
    /// A parameter's value.
    Parameter(usize),
    /// A constant.
    Constant(usize),
    /// A buffer, its first so many elements (at the batch size of the step).
    Buffer(usize, usize),
    /// A value that is no float, by its root.
    Other(usize),
    /// Nowhere: left out, or a constant that is no float.
    Nowhere,
}

/// The inputs of a node, wherever they lie.
#[derive(Clone, Copy)]
pub struct Inputs<'a, T: Real> {
    /// Of each input.
    pub places: &'a [Place],
    /// The step's input.
    pub x: &'a [T],
    /// All parameters.
    pub parameters: &'a [Parameter<T>],
    /// All constants.
    pub constants: &'a [Buffer<T>],
    /// All buffers.
    pub buffers: &'a [Buffer<T>],
    /// What is no float, by root.
    pub others: &'a [Option<Tensor>],
    /// Whether a kernel of a GPU reads them there; else the host does.
    pub on_gpu: bool,
}

impl<'a, T: Real> Inputs<'a, T> {
    fn elements(&self, buffer: &'a Buffer<T>, len: usize) -> &'a [T] {
        if self.on_gpu { &buffer.raw()[..len] } else { buffer.first(len) }
    }

    /// Input `i`; empty if it is left out (or is the one that is overwritten).
    pub fn get(&self, i: usize) -> &'a [T] {
        match self.places.get(i).copied().unwrap_or(Place::Nowhere) {
            Place::Input => self.x,
            Place::Parameter(p) => self.elements(&self.parameters[p].value, self.parameters[p].value.len()),
            Place::Constant(c) => self.elements(&self.constants[c], self.constants[c].len()),
            // The one that is overwritten is not there.
            Place::Buffer(b, len) if self.buffers[b].len() >= len => self.elements(&self.buffers[b], len),
            Place::Buffer(..) | Place::Other(_) | Place::Nowhere => &[],
        }
    }

    /// Input `i`, if it is computed and no float.
    pub fn tensor(&self, i: usize) -> Option<&'a Tensor> {
        match self.places.get(i) {
            Some(&Place::Other(root)) => self.others.get(root)?.as_ref(),
            _ => None,
        }
    }
}

/// A gradient to be written.
#[derive(Debug, Default)]
pub struct Gradient<T> {
    /// Taken from its owner for the call; at least `len` long if wanted.
    pub buffer: Buffer<T>,
    /// Its elements at this batch size.
    pub len: usize,
    /// Whether it is wanted at all.
    pub wanted: bool,
    /// Whether to add to what is there (another consumer has written it) or to overwrite.
    pub add: bool,
    /// Whether a kernel of a GPU writes it there; else the host does.
    pub on_gpu: bool,
}

impl<T> Gradient<T> {
    /// Where to write, and whether to add; `None` if the gradient is not wanted.
    pub fn target(&mut self) -> Option<(&mut [T], bool)> {
        let elements = |buffer| if self.on_gpu { Buffer::raw_mut(buffer) } else { &mut buffer[..] };
        self.wanted.then(|| (&mut elements(&mut self.buffer)[..self.len], self.add))
    }
}

/// One node at one batch size. Lengths of all slices were checked when the graph was planned.
pub trait Kernel<T: Real>: Send {
    /// Computes the output (overwrites `y`).
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>);

    /// Computes the wanted gradients. `y` is empty unless [`Kernel::keeps`] says the output, as are inputs not kept.
    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    );

    /// What backward needs.
    fn keeps(&self) -> Keeps;

    /// Whether [`Kernel::forward_in_place`] exists.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether [`Kernel::backward_in_place`] exists.
    fn gradient_in_place(&self) -> bool {
        self.in_place()
    }

    /// As forward, where `y` holds input 0 (which [`Inputs::get`] then gives as empty).
    fn forward_in_place(&mut self, _x: &Inputs<'_, T>, _y: &mut [T], _context: &mut Context<'_, T>) {
        unreachable!("only called where in_place() holds")
    }

    /// As backward, where `d` holds the output's gradient and becomes that of input 0; `d_x[0]` is not wanted.
    fn backward_in_place(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        _d: &mut [T],
        _d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        unreachable!("only called where in_place() holds")
    }

    /// Scratch memory for both passes.
    fn scratch(&self) -> ScratchSize {
        ScratchSize::default()
    }

    /// After a forward pass in training: batch mean, unbiased batch variance, and the momentum of the running values
    /// (inputs 3 and 4).
    fn statistics(&self) -> Option<(&[T], &[T], T)> {
        None
    }
}
