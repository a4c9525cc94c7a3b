//! Smooth and piecewise activations beside those of `relu` and `gate`; f32.

use alloc::vec::Vec;

use super::relu::map;
use super::rules::like_input;
use super::{Attr, Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::ElementType;
use crate::math;

/// 1 / √2.
const FRAC_1_SQRT_2: f32 = core::f32::consts::FRAC_1_SQRT_2;
/// √(2 / π), of Gelu's approximation.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// `y = x` where x > 0, else `alpha * (e^x - 1)`; f32. ONNX Elu.
#[derive(Clone, Debug, PartialEq)]
pub struct Elu {
    /// How far below 0 it saturates.
    pub alpha: f32,
}

impl Elu {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { alpha: attrs.float_or("alpha", 1.0)? })
    }
}

impl Operator for Elu {
    fn attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, |x| if x > 0.0 { x } else { self.alpha * (math::exp(x) - 1.0) });
        Ok(())
    }
}

/// `y = x Φ(x)` with the normal distribution's Φ, or its approximation by tanh; f32. ONNX Gelu (since opset 20).
#[derive(Clone, Debug, PartialEq)]
pub struct Gelu {
    /// Whether `approximate` is `tanh`: `y = x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    pub tanh: bool,
}

impl Gelu {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        match attrs.string_or("approximate", "none")?.as_str() {
            "none" => Ok(Self { tanh: false }),
            "tanh" => Ok(Self { tanh: true }),
            other => Err(OpError::new("approximate `none` or `tanh`", alloc::format!("`{other}`"))),
        }
    }
}

impl Operator for Gelu {
    fn attrs(&self) -> Attrs {
        Attrs::new().with("approximate", Attr::String(if self.tanh { "tanh" } else { "none" }.into()))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        if self.tanh {
            map::<f32>(frame, |x| 0.5 * x * (1.0 + math::tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x))));
        } else {
            map::<f32>(frame, |x| 0.5 * x * (1.0 + math::erf(x * FRAC_1_SQRT_2)));
        }
        Ok(())
    }
}

/// `y = min(max(alpha * x + beta, 0), 1)`; f32. ONNX HardSigmoid.
#[derive(Clone, Debug, PartialEq)]
pub struct HardSigmoid {
    /// Slope.
    pub alpha: f32,
    /// Value at 0.
    pub beta: f32,
}

impl HardSigmoid {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { alpha: attrs.float_or("alpha", 0.2)?, beta: attrs.float_or("beta", 0.5)? })
    }
}

impl Operator for HardSigmoid {
    fn attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha)).with("beta", Attr::Float(self.beta))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, |x| (self.alpha * x + self.beta).clamp(0.0, 1.0));
        Ok(())
    }
}

/// `y = x * min(max(x / 6 + 1/2, 0), 1)`; f32. ONNX HardSwish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HardSwish;

impl HardSwish {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for HardSwish {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0));
        Ok(())
    }
}

/// `y = ln(1 + e^x)`; f32. ONNX Softplus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Softplus;

impl Softplus {
    pub(super) fn read(_attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Softplus {
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        like_input(inputs, &[ElementType::F32])
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        map::<f32>(frame, |x| if x > 0.0 { x } else { 0.0 } + math::ln_1p(math::exp(-x.abs())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};

    #[test]
    fn equal_known_values_and_saturate() {
        let x = Tensor::from_vec(&[5], alloc::vec![f32::NEG_INFINITY, -1.0, 0.0, 1.0, 100.0]);
        let (gelu, tanh) = ([0.158_655_25, 0.841_344_8], [0.158_808, 0.841_192]);
        let cases: [(Op, [f32; 5]); 6] = [
            (Elu { alpha: 2.0 }.into(), [-2.0, -1.264_241_1, 0.0, 1.0, 100.0]),
            (Gelu { tanh: false }.into(), [f32::NAN, -gelu[0], 0.0, gelu[1], 100.0]),
            (Gelu { tanh: true }.into(), [f32::NAN, -tanh[0], 0.0, tanh[1], 100.0]),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }.into(), [0.0, 0.25, 0.5, 0.75, 1.0]),
            (HardSwish.into(), [f32::NAN, -1.0 / 3.0, 0.0, 2.0 / 3.0, 100.0]),
            (Softplus.into(), [0.0, 0.313_261_7, core::f32::consts::LN_2, 1.313_261_7, 100.0]),
        ];
        for (op, expected) in cases {
            let y = eval(&op, &[Some(&x)]).unwrap();
            for (y, e) in y[0].get::<f32>().unwrap().iter().zip(expected) {
                // Minus infinity times 0 has no value.
                assert!((y - e).abs() < 1e-6 || (y.is_nan() && e.is_nan()), "{}: {y}, expected {e}", op.name());
            }
        }
    }

    #[test]
    fn refuses_an_approximation_that_it_does_not_know() {
        let attrs = || Attrs::new().with("approximate", Attr::String("sigmoid".into()));
        let error = Op::read("Gelu", attrs()).unwrap().unwrap_err();
        assert_eq!(error.found, "`sigmoid`");
    }
}
