//! Gated recurrent unit, backward through time.

use kd_runtime::ops;
use kd_runtime::ops::recurrent::Sizes;

use super::gate::logistic;
use super::kernels::gemm::{Matrix, product};
use super::kernels::threads;
use super::recurrent::{self, B, H0, Layer, R, W, X, pair, slots};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site};
use crate::exec::Real;

struct Gru<T> {
    layer: Layer,
    linear_before_reset: bool,
    directions: Vec<Memory<T>>,
}

/// What a direction's forward pass leaves for backward, in the order of time.
struct Memory<T> {
    /// Gates after their functions, `[T, N, 3H]`: update, reset, hidden.
    gates: Vec<T>,
    /// States with the initial one, `[T + 1, N, H]`.
    states: Vec<T>,
    /// What the reset met, `[T, N, H]`: the state's product with its weights where that comes first (the reset then
    /// multiplies it), else the state after the reset (which the weights then multiply).
    met: Vec<T>,
}

/// The kernel of a GRU node.
pub fn build<T: Real>(op: &ops::gru::GRU, site: &Site<'_>) -> Built<T> {
    let layer = Layer::new(&op.layer, ops::gru::GATES, site)?;
    let zeros = |n: usize| vec![T::ZERO; n];
    let memory = |_: &bool| Memory {
        gates: zeros(layer.sizes.steps * layer.gate_elements()),
        states: zeros(layer.history()),
        met: zeros(layer.sizes.steps * layer.state()),
    };
    let directions = layer.reversed.iter().map(memory).collect();
    Ok(Box::new(Gru { layer, linear_before_reset: op.linear_before_reset, directions }))
}

/// The weights of the state, of update and reset, and of the hidden gate.
fn state_weights<'a, T>(layer: &Layer, x: &Inputs<'a, T>, d: usize) -> [Matrix<'a, T>; 2]
where
    T: Real,
{
    let hidden = layer.sizes.hidden;
    let (gates, own) = layer.weights(x.get(R), d, hidden).split_at(2 * hidden * hidden);
    [Matrix::rows(gates, hidden), Matrix::rows(own, hidden)]
}

impl<T: Real> Gru<T> {
    /// One step of direction `d` from the state before to the state `h`.
    fn step(&self, x: &Inputs<'_, T>, d: usize, state: [&mut [T]; 2], before: &[T], gates: &mut [T], sums: &mut [T]) {
        let Sizes { batch, hidden, .. } = self.layer.sizes;
        let (n, piece) = (self.layer.state(), self.layer.piece() * self.layer.sizes.hidden);
        let [h, met] = state;
        let [r_gates, r_own] = state_weights(&self.layer, x, d);
        let (gate_sums, own_sums) = sums.split_at_mut(2 * n);
        let h_before = Matrix::rows(before, hidden);
        product(gate_sums, h_before, r_gates.t(), [batch, 2 * hidden, hidden], T::ONE, false);
        threads::pairs((gates, 3 * piece), (met, piece), |i, gates, met| {
            let rows = gates.chunks_exact_mut(3 * hidden).zip(gate_sums[i * 2 * piece..].chunks_exact(2 * hidden));
            let states = met.chunks_exact_mut(hidden).zip(before[i * piece..].chunks_exact(hidden));
            for ((gates, sums), (met, before)) in rows.zip(states) {
                gates.iter_mut().zip(sums).for_each(|(gate, &sum)| *gate = logistic(*gate + sum));
                let resets = gates[hidden..2 * hidden].iter().zip(before);
                met.iter_mut().zip(resets).for_each(|(met, (&r, &h))| *met = r * h);
            }
        });
        let [_, bias] = self.layer.biases(x.get(B), d);
        if self.linear_before_reset {
            let bias = bias.get(2 * hidden..).unwrap_or(&[]);
            for row in met.chunks_exact_mut(hidden.max(1)).filter(|_| !bias.is_empty()) {
                row.copy_from_slice(bias);
            }
            product(met, h_before, r_own.t(), [batch, hidden, hidden], T::ONE, !bias.is_empty());
        } else {
            product(own_sums, Matrix::rows(met, hidden), r_own.t(), [batch, hidden, hidden], T::ONE, false);
        }
        let (met, sums) = (&*met, &*own_sums);
        threads::pairs((h, piece), (gates, 3 * piece), |i, h, gates| {
            for (n, (h, gates)) in h.chunks_exact_mut(hidden).zip(gates.chunks_exact_mut(3 * hidden)).enumerate() {
                for (j, h) in h.iter_mut().enumerate() {
                    let at = i * piece + n * hidden + j;
                    let own = if self.linear_before_reset { gates[hidden + j] * met[at] } else { sums[at] };
                    let (z, value) = (gates[j], (gates[2 * hidden + j] + own).tanh());
                    gates[2 * hidden + j] = value;
                    *h = (T::ONE - z) * value + z * before[at];
                }
            }
        });
    }
}

/// Places of a step's elements: of sequence and unit in a state, of its gates in a row of three.
fn each(batch: usize, hidden: usize, mut f: impl FnMut(usize, [usize; 3])) {
    for n in 0..batch {
        for j in 0..hidden {
            let first = n * 3 * hidden + j;
            f(n * hidden + j, [first, first + hidden, first + 2 * hidden]);
        }
    }
}

impl<T: Real> Kernel<T> for Gru<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let (n, hidden) = (self.layer.state(), self.layer.sizes.hidden);
        let sums = &mut context.scratch.shared[..3 * n];
        let mut directions = std::mem::take(&mut self.directions);
        for (d, memory) in directions.iter_mut().enumerate() {
            let (layer, reversed) = (&self.layer, self.layer.reversed[d]);
            let [input, state] = layer.biases(x.get(B), d);
            // The hidden gate's bias of the state belongs to its product where that comes before the reset.
            let shared = if self.linear_before_reset { state.len().min(2 * hidden) } else { state.len() };
            layer.project(x, d, [input, &state[..shared]], &mut memory.gates);
            recurrent::begin(layer, &mut memory.states, [x.get(H0)], d);
            for i in 0..layer.sizes.steps {
                let t = layer.time(reversed, i);
                let (h, before) = pair(&mut memory.states, slots(reversed, t), n);
                let met = &mut memory.met[t * n..][..n];
                self.step(x, d, [h, met], before, &mut memory.gates[t * 3 * n..][..3 * n], sums);
            }
            layer.write(d, &memory.states, 1, y);
        }
        self.directions = directions;
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let layer = &self.layer;
        let (Sizes { steps, batch, hidden, .. }, n) = (layer.sizes, layer.state());
        let (columns, rows) = (3 * hidden, steps * batch);
        let (d_sums, rest) = context.scratch.shared.split_at_mut(steps * 3 * n);
        // Of the state's part of the hidden gate, where it differs from that of the input.
        let (d_own, rest) = rest.split_at_mut(if self.linear_before_reset { steps * n } else { n });
        let (d_h, d_bias) = rest.split_at_mut(n);
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&self.directions).enumerate() {
            layer.d_last(d_y, d, 0, d_h);
            let [r_gates, r_own] = state_weights(layer, x, d);
            for i in (0..steps).rev() {
                let t = layer.time(reversed, i);
                let (_, before) = slots(reversed, t);
                let (before, gates) = (&memory.states[before * n..][..n], &memory.gates[t * 3 * n..][..3 * n]);
                let (met, d_t) = (&memory.met[t * n..][..n], &mut d_sums[t * 3 * n..][..3 * n]);
                let d_y = layer.d_states(d_y, d, t);
                let d_own = if self.linear_before_reset { &mut d_own[t * n..][..n] } else { &mut *d_own };
                each(batch, hidden, |at, [z, r, h]| {
                    let (d, update, value) = (d_h[at] + d_y[at], gates[z], gates[h]);
                    d_t[z] = d * (before[at] - value) * update * (T::ONE - update);
                    d_t[h] = d * (T::ONE - update) * (T::ONE - value * value);
                    d_h[at] = d * update;
                    if self.linear_before_reset {
                        d_t[r] = d_t[h] * met[at] * gates[r] * (T::ONE - gates[r]);
                        d_own[at] = d_t[h] * gates[r];
                    }
                });
                if self.linear_before_reset {
                    product(d_h, Matrix::rows(d_own, hidden), r_own, [batch, hidden, hidden], T::ONE, true);
                } else {
                    let d_hidden = Matrix { data: &d_t[2 * hidden..], row: columns, col: 1 };
                    product(d_own, d_hidden, r_own, [batch, hidden, hidden], T::ONE, false);
                    each(batch, hidden, |at, [_, r, _]| {
                        d_t[r] = d_own[at] * before[at] * gates[r] * (T::ONE - gates[r]);
                        d_h[at] += d_own[at] * gates[r];
                    });
                }
                product(d_h, Matrix::rows(d_t, columns), r_gates, [batch, hidden, 2 * hidden], T::ONE, true);
            }
            layer.d_input(x, d, d_sums, d_x);
            if let Some((to, add)) = d_x[R].target() {
                let to = &mut to[d * columns * hidden..][..columns * hidden];
                let (to_gates, to_own) = to.split_at_mut(2 * hidden * hidden);
                let before = Matrix::rows(&memory.states[if reversed { n } else { 0 }..][..steps * n], hidden);
                let d_all = Matrix::rows(d_sums, columns);
                product(to_gates, d_all.t(), before, [2 * hidden, hidden, rows], T::ONE, add);
                if self.linear_before_reset {
                    let d_own = Matrix::rows(d_own, hidden);
                    product(to_own, d_own.t(), before, [hidden, hidden, rows], T::ONE, add);
                } else {
                    let d_hidden = Matrix { data: &d_sums[2 * hidden..], row: columns, col: 1 };
                    let met = Matrix::rows(&memory.met, hidden);
                    product(to_own, d_hidden.t(), met, [hidden, hidden, rows], T::ONE, add);
                }
            }
            let (input, state) = d_bias[..2 * columns].split_at_mut(columns);
            recurrent::column_sums(d_sums, input);
            state.copy_from_slice(input);
            if self.linear_before_reset {
                recurrent::column_sums(d_own, &mut state[2 * hidden..]);
            }
            recurrent::give(d_x.get_mut(B), d, &d_bias[..2 * columns]);
            recurrent::give(d_x.get_mut(H0), d, d_h);
        }
    }

    fn keeps(&self) -> Keeps {
        let wanted = &self.layer.wanted;
        Keeps::inputs(&[(X, wanted[W]), (W, wanted[X]), (R, true)])
    }

    fn scratch(&self) -> ScratchSize {
        let n = self.layer.state();
        ScratchSize { shared: self.layer.sizes.steps * 4 * n + 2 * n + 6 * self.layer.sizes.hidden, lane: 0 }
    }
}
