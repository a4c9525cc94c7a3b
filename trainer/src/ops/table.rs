//! The differentiable operators. One line each: name, file, and what its inputs are to the optimiser if they are
//! initializers (`Weight`, `BiasOrNorm`, `Statistic`; `Pass` hands on what the output is; `Fixed` is never trained).

use kd_runtime::ops::{Op, OpError};

use super::{Built, Site};
use crate::exec::{Real, Role};

/// What an input is to the optimiser, if it is an initializer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A parameter of this role.
    Trained(Role),
    /// What the output is to its readers.
    Pass,
    /// A constant.
    Fixed,
}

#[allow(non_upper_case_globals)]
mod parts {
    use super::{Part, Role};
    pub const Weight: Part = Part::Trained(Role::Weight);
    pub const BiasOrNorm: Part = Part::Trained(Role::BiasOrNorm);
    pub const Statistic: Part = Part::Trained(Role::Statistic);
    pub use super::Part::{Fixed, Pass};
}
use parts::{BiasOrNorm, Fixed, Pass, Statistic, Weight};

macro_rules! operators {
    ($($Op:ident: $file:ident::$build:ident [$($part:ident),*];)+) => {
        /// Their names, so that tests can loop.
        pub const NAMES: &[&str] = &[$(stringify!($Op)),+];

        /// The kernel of an operator at a site; `None` if it has no gradient here.
        pub fn build<T: Real>(op: &Op, site: &Site<'_>) -> Option<Built<T>> {
            match op {
                $(Op::$Op(op) => Some(super::$file::$build(op, site)),)+
                _ => None,
            }
        }

        /// What the inputs are to the optimiser; the last one stands for all that follow.
        fn parts_of(op: &Op) -> &'static [Part] {
            match op {
                $(Op::$Op(_) => &[$($part),*],)+
                _ => &[Fixed],
            }
        }
    };
}

/// What input `i` of an operator is to the optimiser.
pub fn part(op: &Op, i: usize) -> Part {
    let parts = parts_of(op);
    parts.get(i).or(parts.last()).copied().unwrap_or(Fixed)
}

/// Whether the kernel of an operator can write all outputs, not the first one alone.
pub fn writes_all(op: &Op) -> bool {
    matches!(op, Op::LSTM(_) | Op::GRU(_) | Op::Split(_))
}

/// Whether an operator's output is its first input under another shape, in training too.
pub fn is_alias(op: &Op) -> bool {
    op.def().is_alias() && !matches!(op, Op::Dropout(_))
}

/// The error of an operator that has no gradient.
pub fn no_gradient(op: &Op) -> OpError {
    let known = NAMES.join(", ");
    OpError::new(format!("a differentiable operator (one of {known})"), op.name())
}

operators! {
    Add: arith::add [BiasOrNorm];
    AveragePool: pool::average [Fixed];
    BatchNormalization: batch_norm::build [Fixed, BiasOrNorm, BiasOrNorm, Statistic];
    Clip: relu::clip [Fixed];
    Concat: concat::build [Pass];
    Conv: conv::build [Fixed, Weight, BiasOrNorm];
    ConvTranspose: conv_transpose::build [Fixed, Weight, BiasOrNorm];
    Div: arith::div [BiasOrNorm];
    Dropout: dropout::build [Pass, Fixed];
    Elu: activation::elu [Fixed];
    Erf: activation::erf [Fixed];
    Flatten: alias::build [Pass, Fixed];
    GRU: gru::build [Fixed, Weight, Weight, BiasOrNorm, Fixed];
    Gather: gather::build [Weight, Fixed];
    Gelu: activation::gelu [Fixed];
    Gemm: gemm::build [Weight, Weight, BiasOrNorm];
    GlobalAveragePool: pool::global_average [Fixed];
    GlobalMaxPool: global_max::build [Fixed];
    HardSigmoid: activation::hard_sigmoid [Fixed];
    HardSwish: activation::hard_swish [Fixed];
    Identity: alias::build [Pass, Fixed];
    LSTM: lstm::build [Fixed, Weight, Weight, BiasOrNorm, Fixed];
    LayerNormalization: layer_norm::build [Fixed, BiasOrNorm];
    LeakyRelu: relu::leaky_relu [Fixed];
    LogSoftmax: softmax::log_softmax [Fixed];
    MatMul: matmul::build [Weight];
    MaxPool: pool::max [Fixed];
    Mul: arith::mul [BiasOrNorm];
    Pad: pad::build [Pass, Fixed];
    Pow: activation::pow [Fixed];
    ReduceMean: reduce::mean [Fixed];
    Relu: relu::relu [Fixed];
    Reshape: alias::build [Pass, Fixed];
    Resize: resize::build [Fixed];
    Sigmoid: gate::sigmoid [Fixed];
    Slice: slice::build [Pass, Fixed];
    Softmax: softmax::softmax [Fixed];
    Softplus: activation::softplus [Fixed];
    Split: split::build [Pass, Fixed];
    Sqrt: activation::sqrt [Fixed];
    Squeeze: alias::build [Pass, Fixed];
    Sub: arith::sub [BiasOrNorm];
    Tanh: gate::tanh [Fixed];
    Transpose: transpose::build [Pass];
    Unsqueeze: alias::build [Pass, Fixed];
}
