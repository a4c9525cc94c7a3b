//! The operators that run on a GPU, one line each. The others are computed by the host: right, and slow.

use std::any::Any;

use kd_runtime::ops::Op;

use super::Gpu;
use super::ops::{
    Made, arith, batch_norm, conv, dropout, gather, global_max, gru, layer_norm, lstm, maps, moves, pool, product,
    softmax,
};
use crate::exec::Real;
use crate::ops::{Kernel, Site};

macro_rules! operators {
    ($($Op:ident: $file:ident::$build:ident;)+) => {
        /// Their names, so that tests and reports can loop.
        pub const NAMES: &[&str] = &[$(stringify!($Op)),+];

        /// The kernel of an operator at a site; `None` if the host has to do it.
        pub fn build(op: &Op, site: &Site<'_>, gpu: &Gpu) -> Option<Made> {
            match op {
                $(Op::$Op(op) => Some($file::$build(op, site, gpu)),)+
                _ => None,
            }
        }
    };
}

operators! {
    Add: arith::add;
    AveragePool: pool::average;
    BatchNormalization: batch_norm::build;
    Clip: maps::clip;
    Concat: moves::concat;
    Conv: conv::build;
    Div: arith::div;
    Dropout: dropout::build;
    Elu: maps::elu;
    Erf: maps::erf;
    Flatten: maps::alias;
    GRU: gru::build;
    Gather: gather::build;
    Gelu: maps::gelu;
    Gemm: product::gemm;
    GlobalAveragePool: pool::global_average;
    GlobalMaxPool: global_max::build;
    HardSigmoid: maps::hard_sigmoid;
    HardSwish: maps::hard_swish;
    Identity: maps::alias;
    LSTM: lstm::build;
    LayerNormalization: layer_norm::build;
    LeakyRelu: maps::leaky_relu;
    LogSoftmax: softmax::log_softmax;
    MatMul: product::matmul;
    MaxPool: pool::max;
    Mul: arith::mul;
    Pad: moves::pad;
    Pow: maps::pow;
    ReduceMean: moves::mean;
    Relu: maps::relu;
    Reshape: maps::alias;
    Resize: moves::resize;
    Sigmoid: maps::sigmoid;
    Slice: moves::slice;
    Softmax: softmax::softmax;
    Softplus: maps::softplus;
    Split: moves::split;
    Sqrt: maps::sqrt;
    Squeeze: maps::alias;
    Sub: arith::sub;
    Tanh: maps::tanh;
    Transpose: moves::transpose;
    Unsqueeze: maps::alias;
}

/// A kernel of f32 among those of `T`, which is f32: only such networks are planned for a GPU.
pub fn among<T: Real>(kernel: Box<dyn Kernel<f32>>) -> Option<Box<dyn Kernel<T>>> {
    let kernel: Box<dyn Any> = Box::new(kernel);
    kernel.downcast().ok().map(|kernel| *kernel)
}
