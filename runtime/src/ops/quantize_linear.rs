//! Between real numbers and integers: `real = (q - zero_point) * scale`.

use alloc::vec::Vec;

use super::rules::{f32_input, of_types, optional, same_shape};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType, attrs};
use crate::graph::{Element, ElementType};
use crate::math;

/// Which elements share a scale and a zero point: with x as [outer, len, inner] along the axis, element [o, i, j] has
/// parameter `o * steps[0] + i / block * steps[1] + j * steps[2]`.
#[derive(Clone, Copy, Debug)]
struct Sharing {
    len: usize,
    inner: usize,
    block: usize,
    steps: [usize; 3],
}

impl Sharing {
    /// From the shapes of x and the scale.
    fn new(axis: i64, block_size: usize, x: &[usize], scale: &[usize]) -> Result<Self, OpError> {
        let all: usize = x.iter().product();
        if block_size == 0 && scale.len() <= 1 && scale.iter().all(|&n| n == 1) {
            return Ok(Self { len: 1, inner: all, block: 1, steps: [0; 3] });
        }
        let axis = attrs::axis(axis, x.len())?;
        let (len, inner) = (x[axis], x[axis + 1..].iter().product());
        if block_size == 0 {
            same_shape("a scale of one element or", scale, &[len])?;
            return Ok(Self { len, inner, block: 1, steps: [0, 1, 0] });
        }
        let blocks = len.div_ceil(block_size);
        let fits = |(i, (&n, &scales)): (usize, (&usize, &usize))| scales == if i == axis { blocks } else { n };
        if scale.len() != x.len() || !x.iter().zip(scale).enumerate().all(fits) {
            let expected = alloc::format!("a scale of {x:?} with {blocks} blocks in place of axis {axis}");
            return Err(OpError::new(expected, alloc::format!("{scale:?}")));
        }
        Ok(Self { len, inner, block: block_size, steps: [blocks * inner, inner, 1] })
    }

    /// Calls `f` with output, input and the parameter of the first of each run of elements whose parameter moves by
    /// `steps[2]`.
    fn each<X, Y>(&self, x: &[X], y: &mut [Y], f: impl Fn(&[X], &mut [Y], usize)) {
        let runs = x.chunks_exact(self.inner.max(1)).zip(y.chunks_exact_mut(self.inner.max(1)));
        for (run, (x, y)) in runs.enumerate() {
            let (o, i) = (run / self.len, run % self.len);
            f(x, y, o * self.steps[0] + i / self.block * self.steps[1]);
        }
    }
}

/// A number to quantize.
trait Real: Element {
    fn real(self) -> f32;
}

impl Real for f32 {
    fn real(self) -> f32 {
        self
    }
}

impl Real for i32 {
    fn real(self) -> f32 {
        self as f32
    }
}

/// A quantized number.
trait Quantized: Element {
    fn wide(self) -> i64;
}

/// A quantized number of 8 bits.
trait Byte: Quantized {
    const RANGE: [i32; 2];
    fn narrow(value: i32) -> Self;
}

impl Quantized for i32 {
    fn wide(self) -> i64 {
        i64::from(self)
    }
}

impl Quantized for u8 {
    fn wide(self) -> i64 {
        i64::from(self)
    }
}

impl Quantized for i8 {
    fn wide(self) -> i64 {
        i64::from(self)
    }
}

impl Byte for u8 {
    const RANGE: [i32; 2] = [0, 255];
    fn narrow(value: i32) -> Self {
        value as Self
    }
}

impl Byte for i8 {
    const RANGE: [i32; 2] = [-128, 127];
    fn narrow(value: i32) -> Self {
        value as Self
    }
}

/// `saturate(round_half_even(x / scale) + zero_point)`; a quotient of NaN gives the smallest number. Clamping before
/// rounding is the same, for the bounds are whole.
fn quantize<T: Byte>(x: f32, scale: f32, zero_point: i32) -> T {
    let [low, high] = T::RANGE.map(|bound| (bound - zero_point) as f32);
    let clamped = (x / scale).max(low).min(high);
    T::narrow(math::round_ties_even(clamped) as i32 + zero_point)
}

fn quantize_all<X: Real, T: Byte>(frame: &mut Frame<'_>, sharing: Sharing) {
    let (x, scale) = (frame.input(0).get::<X>(), frame.input(1).get::<f32>());
    let zero_points = frame.optional(2).map(|z| z.get::<T>());
    let zero_point = |i: usize| zero_points.map_or(0, |z| z[i].wide() as i32);
    sharing.each(x, frame.output(0).get::<T>(), |x, y, first| match sharing.steps[2] {
        0 => {
            let (scale, zero_point) = (scale[first], zero_point(first));
            y.iter_mut().zip(x).for_each(|(y, x)| *y = quantize(x.real(), scale, zero_point));
        }
        _ => {
            let elements = y.iter_mut().zip(x).enumerate();
            elements.for_each(|(j, (y, x))| *y = quantize(x.real(), scale[first + j], zero_point(first + j)));
        }
    });
}

fn dequantize_all<T: Quantized>(frame: &mut Frame<'_>, sharing: Sharing) {
    let (x, scale) = (frame.input(0).get::<T>(), frame.input(1).get::<f32>());
    let zero_points = frame.optional(2).map(|z| z.get::<T>());
    let zero_point = |i: usize| zero_points.map_or(0, |z| z[i].wide());
    sharing.each(x, frame.output(0).get::<f32>(), |x, y, first| match sharing.steps[2] {
        0 => {
            let (scale, zero_point) = (scale[first], zero_point(first));
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x.wide() - zero_point) as f32 * scale);
        }
        _ => {
            for (j, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = (x.wide() - zero_point(first + j)) as f32 * scale[first + j];
            }
        }
    });
}

/// `q = saturate(round_half_even(x / scale) + zero_point)`; f32 or i32 to u8 or i8. Per tensor (scalar scale), per axis (1-D scale) or blocked. Without zero point: u8 (or `output`), 0. ONNX QuantizeLinear.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeLinear {
    /// The axis of a 1-D or blocked scale.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: not blocked.
    pub block_size: usize,
    /// The type of the output where there is no zero point.
    pub output: Option<ElementType>,
}

impl QuantizeLinear {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int_or("axis", 1)?;
        let block_size = attrs.int_or("block_size", 0)?;
        let block_size =
            usize::try_from(block_size).map_err(|_| OpError::new("a block_size of at least 0", block_size))?;
        attrs.take("saturate");
        let code = attrs.int_or("output_dtype", 0)?;
        let output = super::attrs::element_type(code);
        if code != 0 && !matches!(output, Some(ElementType::U8 | ElementType::I8)) {
            return Err(OpError::new("output_dtype u8 or i8", alloc::format!("ONNX type {code}")));
        }
        Ok(Self { axis, block_size, output })
    }
}

impl Operator for QuantizeLinear {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with_int("axis", self.axis)
            .with_int("block_size", self.block_size as i64)
            .with_int("output_dtype", self.output.map_or(0, super::attrs::type_code))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = of_types(inputs, 0, &[ElementType::F32, ElementType::I32])?;
        let scale = f32_input(inputs, 1)?;
        let mut element = self.output.unwrap_or(ElementType::U8);
        if optional(inputs, 2).is_some() {
            let both = [ElementType::U8, ElementType::I8];
            let zero_point = of_types(inputs, 2, self.output.as_ref().map_or(&both[..], core::slice::from_ref))?;
            same_shape("a zero point", zero_point.shape, scale.shape)?;
            element = zero_point.element;
        }
        Sharing::new(self.axis, self.block_size, x.shape, scale.shape)?;
        TensorType::one(element, x.shape)
    }

    fn is_quantization(&self) -> bool {
        true
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, scale) = (frame.input(0), frame.input(1));
        let sharing = Sharing::new(self.axis, self.block_size, x.shape, scale.shape)?;
        match (x.element(), frame.output(0).data.element()) {
            (ElementType::I32, ElementType::I8) => quantize_all::<i32, i8>(frame, sharing),
            (ElementType::I32, _) => quantize_all::<i32, u8>(frame, sharing),
            (_, ElementType::I8) => quantize_all::<f32, i8>(frame, sharing),
            _ => quantize_all::<f32, u8>(frame, sharing),
        }
        Ok(())
    }
}

/// `x = (q - zero_point) * scale`, one f32 rounding; u8, i8 or i32 to f32. Per tensor (scalar scale), per axis (1-D scale) or blocked. ONNX DequantizeLinear.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantizeLinear {
    /// The axis of a 1-D or blocked scale.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: not blocked.
    pub block_size: usize,
}

impl DequantizeLinear {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let axis = attrs.int_or("axis", 1)?;
        let block_size = attrs.int_or("block_size", 0)?;
        let block_size =
            usize::try_from(block_size).map_err(|_| OpError::new("a block_size of at least 0", block_size))?;
        Ok(Self { axis, block_size })
    }
}

impl Operator for DequantizeLinear {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("axis", self.axis).with_int("block_size", self.block_size as i64)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = of_types(inputs, 0, &[ElementType::U8, ElementType::I8, ElementType::I32])?;
        let scale = f32_input(inputs, 1)?;
        if optional(inputs, 2).is_some() {
            same_shape("a zero point", of_types(inputs, 2, &[x.element])?.shape, scale.shape)?;
        }
        Sharing::new(self.axis, self.block_size, x.shape, scale.shape)?;
        TensorType::one(ElementType::F32, x.shape)
    }

    fn is_quantization(&self) -> bool {
        true
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, scale) = (frame.input(0), frame.input(1));
        let sharing = Sharing::new(self.axis, self.block_size, x.shape, scale.shape)?;
        match x.element() {
            ElementType::U8 => dequantize_all::<u8>(frame, sharing),
            ElementType::I8 => dequantize_all::<i8>(frame, sharing),
            _ => dequantize_all::<i32>(frame, sharing),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};
    use alloc::vec;

    const Q: QuantizeLinear = QuantizeLinear { axis: 1, block_size: 0, output: None };
    const DQ: DequantizeLinear = DequantizeLinear { axis: 1, block_size: 0 };

    fn apply(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Tensor, OpError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        eval(&op.into(), &inputs).map(|mut outputs| outputs.remove(0))
    }

    fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    #[test]
    fn rounds_half_to_even_then_adds_the_zero_point_then_saturates() {
        let x = [0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 126.5, 1e-40];
        let (x, one) = (f32s(&[12], &x), Tensor::scalar(1.0_f32));
        let y = apply(Q, &[&x, &one, &Tensor::scalar(1_u8)]).unwrap();
        assert_eq!(y.get::<u8>().unwrap(), [1, 3, 3, 1, 0, 255, 0, 255, 0, 0, 127, 1]);
        let y = apply(Q, &[&x, &one, &Tensor::scalar(-1_i8)]).unwrap();
        assert_eq!(y.get::<i8>().unwrap(), [-1, 1, 1, -1, -3, 127, -128, 127, -128, -128, 125, -1]);
        assert_eq!(apply(Q, &[&x, &one]).unwrap().get::<u8>().unwrap(), [0, 2, 2, 0, 0, 255, 0, 255, 0, 0, 126, 0]);
        let zero = apply(Q, &[&x, &Tensor::scalar(0.0_f32)]).unwrap();
        assert_eq!(zero.get::<u8>().unwrap(), [255, 255, 255, 0, 0, 255, 0, 255, 0, 0, 255, 255]);
        let big = Tensor::from_vec(&[2], vec![16_777_217_i32, -3]);
        assert_eq!(apply(Q, &[&big, &Tensor::scalar(131_072.0_f32)]).unwrap().get::<u8>().unwrap(), [128, 0]);
    }

    #[test]
    fn shares_scales_per_axis_and_per_block() {
        let x = f32s(&[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
        let pair = f32s(&[2], &[1.0, 2.0]);
        let per_axis = |axis| {
            let y = apply(QuantizeLinear { axis, ..Q }, &[&x, &pair]).unwrap();
            y.get::<u8>().unwrap().to_vec()
        };
        assert_eq!(per_axis(0), [1, 2, 3, 4, 2, 3, 4, 4]);
        assert_eq!(per_axis(1), [1, 2, 2, 2, 5, 6, 4, 4]);
        assert_eq!(per_axis(-1), [1, 1, 3, 2, 5, 3, 7, 4]);
        let q = Tensor::from_vec(&[3, 2], vec![2_i8, 4, 6, 8, 10, 12]);
        let blocks = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let zero_points = Tensor::from_vec(&[2, 2], vec![0_i8, 1, 2, 3]);
        let y = apply(DequantizeLinear { axis: 0, block_size: 2 }, &[&q, &blocks, &zero_points]).unwrap();
        assert_eq!(y.get::<f32>().unwrap(), [2.0, 6.0, 6.0, 14.0, 24.0, 36.0]);
        let back = apply(QuantizeLinear { axis: -2, block_size: 2, output: None }, &[&y, &blocks, &zero_points]);
        assert_eq!(back.unwrap(), q);
    }

    #[test]
    fn dequantizes_without_wrapping() {
        let x = Tensor::from_vec(&[2], vec![i32::MIN, i32::MAX]);
        let y = apply(DQ, &[&x, &Tensor::scalar(1.0_f32), &Tensor::scalar(i32::MAX)]).unwrap();
        assert_eq!(y.get::<f32>().unwrap(), [-4_294_967_295.0, 0.0]);
        let bias = apply(DequantizeLinear { axis: 0, ..DQ }, &[&x, &f32s(&[2], &[0.5, 2.0])]).unwrap();
        assert_eq!(bias.get::<f32>().unwrap(), [-1_073_741_824.0, 4_294_967_296.0]);
    }

    #[test]
    fn refuses_shapes_and_types_that_do_not_fit() {
        let (x, one) = (f32s(&[2, 3], &[0.0; 6]), Tensor::scalar(1.0_f32));
        let (two, zero) = (f32s(&[2], &[1.0; 2]), Tensor::scalar(0_u8));
        assert!(apply(Q, &[&x, &two]).is_err());
        assert!(apply(QuantizeLinear { axis: 2, ..Q }, &[&x, &two]).is_err());
        assert!(apply(QuantizeLinear { axis: 0, ..Q }, &[&x, &two, &zero]).is_err());
        assert!(apply(Q, &[&x, &one, &Tensor::scalar(0_i32)]).is_err());
        assert!(apply(QuantizeLinear { output: Some(ElementType::I8), ..Q }, &[&x, &one, &zero]).is_err());
        assert!(apply(QuantizeLinear { block_size: usize::MAX, ..Q }, &[&x, &one]).is_err());
        assert!(apply(DQ, &[&Tensor::scalar(0_i8), &one, &zero]).is_err());
        assert!(apply(DQ, &[&x, &one]).is_err());
    }
}
