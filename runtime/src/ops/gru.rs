//! Gated recurrent unit.

use alloc::vec::Vec;

use super::gate::sigmoid;
use super::lstm::{copy_last, start};
use super::recurrent::{Recurrent, Sizes, Weights};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::math;

/// Gates: update, reset, hidden.
pub const GATES: usize = 3;

/// Over sequences X `[T, N, I]` with weights W `[D, 3H, I]`, R `[D, 3H, H]`, B `[D, 6H]` (for the input, then for the
/// state) and initial states `[D, N, H]`; gates in the order update, reset, hidden:
/// `h' = (1 - z) n + z h` with `n = tanh(W x + R (r h))`, or `tanh(W x + r (R h))` where the product comes before the
/// reset; f32. Outputs: all states `[T, D, N, H]` and the last `[D, N, H]`. Without clip and sequence_lens. ONNX GRU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GRU {
    /// Direction and size.
    pub layer: Recurrent,
    /// Whether the state is multiplied by its weights before it is reset (as torch does) or after.
    pub linear_before_reset: bool,
}

impl GRU {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let linear_before_reset = attrs.flag("linear_before_reset", false)?;
        Ok(Self { layer: Recurrent::read(attrs, &["Sigmoid", "Tanh"])?, linear_before_reset })
    }
}

impl Operator for GRU {
    fn attrs(&self) -> Attrs {
        self.layer.attrs().with_int("linear_before_reset", i64::from(self.linear_before_reset))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        Ok(self.layer.sizes(GATES, inputs)?.outputs(1))
    }

    fn macs(&self, inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        Sizes::of(inputs).map_or(0, |sizes| sizes.macs(GATES))
    }

    fn scratch(&self, inputs: &[Option<&[usize]>]) -> usize {
        Sizes::of(inputs).map_or(0, |sizes| 2 * sizes.hidden)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, w, r) = (frame.input(0), frame.input(1), frame.input(2));
        let Some(sizes) = Sizes::of(&[Some(x.shape), Some(w.shape), Some(r.shape)]) else {
            return Err(OpError::new("sequences and weights that fit", "others"));
        };
        let floats = |i: usize| frame.optional(i).map(|input| input.get::<f32>());
        let (b, initial_h) = (floats(3), floats(5));
        let Sizes { steps, batch, features, hidden, .. } = sizes;
        let last = frame.output_count() - 1;
        for (d, &reversed) in self.layer.direction.reversed().iter().enumerate() {
            let weights = Weights::new(w.get(), r.get(), b, &sizes, GATES, d);
            let (y, scratch) = frame.output_pair(0, last);
            let (y, (h, reset)) = (y.get::<f32>(), scratch.get::<f32>().split_at_mut(hidden));
            for i in 0..steps {
                let t = if reversed { steps - 1 - i } else { i };
                for n in 0..batch {
                    let before = (i > 0).then(|| sizes.state(if reversed { t + 1 } else { t - 1 }, d, n));
                    match before {
                        Some(at) => h.copy_from_slice(&y[at..at + hidden]),
                        None => start(h, initial_h, d * batch + n),
                    }
                    let x = &x.get::<f32>()[(t * batch + n) * features..][..features];
                    self.step(&weights, x, h, reset, &mut y[sizes.state(t, d, n)..][..hidden]);
                }
            }
            if last > 1 {
                copy_last(frame, &sizes, d, reversed);
            }
        }
        Ok(())
    }
}

impl GRU {
    /// One step of one sequence; `reset` is memory for a state.
    fn step(&self, weights: &Weights<'_>, x: &[f32], h: &[f32], reset: &mut [f32], y: &mut [f32]) {
        let hidden = h.len();
        if !self.linear_before_reset {
            for (j, reset) in reset.iter_mut().enumerate() {
                let ([a], [b]) = (weights.of_input([hidden + j], x), weights.of_state([hidden + j], h));
                *reset = sigmoid(a + b) * h[j];
            }
        }
        for (j, y) in y.iter_mut().enumerate() {
            let rows = [j, hidden + j, 2 * hidden + j];
            let a = weights.of_input(rows, x);
            let (z, n) = if self.linear_before_reset {
                let b = weights.of_state(rows, h);
                (sigmoid(a[0] + b[0]), math::tanh(a[2] + sigmoid(a[1] + b[1]) * b[2]))
            } else {
                let ([z], [n]) = (weights.of_state([rows[0]], h), weights.of_state([rows[2]], reset));
                (sigmoid(a[0] + z), math::tanh(a[2] + n))
            };
            *y = (1.0 - z) * n + z * h[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::eval;

    #[test]
    fn the_reset_comes_before_or_after_the_product() {
        // One feature, one state: x = 1, all weights w, biases of the state c.
        let (w, c, h) = (0.5_f32, 0.25_f32, 2.0_f32);
        let one = |shape: &[usize], v: f32| Tensor::from_vec(shape, alloc::vec![v; shape.iter().product()]);
        let b = Tensor::from_vec(&[1, 6], [[0.0; 3], [c; 3]].concat());
        let gate = 1.0 / (1.0 + (-(w + w * h + c)).exp());
        for (linear_before_reset, n) in [(true, w + gate * (w * h + c)), (false, w + w * gate * h + c)] {
            let op = GRU { layer: Recurrent::default(), linear_before_reset };
            let (x, w, h) = (one(&[1, 1, 1], 1.0), one(&[1, 3, 1], w), one(&[1, 1, 1], h));
            let y = eval(&op.into(), &[Some(&x), Some(&w), Some(&w), Some(&b), None, Some(&h)]).unwrap();
            let expected = (1.0 - gate) * n.tanh() + gate * 2.0;
            for y in &y {
                assert!((y.get::<f32>().unwrap()[0] - expected).abs() < 1e-6, "{linear_before_reset}: {y:?}");
            }
        }
    }
}
