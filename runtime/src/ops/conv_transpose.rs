//! Transposed convolution.

use alloc::vec::Vec;

use super::rules::{f32_input, optional_f32, same_shape};
use super::window::{AutoPad, Axis, MOST_SPATIAL, Window};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// Transposed convolution of `[N, C, …]` with weights `[C, M/group, …]` and a bias `[M]` over one to three spatial axes:
/// what a convolution of these weights gives its input as gradient; f32. ONNX ConvTranspose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// Kernel, strides, pads, dilations: those of the convolution whose input this gives.
    pub window: Window,
    /// Groups of channels that do not see each other.
    pub group: usize,
    /// Elements that the output has at its end beyond what the window says; empty means none.
    pub output_padding: Vec<usize>,
    /// Sizes of the output, from which the pads follow; empty where the pads tell.
    pub output_shape: Vec<usize>,
}

impl ConvTranspose {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self {
            group: attrs.group()?,
            output_padding: attrs.sizes("output_padding", 0)?,
            output_shape: attrs.sizes("output_shape", 1)?,
            window: Window::read(attrs, false)?,
        })
    }

    /// One axis each of the convolution from the output of this back to its input of these spatial sizes; those before
    /// the last ones are [`Axis::UNIT`].
    pub fn resolve(&self, spatial: &[usize], kernel: &[usize]) -> Result<[Axis; MOST_SPATIAL], OpError> {
        let rank = spatial.len();
        let Some(lead) = MOST_SPATIAL.checked_sub(rank).filter(|_| rank > 0) else {
            return Err(OpError::new(alloc::format!("1 to {MOST_SPATIAL} spatial axes"), rank));
        };
        let kernel = self.window.checked_kernel(spatial, Some(kernel))?;
        for (name, list) in [("output_padding", &self.output_padding), ("output_shape", &self.output_shape)] {
            if !list.is_empty() && list.len() != rank {
                return Err(OpError::new(alloc::format!("{rank} numbers in {name}"), list.len()));
            }
        }
        let mut axes = [Axis::UNIT; MOST_SPATIAL];
        for i in 0..rank {
            axes[lead + i] = self.axis(i, rank, spatial[i], kernel[i])?;
        }
        Ok(axes)
    }

    fn axis(&self, i: usize, rank: usize, size: usize, kernel: usize) -> Result<Axis, OpError> {
        let of = |list: &[usize], i: usize, default: usize| list.get(i).copied().unwrap_or(default);
        let (stride, dilation) = (of(&self.window.strides, i, 1), of(&self.window.dilations, i, 1));
        let reach = |steps: usize, step: usize| steps.saturating_sub(1).checked_mul(step);
        let whole = (reach(size, stride).zip(reach(kernel, dilation)))
            .and_then(|(a, b)| a.checked_add(b)?.checked_add(1)?.checked_add(of(&self.output_padding, i, 0)));
        let whole = whole.filter(|_| size > 0 && kernel > 0);
        let whole =
            whole.ok_or_else(|| OpError::new("an input and a kernel that are not empty, sizes below 2^63", size))?;
        let stated = self.output_shape.get(i).copied();
        let same = matches!(self.window.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        let wanted = if same { stated.or(size.checked_mul(stride)) } else { stated };
        let (pad_begin, pad_end) = match (wanted, self.window.auto_pad) {
            (Some(wanted), auto_pad) => {
                let total = whole.saturating_sub(wanted);
                let less = total / 2;
                if auto_pad == AutoPad::SameUpper { (less, total - less) } else { (total - less, less) }
            }
            (None, AutoPad::Valid) => (0, 0),
            (None, _) => (of(&self.window.pads, i, 0), of(&self.window.pads, rank + i, 0)),
        };
        let output = wanted.or_else(|| whole.checked_sub(pad_begin)?.checked_sub(pad_end)).filter(|&n| n > 0);
        let output = output.ok_or_else(|| {
            OpError::new(
                alloc::format!("pads below {whole}, the size without them"),
                alloc::format!("{pad_begin} and {pad_end}"),
            )
        })?;
        Ok(Axis { input: output, output: size, kernel, stride, dilation, pad_begin, pad_end })
    }
}

impl Operator for ConvTranspose {
    fn attrs(&self) -> Attrs {
        let mut attrs = self.window.attrs().with_int("group", self.group as i64);
        for (name, list) in [("output_padding", &self.output_padding), ("output_shape", &self.output_shape)] {
            if !list.is_empty() {
                attrs = attrs.with_sizes(name, list);
            }
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let (x, w) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?);
        if x.shape.len() < 3 || w.shape.len() != x.shape.len() || w.shape[0] != x.shape[1] {
            let found = alloc::format!("{:?} and {:?}", x.shape, w.shape);
            return Err(OpError::new("input [N, C, …] and weights [C, M / group, …] of the same rank", found));
        }
        let filters = w.shape[1].checked_mul(self.group).filter(|_| x.shape[1] % self.group == 0);
        let filters = filters
            .ok_or_else(|| OpError::new(alloc::format!("channels divisible by group {}", self.group), x.shape[1]))?;
        if let Some(bias) = optional_f32(inputs, 2)? {
            same_shape("a bias", bias.shape, &[filters])?;
        }
        let axes = self.resolve(&x.shape[2..], &w.shape[2..])?;
        let mut shape = alloc::vec![x.shape[0], filters];
        shape.extend(axes[MOST_SPATIAL + 2 - x.shape.len()..].iter().map(|axis| axis.input));
        TensorType::one(x.element, &shape)
    }

    fn macs(&self, inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        let shape = |i: usize| inputs.get(i).copied().flatten().unwrap_or_default();
        let sizes = shape(0).iter().chain(shape(1).iter().skip(1));
        sizes.fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, w, bias) = (frame.input(0), frame.input(1), frame.optional(2).map(|b| b.get::<f32>()));
        let axes = self.resolve(&x.shape[2..], &w.shape[2..])?;
        let size = |of: fn(&Axis) -> usize| axes.iter().map(of).product::<usize>();
        let (plane, small, taps) = (size(|a| a.input), size(|a| a.output), size(|a| a.kernel));
        let (channels, per_group) = (x.shape[1], w.shape[1]);
        let (filters, depth) = (per_group * self.group, channels / self.group);
        let out = frame.output(0).get::<f32>();
        let (x, w) = (x.get::<f32>(), w.get::<f32>());
        for (i, y) in out.chunks_exact_mut(plane).enumerate() {
            let (sample, filter) = (i / filters, i % filters);
            y.fill(bias.map_or(0.0, |bias| bias[filter]));
            let first = filter / per_group * depth;
            for c in first..first + depth {
                let x = &x[(sample * channels + c) * small..][..small];
                let w = &w[(c * per_group + filter % per_group) * taps..][..taps];
                spread(&axes, x, w, y);
            }
        }
        Ok(())
    }
}

/// Adds every element of a plane, times each tap, to the place of the output that the tap reaches from it.
fn spread([depth, height, width]: &[Axis; MOST_SPATIAL], x: &[f32], w: &[f32], y: &mut [f32]) {
    for (tap, &w) in w.iter().enumerate() {
        let (kd, kh, kw) =
            (tap / (height.kernel * width.kernel), tap / width.kernel % height.kernel, tap % width.kernel);
        let ((slices, z0), (rows, y0), (columns, x0)) =
            (depth.outputs_of(kd), height.outputs_of(kh), width.outputs_of(kw));
        if columns.is_empty() {
            continue;
        }
        for (i, slice) in slices.enumerate() {
            for (j, row) in rows.clone().enumerate() {
                let place = (z0 + i * depth.stride) * height.input + y0 + j * height.stride;
                let x = &x[(slice * height.output + row) * width.output..][columns.clone()];
                let y = &mut y[place * width.input..][x0..width.input];
                y.iter_mut().step_by(width.stride).zip(x).for_each(|(y, &x)| *y += w * x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;
    use alloc::vec;

    fn counted(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>()).map(|i| ((i * 7) % 11) as f32 - 5.0).collect())
    }

    fn plain() -> ConvTranspose {
        ConvTranspose { window: Window::default(), group: 1, output_padding: vec![], output_shape: vec![] }
    }

    #[test]
    fn spreads_each_element_over_the_taps() {
        let x = Tensor::from_vec(&[1, 1, 2], vec![1.0_f32, 10.0]);
        let w = Tensor::from_vec(&[1, 1, 3], vec![1.0_f32, 2.0, 3.0]);
        let run = |op: ConvTranspose| {
            let y = eval(&op.into(), &[Some(&x), Some(&w)]).unwrap();
            y[0].get::<f32>().unwrap().to_vec()
        };
        let strided = |strides: usize, pads: &[usize]| ConvTranspose {
            window: Window { strides: vec![strides], pads: pads.to_vec(), ..Window::default() },
            ..plain()
        };
        assert_eq!(run(plain()), [1.0, 12.0, 23.0, 30.0]);
        assert_eq!(run(strided(2, &[])), [1.0, 2.0, 13.0, 20.0, 30.0]);
        assert_eq!(run(strided(2, &[1, 0])), [2.0, 13.0, 20.0, 30.0]);
        assert_eq!(run(ConvTranspose { output_padding: vec![1], ..strided(2, &[1, 1]) }), [2.0, 13.0, 20.0, 30.0]);
        assert_eq!(run(ConvTranspose { output_shape: vec![6], ..strided(2, &[]) }), [1.0, 2.0, 13.0, 20.0, 30.0, 0.0]);
        let dilated = Window { dilations: vec![2], ..Window::default() };
        assert_eq!(run(ConvTranspose { window: dilated, ..plain() }), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }

    #[test]
    fn is_the_gradient_of_a_convolution() {
        // <conv(u), x> = <u, conv_transpose(x)> for every u.
        let window = Window { strides: vec![2, 1], pads: vec![1, 0, 0, 1], dilations: vec![1, 2], ..Window::default() };
        let (x, w, u) = (counted(&[2, 4, 3, 4]), counted(&[4, 3, 3, 2]), counted(&[2, 6, 6, 5]));
        let op = ConvTranspose { window: window.clone(), group: 2, ..plain() };
        let back = eval(&op.into(), &[Some(&x), Some(&w)]).unwrap();
        assert_eq!(back[0].shape(), u.shape());
        let there = eval(&super::super::conv::Conv { window, group: 2 }.into(), &[Some(&u), Some(&w)]).unwrap();
        assert_eq!(there[0].shape(), x.shape());
        let dot = |a: &Tensor, b: &Tensor| {
            a.get::<f32>().unwrap().iter().zip(b.get::<f32>().unwrap()).map(|(a, b)| a * b).sum::<f32>()
        };
        assert_eq!(dot(&there[0], &x), dot(&u, &back[0]));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = counted(&[1, 2, 3]);
        let with = |window| ConvTranspose { window, ..plain() };
        let cases: Vec<(&[usize], ConvTranspose)> = vec![
            (&[3, 2, 3], plain()),
            (&[2, 2], plain()),
            (&[2, 2, 0], plain()),
            (&[2, usize::MAX / 2 + 1, 0], ConvTranspose { group: 2, ..plain() }),
            (&[2, 1, 3], ConvTranspose { group: 3, ..plain() }),
            (&[2, 2, 3], with(Window { pads: vec![3, 2], ..Window::default() })),
            (&[2, 2, 3], with(Window { pads: vec![1 << 31, 1 << 31], ..Window::default() })),
            (&[2, 2, 3], ConvTranspose { output_padding: vec![1, 1], ..plain() }),
        ];
        for (w, op) in cases {
            let described = |shape| Some(Input { element: crate::graph::ElementType::F32, shape, value: None });
            assert!(op.infer(&[described(x.shape()), described(w)]).is_err(), "{w:?} {op:?}");
        }
    }
}
