//! Upsampling.

use alloc::vec::Vec;

use super::rules::{changed, for_any, int_list, optional, required};
use super::walk::{MOST_AXES, Walk, copy, strides};
use super::{Attr, Attrs, Frame, Input, OpError, Operator, TensorType, attrs};

/// Repeats every element a whole number of times along each axis: the nearest element, by the factors of input 2 (f32)
/// or to the sizes of input 3 (i64), of the axes named; any type. ONNX Resize, of which nothing else is computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// The axes that factors or sizes are of; empty means all.
    pub axes: Vec<i64>,
}

/// Elements of the walk's longest shape: axes, and one more for each that is repeated.
type Steps = ([usize; MOST_AXES], [isize; MOST_AXES], usize);

impl Resize {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let upsampling = "upsampling to the nearest element by a whole number";
        let mode = attrs.string_or("mode", "nearest")?;
        let coordinates = attrs.string_or("coordinate_transformation_mode", "half_pixel")?;
        let nearest = attrs.string_or("nearest_mode", "round_prefer_floor")?;
        let policy = attrs.string_or("keep_aspect_ratio_policy", "stretch")?;
        // Of whole factors these all mean the element whose copies lie there.
        let is_repetition = match coordinates.as_str() {
            "half_pixel" | "half_pixel_symmetric" | "pytorch_half_pixel" => nearest.starts_with("round_prefer_"),
            "asymmetric" | "tf_half_pixel_for_nn" => nearest == "floor",
            _ => false,
        };
        if mode != "nearest" || !is_repetition || policy != "stretch" {
            let found = alloc::format!("mode {mode}, {coordinates}, {nearest}, {policy}");
            return Err(OpError::new(upsampling, found));
        }
        for unused in ["antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value"] {
            attrs.take(unused);
        }
        Ok(Self { axes: attrs.ints("axes")?.unwrap_or_default() })
    }

    /// How often the elements of each axis are repeated.
    fn factors(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<usize>, OpError> {
        let x = required(inputs, 0)?;
        let rank = x.shape.len();
        let axes: Vec<i64> = if self.axes.is_empty() { (0..rank as i64).collect() } else { self.axes.clone() };
        let mut factors = alloc::vec![1; rank];
        let scales = optional(inputs, 2).filter(|scales| scales.shape != [0]);
        let sizes = optional(inputs, 3).map(|sizes| int_list(&sizes, "sizes")).transpose()?;
        let given = match (&scales, &sizes) {
            (Some(scales), None) => scales.value.and_then(|value| value.get::<f32>()).map(<[f32]>::len),
            (None, Some(sizes)) => Some(sizes.len()),
            _ => None,
        };
        if given != Some(axes.len()) {
            let expected = alloc::format!("{} constant scales, or as many sizes", axes.len());
            return Err(OpError::new(expected, alloc::format!("{given:?}")));
        }
        for (k, &axis) in axes.iter().enumerate() {
            let axis = attrs::axis(axis, rank)?;
            let factor = match (scales.and_then(|scales| scales.value?.get::<f32>()), &sizes) {
                (Some(scales), _) => {
                    (scales[k] >= 1.0 && scales[k] <= 65536.0 && scales[k] as usize as f32 == scales[k])
                        .then_some(scales[k] as usize)
                }
                (None, Some(sizes)) => usize::try_from(sizes[k])
                    .ok()
                    .filter(|&n| n > 0)
                    .and_then(|n| (n.checked_rem(x.shape[axis]) == Some(0)).then(|| n / x.shape[axis])),
                (None, None) => None,
            };
            factors[axis] = factor
                .ok_or_else(|| OpError::new("upsampling to the nearest element by a whole number", "another factor"))?;
        }
        Ok(factors)
    }

    /// Shape of a walk over the output, whose repeated axes are two, with the input's strides.
    fn steps(x: &[usize], y: &[usize]) -> Option<Steps> {
        let own = strides(x);
        let (mut shape, mut steps, mut rank) = ([1; MOST_AXES], [0; MOST_AXES], 0);
        for (i, (&n, &m)) in x.iter().zip(y).enumerate() {
            let factor = m.checked_div(n).unwrap_or(1);
            for (size, step) in [(n, own[i]), (factor, 0)].into_iter().take(if factor == 1 { 1 } else { 2 }) {
                (*shape.get_mut(rank)?, steps[rank]) = (size, step);
                rank += 1;
            }
        }
        Some((shape, steps, rank))
    }
}

impl Operator for Resize {
    fn attrs(&self) -> Attrs {
        let text = |value: &str| Attr::String(value.into());
        let attrs = Attrs::new()
            .with("mode", text("nearest"))
            .with("coordinate_transformation_mode", text("asymmetric"))
            .with("nearest_mode", text("floor"));
        if self.axes.is_empty() { attrs } else { attrs.with("axes", Attr::Ints(self.axes.clone())) }
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let x = required(inputs, 0)?;
        let factors = self.factors(inputs)?;
        let shape: Option<Vec<usize>> =
            x.shape.iter().zip(&factors).map(|(n, factor)| n.checked_mul(*factor)).collect();
        let shape = shape.ok_or_else(|| OpError::new("sizes below 2^63", "larger ones"))?;
        if Self::steps(x.shape, &shape).is_none() {
            let expected = alloc::format!("at most {MOST_AXES} axes, repeated ones counted twice");
            return Err(OpError::new(expected, x.shape.len()));
        }
        TensorType::one(x.element, &shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0);
        let out = frame.output(0);
        let (shape, steps, rank) = Self::steps(x.shape, out.shape).ok_or_else(|| changed("factors"))?;
        let walk = Walk::new(&shape[..rank], [steps], [0]);
        for_any!(x.element(), T => copy::<T>(&walk, x.get(), out.get()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{Op, eval};
    use alloc::vec;

    #[test]
    fn repeats_elements_along_any_axes() {
        let x = Tensor::from_vec(&[1, 2, 2], vec![1_i8, 2, 3, 4]);
        let scales = Tensor::from_vec(&[3], vec![1.0_f32, 2.0, 3.0]);
        let expected = [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4];
        let y = eval(&Resize::default().into(), &[Some(&x), None, Some(&scales)]).unwrap();
        assert_eq!(y[0], Tensor::from_vec(&[1, 4, 6], expected.to_vec()));
        let sizes = Tensor::from_vec(&[2], vec![6_i64, 4]);
        let y = eval(&Resize { axes: vec![-1, 1] }.into(), &[Some(&x), None, None, Some(&sizes)]).unwrap();
        assert_eq!(y[0].get::<i8>().unwrap(), expected);
    }

    #[test]
    fn refuses_everything_else() {
        let text = |name: &str, value: &str| Attrs::new().with(name, Attr::String(value.into()));
        for attrs in [
            text("mode", "linear"),
            text("coordinate_transformation_mode", "align_corners"),
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", "ceil"),
            text("keep_aspect_ratio_policy", "not_larger"),
        ] {
            assert!(Op::read("Resize", attrs.clone()).unwrap().is_err(), "{attrs:?}");
        }
        let op: Op = Resize::default().into();
        let x = Tensor::from_vec(&[1, 2], vec![1.0_f32, 2.0]);
        for scales in [vec![1.0, 1.5], vec![1.0, 0.5], vec![1.0, f32::NAN], vec![1.0, f32::INFINITY], vec![2.0]] {
            let scales = Tensor::from_vec(&[scales.len()], scales);
            assert!(eval(&op, &[Some(&x), None, Some(&scales)]).is_err(), "{scales:?}");
        }
        for sizes in [vec![1, 3], vec![1, 0], vec![1, -2], vec![2]] {
            let sizes = Tensor::from_vec(&[sizes.len()], sizes);
            assert!(eval(&op, &[Some(&x), None, None, Some(&sizes)]).is_err(), "{sizes:?}");
        }
        assert!(eval(&op, &[Some(&x)]).is_err());
    }
}
