//! The operators' kernels on a GPU; [`table`](super::table) lists them. What an operator is, forward and backward, its
//! namesake in [`crate::ops`] says.

pub mod arith;
pub mod batch_norm;
pub mod conv;
pub mod dropout;
pub mod gather;
pub mod global_max;
pub mod gru;
pub mod layer_norm;
pub mod lstm;
pub mod maps;
pub mod moves;
pub mod pool;
pub mod product;
mod recurrent;
pub mod softmax;

use kd_runtime::Refusal;
use kd_runtime::ops::OpError;

use super::Args;
use crate::ops::Kernel;
use crate::ops::kernels::strided::View;

/// A kernel, or why there is none.
pub type Made = Result<Box<dyn Kernel<f32>>, Failed>;

/// Why a kernel cannot be made.
#[derive(Debug)]
pub enum Failed {
    /// What the node expected and found.
    Node(OpError),
    /// What the machine lacks.
    Machine(Refusal),
    /// The host has to do it.
    Host,
}

impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        Self::Node(error)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Machine(refusal)
    }
}

/// Axes of a box that a kernel walks over.
pub const AXES: usize = 6;

/// Sizes and strides of two views of a box, as a kernel is told them: axes of size 1 in front make them [`AXES`] long.
/// More axes are the host's.
pub fn walk(shape: &[usize], a: &View, b: &View) -> Result<Walk, Failed> {
    if shape.len() > AXES {
        return Err(Failed::Host);
    }
    let lead = AXES - shape.len();
    let mut walk = Walk { sizes: [1; AXES], a: [0; AXES], b: [0; AXES], from: [a.offset, b.offset] };
    for (i, &size) in shape.iter().enumerate() {
        walk.sizes[lead + i] = size;
        walk.a[lead + i] = a.strides[i];
        walk.b[lead + i] = b.strides[i];
    }
    Ok(walk)
}

/// What [`walk`] makes.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Elements along each axis.
    pub sizes: [usize; AXES],
    /// Strides of the first view.
    pub a: [isize; AXES],
    /// Strides of the second view.
    pub b: [isize; AXES],
    /// Offsets of both.
    pub from: [isize; 2],
}

impl Walk {
    /// Elements of the box.
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Steps and how many of them, from place to place of both views, where they are the same all the way.
    pub fn even(&self) -> Option<(usize, [usize; 2])> {
        let axes: Vec<usize> = (0..AXES).filter(|&axis| self.sizes[axis] > 1).collect();
        let step = |strides: &[isize; AXES]| -> Option<usize> {
            let whole = axes.windows(2).all(|pair| strides[pair[0]] == strides[pair[1]] * self.sizes[pair[1]] as isize);
            let last = axes.last().map_or(0, |&axis| strides[axis]);
            if whole && self.from == [0, 0] { usize::try_from(last).ok() } else { None }
        };
        Some((self.elements(), [step(&self.a)?, step(&self.b)?]))
    }

    /// Sizes, then strides and offset of the first view, then of the second: 20 numbers.
    pub fn tell(&self, args: Args) -> Args {
        let view = |args: Args, strides: &[isize], from: isize| {
            strides.iter().fold(args, |args, &stride| args.signed(stride)).signed(from)
        };
        let args = args.numbers(&self.sizes);
        view(view(args, &self.a, self.from[0]), &self.b, self.from[1])
    }
}
