//! The operators. One line each: file, name, least and most inputs, least and most outputs.

use alloc::vec::Vec;

use super::walk::MOST_AXES;
use super::{Attrs, Input, OpError, Operator, TensorType, split};
use crate::graph::infer::MOST_ELEMENTS;

macro_rules! operators {
    ($($file:ident :: $Op:ident, $in_min:literal ..= $in_max:expr, $out_min:literal ..= $out_max:expr;)+) => {
        /// Any operator, so that passes can match on it.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op { $($Op(super::$file::$Op)),+ }

        /// The operators' names, so that tests and documents can loop.
        pub const NAMES: &[&str] = &[$(stringify!($Op)),+];

        impl Op {
            /// The operator of this ONNX name with these attributes (normal form); `None` if there is no such operator.
            pub fn read(name: &str, mut attrs: Attrs) -> Option<Result<Self, OpError>> {
                let op = match name {
                    $(stringify!($Op) => super::$file::$Op::read(&mut attrs).map(Self::$Op),)+
                    _ => return None,
                };
                Some(op.and_then(|op| attrs.finish().map(|()| op)))
            }

            /// Its ONNX name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$Op(_) => stringify!($Op)),+ }
            }

            /// What it does.
            pub fn def(&self) -> &dyn Operator {
                match self { $(Self::$Op(op) => op),+ }
            }

            /// Least and most inputs, least and most outputs.
            fn arity(&self) -> ([usize; 2], [usize; 2]) {
                match self { $(Self::$Op(_) => ([$in_min, $in_max], [$out_min, $out_max])),+ }
            }
        }

        $(impl From<super::$file::$Op> for Op {
            fn from(op: super::$file::$Op) -> Self { Self::$Op(op) }
        })+
    };
}

impl Op {
    /// Checks number and sizes of the inputs (required ones are the first `least`) and infers the outputs: all that the
    /// operator can give, of which a node may ask for fewer.
    pub fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let ([least, most], _) = self.arity();
        if inputs.len() > most || inputs.len() < least || inputs[..least].iter().any(Option::is_none) {
            let given = inputs.iter().flatten().count();
            return Err(OpError::new(alloc::format!("{least} to {most} inputs"), given));
        }
        for (i, input) in inputs.iter().enumerate() {
            if let Some(input) = input {
                check_size("input", i, input.shape)?;
            }
        }
        let outputs = self.def().infer(inputs)?;
        for (i, output) in outputs.iter().enumerate() {
            check_size("output", i, &output.shape)?;
        }
        Ok(outputs)
    }

    /// Checks the number of outputs that a node asks for.
    pub fn check_outputs(&self, count: usize) -> Result<(), OpError> {
        let (_, [least, most]) = self.arity();
        if count < least || count > most {
            return Err(OpError::new(alloc::format!("{least} to {most} outputs"), count));
        }
        Ok(())
    }
}

/// Refuses what no operator walks: more than [`MOST_AXES`] axes, or more than [`MOST_ELEMENTS`] elements (an axis of 0
/// counted as 1, so that strides cannot overflow either).
fn check_size(what: &str, i: usize, shape: &[usize]) -> Result<(), OpError> {
    if shape.len() > MOST_AXES {
        return Err(OpError::new(alloc::format!("at most {MOST_AXES} axes in {what} {i}"), shape.len()));
    }
    let elements = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size.max(1)));
    match elements {
        Some(n) if n <= MOST_ELEMENTS => Ok(()),
        _ => Err(OpError::new(
            alloc::format!("at most {MOST_ELEMENTS} elements in {what} {i}"),
            alloc::format!("shape {shape:?}"),
        )),
    }
}

const MANY: usize = usize::MAX;

operators! {
    activation::Elu, 1..=1, 1..=1;
    activation::Gelu, 1..=1, 1..=1;
    activation::HardSigmoid, 1..=1, 1..=1;
    activation::HardSwish, 1..=1, 1..=1;
    activation::Softplus, 1..=1, 1..=1;
    arith::Add, 2..=2, 1..=1;
    arith::Div, 2..=2, 1..=1;
    arith::Mul, 2..=2, 1..=1;
    arith::Sub, 2..=2, 1..=1;
    batch_norm::BatchNormalization, 5..=5, 1..=1;
    cast::Cast, 1..=1, 1..=1;
    concat::Concat, 1..=MANY, 1..=1;
    conv::Conv, 2..=3, 1..=1;
    conv_transpose::ConvTranspose, 2..=3, 1..=1;
    dropout::Dropout, 1..=3, 1..=2;
    dropout::Identity, 1..=1, 1..=1;
    gate::Sigmoid, 1..=1, 1..=1;
    gate::Tanh, 1..=1, 1..=1;
    gather::Gather, 2..=2, 1..=1;
    gemm::Gemm, 2..=3, 1..=1;
    gemm::MatMul, 2..=2, 1..=1;
    gru::GRU, 3..=6, 1..=2;
    layer_norm::LayerNormalization, 2..=3, 1..=3;
    lstm::LSTM, 3..=8, 1..=3;
    pad::Pad, 2..=4, 1..=1;
    pool::AveragePool, 1..=1, 1..=1;
    pool::GlobalAveragePool, 1..=1, 1..=1;
    pool::GlobalMaxPool, 1..=1, 1..=1;
    pool::MaxPool, 1..=1, 1..=2;
    power::Erf, 1..=1, 1..=1;
    power::Pow, 2..=2, 1..=1;
    power::Sqrt, 1..=1, 1..=1;
    quantize_linear::DequantizeLinear, 2..=3, 1..=1;
    quantize_linear::QuantizeLinear, 2..=3, 1..=1;
    reduce::ReduceMean, 1..=2, 1..=1;
    relu::Clip, 1..=3, 1..=1;
    relu::LeakyRelu, 1..=1, 1..=1;
    relu::Relu, 1..=1, 1..=1;
    reshape::Flatten, 1..=1, 1..=1;
    reshape::Reshape, 2..=2, 1..=1;
    reshape::Squeeze, 1..=2, 1..=1;
    reshape::Unsqueeze, 2..=2, 1..=1;
    resize::Resize, 1..=4, 1..=1;
    shape_of::Shape, 1..=1, 1..=1;
    slice::Slice, 3..=5, 1..=1;
    softmax::LogSoftmax, 1..=1, 1..=1;
    softmax::Softmax, 1..=1, 1..=1;
    split::Split, 1..=2, 1..=split::MOST_PARTS;
    transpose::Transpose, 1..=1, 1..=1;
}
