//! Convolution.

use alloc::vec::Vec;

use super::rules::{f32_input, optional_f32, same_shape};
use super::window::{Axis, MOST_SPATIAL, Window, tap_rows};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};

/// Convolution `[N, C, …] * [M, C/group, …] + [M]` over one to three spatial axes; f32. Each output starts at its
/// bias; products are added channel by channel, tap by tap. ONNX Conv.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Groups of channels that do not see each other.
    pub group: usize,
}

impl Conv {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        Ok(Self { group: attrs.group()?, window: Window::read(attrs, false)? })
    }
}

impl Operator for Conv {
    fn attrs(&self) -> Attrs {
        self.window.attrs().with_int("group", self.group as i64)
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let (x, w) = (f32_input(inputs, 0)?, f32_input(inputs, 1)?);
        if x.shape.len() < 3 || w.shape.len() != x.shape.len() {
            let found = alloc::format!("{:?} and {:?}", x.shape, w.shape);
            return Err(OpError::new("input [N, C, …] and weights [M, C / group, …] of the same rank", found));
        }
        let (channels, filters) = (x.shape[1], w.shape[0]);
        if channels % self.group != 0 || filters % self.group != 0 || w.shape[1] != channels / self.group {
            let expected = alloc::format!("weights [M, {channels} / {0}, …], both divisible by {0}", self.group);
            return Err(OpError::new(expected, alloc::format!("{:?}", w.shape)));
        }
        if let Some(bias) = optional_f32(inputs, 2)? {
            same_shape("a bias", bias.shape, &[filters])?;
        }
        let axes = self.window.resolve3(&x.shape[2..], Some(&w.shape[2..]))?;
        let mut shape = alloc::vec![x.shape[0], filters];
        shape.extend(axes[MOST_SPATIAL + 2 - x.shape.len()..].iter().map(|axis| axis.output));
        TensorType::one(x.element, &shape)
    }

    fn macs(&self, inputs: &[Option<&[usize]>], outputs: &[&[usize]]) -> u64 {
        let weights = inputs.get(1).copied().flatten().unwrap_or_default();
        let sizes = outputs.iter().copied().flatten().chain(weights.iter().skip(1));
        sizes.fold(1, |n, &size| n.saturating_mul(size as u64))
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, w, bias) = (frame.input(0), frame.input(1), frame.optional(2).map(|b| b.get::<f32>()));
        let axes = self.window.resolve3(&x.shape[2..], Some(&w.shape[2..]))?;
        let (filters, depth) = (w.shape[0], w.shape[1]);
        let per_group = filters / self.group;
        let out = frame.output(0).get::<f32>();
        let taps = axes.iter().map(|axis| axis.kernel).product::<usize>();
        let axes = merge(axes);
        let (plane, input_plane) = (product(&axes, |axis| axis.output), product(&axes, |axis| axis.input));
        if out.is_empty() {
            return Ok(());
        }
        let (x, w) = (x.get::<f32>(), w.get::<f32>());
        for (i, y) in out.chunks_exact_mut(plane).enumerate() {
            let (sample, filter) = (i / filters, i % filters);
            y.fill(bias.map_or(0.0, |bias| bias[filter]));
            let first = (sample * self.group + filter / per_group) * depth;
            for c in 0..depth {
                let x = &x[(first + c) * input_plane..][..input_plane];
                let w = &w[(filter * depth + c) * taps..][..taps];
                tap_rows(&axes, x, y, |tap, x, stride, y| add_row(w[tap], x, stride, y));
            }
        }
        Ok(())
    }
}

fn product(axes: &[Axis; MOST_SPATIAL], size: impl Fn(&Axis) -> usize) -> usize {
    axes.iter().map(size).product()
}

/// Joins the last two axes as long as the window leaves both as they are, so that rows are long.
fn merge(mut axes: [Axis; MOST_SPATIAL]) -> [Axis; MOST_SPATIAL] {
    for _ in 1..MOST_SPATIAL {
        let [a, b, c] = axes;
        if !(b.is_identity() && c.is_identity()) {
            break;
        }
        let size = b.input * c.input;
        axes = [Axis::UNIT, a, Axis { input: size, output: size, ..Axis::UNIT }];
    }
    axes
}

/// `y[i] += weight * x[i * stride]`.
fn add_row(weight: f32, x: &[f32], stride: usize, y: &mut [f32]) {
    match stride {
        1 => y.iter_mut().zip(x).for_each(|(y, &x)| *y += weight * x),
        2 => y.iter_mut().zip(x.chunks(2)).for_each(|(y, x)| *y += weight * x[0]),
        _ => y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, &x)| *y += weight * x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::{eval, window::AutoPad};
    use alloc::vec;

    /// Small whole numbers, so that sums are exact in any order.
    fn numbers(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..n).map(|i| ((i * 7 + seed * 3) % 11) as f32 - 5.0).collect())
    }

    /// The definition, one output at a time over three spatial axes.
    fn naive(x: &Tensor, w: &Tensor, bias: &[f32], axes: &[Axis; 3], group: usize) -> Vec<f32> {
        let (filters, depth) = (w.shape()[0], w.shape()[1]);
        let [d, h, v] = axes;
        let mut y = Vec::new();
        for n in 0..x.shape()[0] {
            for (m, &bias) in bias.iter().enumerate() {
                for o in 0..d.output * h.output * v.output {
                    let at = [o / (h.output * v.output), o / v.output % h.output, o % v.output];
                    let mut sum = bias;
                    for t in 0..depth * d.kernel * h.kernel * v.kernel {
                        let taps = [t / (h.kernel * v.kernel) % d.kernel, t / v.kernel % h.kernel, t % v.kernel];
                        let c = m / (filters / group) * depth + t / (d.kernel * h.kernel * v.kernel);
                        let place: Option<Vec<usize>> = (0..3)
                            .map(|i| {
                                (at[i] * axes[i].stride + taps[i] * axes[i].dilation).checked_sub(axes[i].pad_begin)
                            })
                            .collect();
                        if let Some(p) = place.filter(|p| (0..3).all(|i| p[i] < axes[i].input)) {
                            let plane = n * x.shape()[1] + c;
                            let i = ((plane * d.input + p[0]) * h.input + p[1]) * v.input + p[2];
                            sum += x.get::<f32>().unwrap()[i]
                                * w.get::<f32>().unwrap()[m * depth * d.kernel * h.kernel * v.kernel + t];
                        }
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    #[test]
    fn equals_the_definition() {
        let same = Window { auto_pad: AutoPad::SameUpper, ..Window::default() };
        let cases: Vec<(&[usize], &[usize], usize, Window)> = vec![
            (&[2, 3, 9], &[4, 3, 3], 1, Window { pads: vec![1, 2], ..Window::default() }),
            (&[1, 4, 12], &[4, 1, 3], 4, Window { dilations: vec![3], pads: vec![3, 3], ..Window::default() }),
            (
                &[1, 2, 5, 6],
                &[3, 2, 3, 3],
                1,
                Window { pads: vec![1, 0, 0, 2], strides: vec![2, 1], ..Window::default() },
            ),
            (&[2, 4, 5, 5], &[6, 2, 1, 1], 2, Window::default()),
            (&[1, 2, 7, 7], &[2, 2, 3, 3], 1, Window { strides: vec![3, 2], ..same.clone() }),
            (&[1, 2, 4, 4], &[2, 2, 2, 3], 1, Window { auto_pad: AutoPad::SameLower, ..same }),
            (
                &[1, 2, 3, 4, 5],
                &[2, 2, 2, 2, 3],
                1,
                Window { strides: vec![1, 2, 3], pads: vec![1; 6], ..Window::default() },
            ),
            (
                &[1, 1, 2, 2],
                &[1, 1, 3, 3],
                1,
                Window { pads: vec![4, 4, 4, 4], dilations: vec![2, 3], ..Window::default() },
            ),
            (&[1, 2, 2, 3, 4], &[2, 2, 1, 1, 1], 1, Window::default()),
        ];
        for (x, w, group, window) in cases {
            let (x, w) = (numbers(x, 1), numbers(w, 2));
            let bias = numbers(&[w.shape()[0]], 3);
            let axes = window.resolve3(&x.shape()[2..], Some(&w.shape()[2..])).unwrap();
            let y = eval(&Conv { window, group }.into(), &[Some(&x), Some(&w), Some(&bias)]).unwrap();
            assert_eq!(y[0].get::<f32>().unwrap(), naive(&x, &w, bias.get().unwrap(), &axes, group), "{axes:?}");
        }
    }

    #[test]
    fn counts_multiply_accumulates() {
        let op = Conv { window: Window::default(), group: 2 };
        assert_eq!(op.macs(&[Some(&[1, 4, 9, 9]), Some(&[6, 2, 3, 3])], &[&[1, 6, 7, 7]]), 6 * 49 * 2 * 9);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let plain = |group| Conv { window: Window::default(), group };
        let cases: Vec<(&[usize], &[usize], Conv)> = vec![
            (&[1, 3, 4], &[2, 2, 3], plain(1)),
            (&[1, 4, 4], &[3, 2, 3], plain(2)),
            (&[1, 3, 4], &[2, 3, 5], plain(1)),
            (&[1, 3, 4], &[2, 3, 3, 3], plain(1)),
            (&[1, 3], &[2, 3], plain(1)),
            (&[1, 1, 1, 1, 1, 1], &[1, 1, 1, 1, 1, 1], plain(1)),
            (&[1, 3, 4], &[2, 3, 0], plain(1)),
            (&[1, 3, 4], &[2, 3, 3], plain(1 << 31)),
        ];
        for (x, w, op) in cases {
            assert!(eval(&op.into(), &[Some(&numbers(x, 0)), Some(&numbers(w, 0))]).is_err(), "{x:?} {w:?}");
        }
        let huge = Conv { window: Window { pads: vec![1 << 31; 4], ..Window::default() }, group: 1 };
        let (x, w) = (numbers(&[1, 1, 1, 1], 0), numbers(&[1, 1, 1, 1], 0));
        assert!(eval(&huge.into(), &[Some(&x), Some(&w)]).is_err());
        let bias = numbers(&[2], 0);
        assert!(eval(&plain(1).into(), &[Some(&x), Some(&w), Some(&bias)]).is_err());
    }
}
