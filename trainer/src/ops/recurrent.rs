//! What LSTM and GRU share. The input's part of all sums is one product over all steps; each step adds its product with
//! the state before. States lie in the order of time with room for the initial one, so that those before each step are
//! one matrix and the gradients of the weights one product each.

use kd_runtime::ops::OpError;
use kd_runtime::ops::recurrent::{Recurrent, Sizes};

use super::kernels::gemm::{Matrix, product};
use super::{Gradient, Inputs, Site};
use crate::exec::Real;

/// Elements of a state that are worth a piece of their own.
const PIECE: usize = 1 << 10;

/// Places of the inputs.
pub const X: usize = 0;
pub const W: usize = 1;
pub const R: usize = 2;
pub const B: usize = 3;
pub const H0: usize = 5;
pub const C0: usize = 6;

/// A recurrent node at one batch size.
pub struct Layer {
    /// Its sizes.
    pub sizes: Sizes,
    /// For each direction whether it reads from the last step.
    pub reversed: &'static [bool],
    /// Gates.
    pub gates: usize,
    /// Outputs that are written, one after another.
    pub outputs: usize,
    /// Whether the gradient of each input is wanted.
    pub wanted: [bool; 7],
}

impl Layer {
    /// The layer of a node.
    pub fn new(layer: &Recurrent, gates: usize, site: &Site<'_>) -> Result<Self, OpError> {
        let shapes = [site.shape(X), site.shape(W), site.shape(R)];
        let sizes = Sizes::of(&shapes.map(Some)).ok_or_else(|| OpError::new("sequences", format!("{shapes:?}")))?;
        let reversed = layer.direction.reversed();
        Ok(Self { sizes, reversed, gates, outputs: site.outputs, wanted: std::array::from_fn(|i| site.wanted(i)) })
    }

    /// Elements of the state of all sequences.
    pub fn state(&self) -> usize {
        self.sizes.batch * self.sizes.hidden
    }

    /// Elements of the gates of all sequences.
    pub fn gate_elements(&self) -> usize {
        self.gates * self.state()
    }

    /// Elements of all steps' states and the initial one.
    pub fn history(&self) -> usize {
        (self.sizes.steps + 1) * self.state()
    }

    /// Step number `i` of a direction in the order of time.
    pub fn time(&self, reversed: bool, i: usize) -> usize {
        if reversed { self.sizes.steps - 1 - i } else { i }
    }

    /// Sequences of a piece of a step.
    pub fn piece(&self) -> usize {
        (PIECE / self.sizes.hidden.max(1)).max(1)
    }

    /// The weights of direction `d`, `[gates H, columns]`.
    pub fn weights<'a, T>(&self, all: &'a [T], d: usize, columns: usize) -> &'a [T] {
        let len = self.gates * self.sizes.hidden * columns;
        &all[d * len..][..len]
    }

    /// The biases of direction `d`, for the input and for the state; empty if there are none.
    pub fn biases<'a, T>(&self, all: &'a [T], d: usize) -> [&'a [T]; 2] {
        let rows = self.gates * self.sizes.hidden;
        if all.is_empty() {
            return [&[], &[]];
        }
        let (input, state) = all[2 * d * rows..][..2 * rows].split_at(rows);
        [input, state]
    }

    /// The input's part of all sums of direction `d`, `[T N, gates H]`: `X Wᵀ`, the biases for the input and as many of
    /// those for the state as are given.
    pub fn project<T: Real>(&self, x: &Inputs<'_, T>, d: usize, [input, state]: [&[T]; 2], sums: &mut [T]) {
        let Sizes { steps, batch, features, hidden, .. } = self.sizes;
        let columns = self.gates * hidden;
        for row in sums.chunks_exact_mut(columns.max(1)).filter(|_| !input.is_empty()) {
            row.copy_from_slice(input);
            row.iter_mut().zip(state).for_each(|(sum, &bias)| *sum += bias);
        }
        let w = Matrix::rows(self.weights(x.get(W), d, features), features);
        let sizes = [steps * batch, columns, features];
        product(sums, Matrix::rows(x.get(X), features), w.t(), sizes, T::ONE, !input.is_empty());
    }

    /// Writes a direction's states into the outputs: all of them, the last, and the last cells. A row holds `parts`
    /// states, of which the first is h and the second c.
    pub fn write<T: Real>(&self, d: usize, states: &[T], parts: usize, y: &mut [T]) {
        let Sizes { steps, batch, directions, hidden, .. } = self.sizes;
        let (n, reversed) = (self.state(), self.reversed[d]);
        let copy = |to: &mut [T], slot: usize, part: usize| {
            let rows = states[slot * n * parts..].chunks_exact(hidden * parts).take(batch);
            for (to, row) in to.chunks_exact_mut(hidden).zip(rows) {
                to.copy_from_slice(&row[part * hidden..][..hidden]);
            }
        };
        for t in 0..steps {
            copy(&mut y[(t * directions + d) * n..][..n], slots(reversed, t).0, 0);
        }
        let (last, _) = slots(reversed, self.time(reversed, steps - 1));
        let all = steps * directions * n;
        for part in 0..self.outputs - 1 {
            copy(&mut y[all + (part * directions + d) * n..][..n], last, part);
        }
    }

    /// The gradient of a step's states of direction `d`.
    pub fn d_states<'a, T>(&self, d_y: &'a [T], d: usize, t: usize) -> &'a [T] {
        let n = self.state();
        &d_y[(t * self.sizes.directions + d) * n..][..n]
    }

    /// The gradient of the last state (`k` = 0) or cell (1) of direction `d`; zeros where nobody reads it.
    pub fn d_last<T: Real>(&self, d_y: &[T], d: usize, k: usize, to: &mut [T]) {
        let (n, directions) = (self.state(), self.sizes.directions);
        if self.outputs > k + 1 {
            let all = self.sizes.steps * directions * n;
            to.copy_from_slice(&d_y[all + (k * directions + d) * n..][..n]);
        } else {
            to.fill(T::ZERO);
        }
    }

    /// Gradients of X and W from those of the sums of direction `d`, `[T N, gates H]`.
    pub fn d_input<T: Real>(&self, x: &Inputs<'_, T>, d: usize, d_sums: &[T], d_x: &mut [Gradient<T>]) {
        let Sizes { steps, batch, features, hidden, .. } = self.sizes;
        let (rows, columns) = (steps * batch, self.gates * hidden);
        let d_sums = Matrix::rows(d_sums, columns);
        if let Some((to, add)) = d_x[X].target() {
            let w = Matrix::rows(self.weights(x.get(W), d, features), features);
            product(to, d_sums, w, [rows, features, columns], T::ONE, add || d > 0);
        }
        if let Some((to, add)) = d_x[W].target() {
            let to = &mut to[d * columns * features..][..columns * features];
            product(to, d_sums.t(), Matrix::rows(x.get(X), features), [columns, features, rows], T::ONE, add);
        }
    }
}

/// Where the state of time t lies, and the state before it, among `steps + 1` states.
pub fn slots(reversed: bool, t: usize) -> (usize, usize) {
    if reversed { (t, t + 1) } else { (t + 1, t) }
}

/// The states of `slots`, the first one to be written.
pub fn pair<T>(states: &mut [T], (own, before): (usize, usize), n: usize) -> (&mut [T], &[T]) {
    let (low, high) = states.split_at_mut(own.max(before) * n);
    if own > before { (&mut high[..n], &low[before * n..][..n]) } else { (&mut low[own * n..][..n], &high[..n]) }
}

/// The initial states of direction `d`, or zeros, in their slot; a row of a slot holds them one after another (and may
/// hold more).
pub fn begin<T: Real, const K: usize>(layer: &Layer, states: &mut [T], initial: [&[T]; K], d: usize) {
    let Sizes { steps, batch, hidden, .. } = layer.sizes;
    let width = states.len() / ((steps + 1) * batch).max(1);
    let (_, slot) = slots(layer.reversed[d], layer.time(layer.reversed[d], 0));
    let rows = states[slot * batch * width..].chunks_exact_mut(width.max(1)).take(batch);
    for (i, row) in rows.enumerate() {
        for (k, initial) in initial.iter().enumerate() {
            let state = &mut row[k * hidden..][..hidden];
            match initial.get((d * batch + i) * hidden..) {
                Some(initial) if !initial.is_empty() => state.copy_from_slice(&initial[..hidden]),
                _ => state.fill(T::ZERO),
            }
        }
    }
}

/// `to = source` or `to += source` in the part of direction `d`, if it is wanted.
pub fn give<T: Real>(gradient: Option<&mut Gradient<T>>, d: usize, source: &[T]) {
    let Some((to, add)) = gradient.and_then(Gradient::target) else { return };
    let to = &mut to[d * source.len()..][..source.len()];
    to.iter_mut().zip(source).for_each(|(to, &value)| *to = if add { *to + value } else { value });
}

/// The sums of the columns of a matrix that has as many.
pub fn column_sums<T: Real>(matrix: &[T], sums: &mut [T]) {
    sums.fill(T::ZERO);
    for row in matrix.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += value);
    }
}
