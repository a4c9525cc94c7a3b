//! Long short-term memory.

use alloc::vec::Vec;

use super::gate::sigmoid;
use super::recurrent::{Recurrent, Sizes, Weights};
use super::rules::optional;
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::math;

/// Gates: input, output, forget, cell.
pub const GATES: usize = 4;

/// Over sequences X `[T, N, I]` with weights W `[D, 4H, I]`, R `[D, 4H, H]`, B `[D, 8H]` (for the input, then for the
/// state) and initial states `[D, N, H]`; gates in the order input, output, forget, cell:
/// `c' = σ(f) c + σ(i) tanh(g)`, `h' = σ(o) tanh(c')`; f32. Outputs: all states `[T, D, N, H]`, the last h and the last
/// c `[D, N, H]`. Without clip, peepholes, coupled gates and sequence_lens. ONNX LSTM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LSTM {
    /// Direction and size.
    pub layer: Recurrent,
}

impl LSTM {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        if attrs.flag("input_forget", false)? {
            return Err(OpError::new("input_forget 0 (gates that are not coupled)", 1));
        }
        Ok(Self { layer: Recurrent::read(attrs, &["Sigmoid", "Tanh", "Tanh"])? })
    }
}

impl Operator for LSTM {
    fn attrs(&self) -> Attrs {
        self.layer.attrs()
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        let sizes = self.layer.sizes(GATES, inputs)?;
        if optional(inputs, 7).is_some() {
            return Err(OpError::new("gates without peepholes", "peepholes"));
        }
        Ok(sizes.outputs(2))
    }

    fn macs(&self, inputs: &[Option<&[usize]>], _outputs: &[&[usize]]) -> u64 {
        Sizes::of(inputs).map_or(0, |sizes| sizes.macs(GATES))
    }

    fn scratch(&self, inputs: &[Option<&[usize]>]) -> usize {
        Sizes::of(inputs).map_or(0, |sizes| (sizes.batch + 1) * sizes.hidden)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (x, w, r) = (frame.input(0), frame.input(1), frame.input(2));
        let Some(sizes) = Sizes::of(&[Some(x.shape), Some(w.shape), Some(r.shape)]) else {
            return Err(OpError::new("sequences and weights that fit", "others"));
        };
        let floats = |i: usize| frame.optional(i).map(|input| input.get::<f32>());
        let (b, initial_h, initial_c) = (floats(3), floats(5), floats(6));
        let Sizes { steps, batch, features, hidden, .. } = sizes;
        let last = frame.output_count() - 1;
        for (d, &reversed) in self.layer.direction.reversed().iter().enumerate() {
            let weights = Weights::new(w.get(), r.get(), b, &sizes, GATES, d);
            let (y, scratch) = frame.output_pair(0, last);
            let (y, (c, h)) = (y.get::<f32>(), scratch.get::<f32>().split_at_mut(batch * hidden));
            start(c, initial_c, d);
            for i in 0..steps {
                let t = if reversed { steps - 1 - i } else { i };
                for n in 0..batch {
                    let before = (i > 0).then(|| sizes.state(if reversed { t + 1 } else { t - 1 }, d, n));
                    match before {
                        Some(at) => h.copy_from_slice(&y[at..at + hidden]),
                        None => start(h, initial_h, d * batch + n),
                    }
                    let x = &x.get::<f32>()[(t * batch + n) * features..][..features];
                    let (y, c) = (&mut y[sizes.state(t, d, n)..][..hidden], &mut c[n * hidden..][..hidden]);
                    for (j, (y, c)) in y.iter_mut().zip(c).enumerate() {
                        let rows = [j, hidden + j, 2 * hidden + j, 3 * hidden + j];
                        let (a, b) = (weights.of_input(rows, x), weights.of_state(rows, h));
                        let [i, o, f, g] = [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
                        *c = sigmoid(f) * *c + sigmoid(i) * math::tanh(g);
                        *y = sigmoid(o) * math::tanh(*c);
                    }
                }
            }
            if last > 2 {
                let (to, scratch) = frame.output_pair(2, last);
                let c = &scratch.get::<f32>()[..batch * hidden];
                to.get::<f32>()[d * batch * hidden..][..batch * hidden].copy_from_slice(c);
            }
            if last > 1 {
                copy_last(frame, &sizes, d, reversed);
            }
        }
        Ok(())
    }
}

/// The initial state of row `row` of as many elements, or zeros.
pub(super) fn start(state: &mut [f32], initial: Option<&[f32]>, row: usize) {
    match initial {
        Some(initial) => state.copy_from_slice(&initial[row * state.len()..][..state.len()]),
        None => state.fill(0.0),
    }
}

/// Copies a direction's last state from the first output to the second.
pub(super) fn copy_last(frame: &mut Frame<'_>, sizes: &Sizes, d: usize, reversed: bool) {
    let (y, to) = frame.output_pair(0, 1);
    let n = sizes.batch * sizes.hidden;
    let at = sizes.state(if reversed { 0 } else { sizes.steps - 1 }, d, 0);
    to.get::<f32>()[d * n..][..n].copy_from_slice(&y.get::<f32>()[at..at + n]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;
    use crate::ops::recurrent::{Direction, names};
    use crate::ops::{Attr, Op, eval};

    fn filled(shape: &[usize], value: f32) -> Tensor {
        Tensor::from_vec(shape, alloc::vec![value; shape.iter().product()])
    }

    #[test]
    fn a_bidirectional_layer_is_one_of_each_direction() {
        let wave = |shape: &[usize], f: f32| {
            let n = shape.iter().product::<usize>();
            Tensor::from_vec(shape, (0..n).map(|i| ((i as f32 * f) % 3.0) - 1.5).collect::<Vec<f32>>())
        };
        let (x, w, r, b) = (wave(&[3, 2, 2], 0.7), wave(&[1, 12, 2], 0.3), wave(&[1, 12, 3], 0.9), wave(&[1, 24], 1.1));
        let twice = |t: &Tensor| {
            let values = t.get::<f32>().unwrap();
            let shape: Vec<usize> = core::iter::once(2).chain(t.shape()[1..].iter().copied()).collect();
            Tensor::from_vec(&shape, [values, values].concat())
        };
        let run = |direction, inputs: &[&Tensor]| {
            let op = LSTM { layer: Recurrent { direction, hidden_size: Some(3) } };
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            eval(&op.into(), &inputs).unwrap()
        };
        let forward = run(Direction::Forward, &[&x, &w, &r, &b]);
        let reverse = run(Direction::Reverse, &[&x, &w, &r, &b]);
        let both = run(Direction::Bidirectional, &[&x, &twice(&w), &twice(&r), &twice(&b)]);
        assert_eq!(both[0].shape(), [3, 2, 2, 3]);
        for k in [1, 2] {
            let parts = [forward[k].get::<f32>().unwrap(), reverse[k].get::<f32>().unwrap()].concat();
            assert_eq!(both[k].get::<f32>().unwrap(), parts, "output {k}");
        }
        let (both, forward, reverse) = (&both[0], &forward[0], &reverse[0]);
        for t in 0..3 {
            let at = |y: &Tensor, from: usize| y.get::<f32>().unwrap()[from..from + 6].to_vec();
            assert_eq!(at(both, t * 12), at(forward, t * 6), "step {t}");
            assert_eq!(at(both, t * 12 + 6), at(reverse, t * 6), "step {t}, reversed");
        }
    }

    #[test]
    fn refuses_what_it_does_not_compute() {
        let sound = || Attrs::new().with_int("hidden_size", 3);
        for attrs in [
            sound().with_int("layout", 1),
            sound().with_int("input_forget", 1),
            sound().with("clip", Attr::Float(3.0)),
            sound().with("activations", names(&["Relu", "Tanh", "Tanh"])),
            sound().with("activations", names(&["Sigmoid"])),
            sound().with("direction", Attr::String("backward".into())),
            Attrs::new().with_int("hidden_size", 0),
            Attrs::new().with_int("hidden_size", i64::MAX),
        ] {
            assert!(Op::read("LSTM", attrs.clone()).unwrap().is_err(), "{attrs:?}");
        }
        let usual = sound().with("activations", names(&["Sigmoid", "Tanh", "tanh"]));
        let op = Op::read("LSTM", usual).unwrap().unwrap();
        let (x, w, r) = (filled(&[2, 1, 2], 0.5), filled(&[1, 12, 2], 0.5), filled(&[1, 12, 3], 0.5));
        let lens = Tensor::from_vec(&[1], alloc::vec![2_i32]);
        let (bad_w, bad_r, empty) = (filled(&[1, 9, 2], 0.5), filled(&[1, 12, 4], 0.5), filled(&[0, 1, 2], 0.5));
        let peepholes = filled(&[1, 9], 0.5);
        assert!(eval(&op, &[Some(&x), Some(&w), Some(&r)]).is_ok());
        let cases: [&[Option<&Tensor>]; 6] = [
            &[Some(&x), Some(&bad_w), Some(&r)],
            &[Some(&x), Some(&w), Some(&bad_r)],
            &[Some(&empty), Some(&w), Some(&r)],
            &[Some(&x), Some(&w), Some(&r), None, Some(&lens)],
            &[Some(&x), Some(&w), Some(&r), None, None, Some(&x)],
            &[Some(&x), Some(&w), Some(&r), None, None, None, None, Some(&peepholes)],
        ];
        for (i, inputs) in cases.iter().enumerate() {
            assert!(eval(&op, inputs).is_err(), "case {i}");
        }
    }
}
