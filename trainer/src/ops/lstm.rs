//! Long short-term memory, backward through time.

use kd_runtime::ops;

use super::gate::logistic;
use super::kernels::gemm::{Matrix, product};
use super::kernels::threads;
use super::recurrent::{self, B, C0, H0, Layer, R, W, X, pair, slots};
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, ScratchSize, Site};
use crate::exec::Real;

struct Lstm<T> {
    layer: Layer,
    directions: Vec<Memory<T>>,
}

/// What a direction's forward pass leaves for backward, in the order of time.
struct Memory<T> {
    /// Gates after their functions, `[T, N, 4H]`: input, output, forget, cell.
    gates: Vec<T>,
    /// h, c and tanh(c), and the initial h and c, `[T + 1, N, 3H]`.
    states: Vec<T>,
}

/// The kernel of an LSTM node.
pub fn build<T: Real>(op: &ops::lstm::LSTM, site: &Site<'_>) -> Built<T> {
    let layer = Layer::new(&op.layer, ops::lstm::GATES, site)?;
    let zeros = |n: usize| vec![T::ZERO; n];
    let memory = |_: &bool| Memory {
        gates: zeros(layer.sizes.steps * layer.gate_elements()),
        states: zeros(3 * layer.history()),
    };
    let directions = layer.reversed.iter().map(memory).collect();
    Ok(Box::new(Lstm { layer, directions }))
}

/// One step of some sequences: gates hold their sums and become their values.
fn step<T: Real>(hidden: usize, gates: &mut [T], states: &mut [T], before: &[T]) {
    let rows = gates.chunks_exact_mut(4 * hidden).zip(states.chunks_exact_mut(3 * hidden));
    for ((gates, states), before) in rows.zip(before.chunks_exact(3 * hidden)) {
        let (h, rest) = states.split_at_mut(hidden);
        let (c, tanh) = rest.split_at_mut(hidden);
        let before = &before[hidden..2 * hidden];
        let (sigmoids, cell) = gates.split_at_mut(3 * hidden);
        sigmoids.iter_mut().for_each(|v| *v = logistic(*v));
        cell.iter_mut().for_each(|v| *v = v.tanh());
        let (i, rest) = sigmoids.split_at(hidden);
        let (o, f) = rest.split_at(hidden);
        for j in 0..hidden {
            c[j] = f[j] * before[j] + i[j] * cell[j];
            tanh[j] = c[j].tanh();
            h[j] = o[j] * tanh[j];
        }
    }
}

/// One step back of some sequences: `d_h` is that of the state, `d_c` that of the cell and becomes that of the one
/// before.
fn step_back<T: Real>(hidden: usize, d: &mut [T], d_c: &mut [T], d_h: [&[T]; 2], [gates, states, before]: [&[T]; 3]) {
    let rows = d.chunks_exact_mut(4 * hidden).zip(gates.chunks_exact(4 * hidden)).zip(d_c.chunks_exact_mut(hidden));
    let states = states.chunks_exact(3 * hidden).zip(before.chunks_exact(3 * hidden));
    for (n, (((d, gates), d_c), (states, before))) in rows.zip(states).enumerate() {
        for j in 0..hidden {
            let [i, o, f, g] = [gates[j], gates[hidden + j], gates[2 * hidden + j], gates[3 * hidden + j]];
            let (d_h, tanh) = (d_h[0][n * hidden + j] + d_h[1][n * hidden + j], states[2 * hidden + j]);
            let d_cell = d_c[j] + d_h * o * (T::ONE - tanh * tanh);
            d[j] = d_cell * g * i * (T::ONE - i);
            d[hidden + j] = d_h * tanh * o * (T::ONE - o);
            d[2 * hidden + j] = d_cell * before[hidden + j] * f * (T::ONE - f);
            d[3 * hidden + j] = d_cell * i * (T::ONE - g * g);
            d_c[j] = d_cell * f;
        }
    }
}

impl<T: Real> Kernel<T> for Lstm<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let layer = &self.layer;
        let (batch, hidden, n) = (layer.sizes.batch, layer.sizes.hidden, layer.state());
        let piece = layer.piece();
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&mut self.directions).enumerate() {
            layer.project(x, d, layer.biases(x.get(B), d), &mut memory.gates);
            recurrent::begin(layer, &mut memory.states, [x.get(H0), x.get(C0)], d);
            let r = Matrix::rows(layer.weights(x.get(R), d, hidden), hidden);
            for i in 0..layer.sizes.steps {
                let t = layer.time(reversed, i);
                let gates = &mut memory.gates[t * 4 * n..][..4 * n];
                let (states, before) = pair(&mut memory.states, slots(reversed, t), 3 * n);
                let h_before = Matrix::rows(before, 3 * hidden);
                product(gates, h_before, r.t(), [batch, 4 * hidden, hidden], T::ONE, true);
                threads::pairs((gates, piece * 4 * hidden), (states, piece * 3 * hidden), |i, gates, states| {
                    step(hidden, gates, states, &before[i * piece * 3 * hidden..]);
                });
            }
            layer.write(d, &memory.states, 3, y);
        }
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
        let (steps, batch, hidden, n) = (layer.sizes.steps, layer.sizes.batch, layer.sizes.hidden, layer.state());
        let (piece, columns) = (layer.piece(), 4 * layer.sizes.hidden);
        let (d_sums, rest) = context.scratch.shared.split_at_mut(steps * 4 * n);
        let (d_h, rest) = rest.split_at_mut(n);
        let (d_c, d_bias) = rest.split_at_mut(n);
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&self.directions).enumerate() {
            layer.d_last(d_y, d, 0, d_h);
            layer.d_last(d_y, d, 1, d_c);
            let r = Matrix::rows(layer.weights(x.get(R), d, hidden), hidden);
            for i in (0..steps).rev() {
                let t = layer.time(reversed, i);
                let (own, before) = slots(reversed, t);
                let d_t = &mut d_sums[t * 4 * n..][..4 * n];
                let d_y = layer.d_states(d_y, d, t);
                let gates = &memory.gates[t * 4 * n..][..4 * n];
                let (states, before) = (&memory.states[own * 3 * n..], &memory.states[before * 3 * n..]);
                let d_after = &*d_h;
                threads::pairs((&mut *d_t, piece * columns), (&mut *d_c, piece * hidden), |i, d_t, d_c| {
                    let (at, row) = (i * piece * hidden, i * piece * 3 * hidden);
                    let kept = [&gates[i * piece * columns..], &states[row..], &before[row..]];
                    step_back(hidden, d_t, d_c, [&d_after[at..], &d_y[at..]], kept);
                });
                product(d_h, Matrix::rows(d_t, columns), r, [batch, hidden, columns], T::ONE, false);
            }
            layer.d_input(x, d, d_sums, d_x);
            if let Some((to, add)) = d_x[R].target() {
                let to = &mut to[d * columns * hidden..][..columns * hidden];
                let before = Matrix::rows(&memory.states[if reversed { 3 * n } else { 0 }..], 3 * hidden);
                let sizes = [columns, hidden, steps * batch];
                product(to, Matrix::rows(d_sums, columns).t(), before, sizes, T::ONE, add);
            }
            let (input, state) = d_bias[..2 * columns].split_at_mut(columns);
            recurrent::column_sums(d_sums, input);
            state.copy_from_slice(input);
            recurrent::give(d_x.get_mut(B), d, &d_bias[..2 * columns]);
            recurrent::give(d_x.get_mut(H0), d, d_h);
            recurrent::give(d_x.get_mut(C0), d, d_c);
        }
    }

    fn keeps(&self) -> Keeps {
        let wanted = &self.layer.wanted;
        Keeps::inputs(&[(X, wanted[W]), (W, wanted[X]), (R, true)])
    }

    fn scratch(&self) -> ScratchSize {
        let n = self.layer.state();
        ScratchSize { shared: self.layer.sizes.steps * 4 * n + 2 * n + 8 * self.layer.sizes.hidden, lane: 0 }
    }
}
