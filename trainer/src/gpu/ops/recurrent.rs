//! What LSTM and GRU share on a GPU; see [`crate::ops::recurrent`], whose layout of weights, states and gradients it is.

use super::maps;
use super::product::{Matrix, product};
use crate::gpu::{Args, Gpu};
use crate::ops::recurrent::{B, Layer, W, X, slots};
use crate::ops::{Gradient, Inputs};

/// The input's part of all sums of direction `d`, `[T N, gates H]`: `X Wᵀ`, the biases for the input and as many of those
/// for the state as are given.
pub fn project(gpu: &Gpu, layer: &Layer, x: &Inputs<'_, f32>, d: usize, biases: [&[f32]; 2], sums: &mut [f32]) {
    let (columns, features) = (layer.gates * layer.sizes.hidden, layer.sizes.features);
    let [input, state] = biases;
    if !input.is_empty() {
        let n = sums.len();
        let args = Args::none().read(input).read(state).write(sums).numbers(&[n, columns, state.len()]);
        // SAFETY: recurrent_biases: sums of n elements in rows of as many as there are biases for the input.
        unsafe { gpu.each("recurrent_biases", n, &args) };
    }
    let w = Matrix::rows(layer.weights(x.get(W), d, features), features);
    let sizes = [layer.sizes.steps * layer.sizes.batch, columns, features];
    product(gpu, sums, Matrix::rows(x.get(X), features), w.t(), sizes, !input.is_empty());
}

/// The initial state of direction `d`, or zeros, in its slot of `[T + 1, N, H]`.
pub fn begin(gpu: &Gpu, layer: &Layer, states: &mut [f32], initial: &[f32], d: usize) {
    let (n, reversed) = (layer.state(), layer.reversed[d]);
    let (_, slot) = slots(reversed, layer.time(reversed, 0));
    let to = &mut states[slot * n..][..n];
    match initial.get(d * n..(d + 1) * n) {
        Some(initial) if !initial.is_empty() => maps::copy(gpu, to, initial, false),
        _ => maps::fill(gpu, to, 0.0),
    }
}

/// Writes the states of direction `d`, all and the last, and what else the node gives of the last step.
pub fn write(gpu: &Gpu, layer: &Layer, d: usize, states: &[&[f32]], y: &mut [f32]) {
    let (n, reversed, directions, steps) =
        (layer.state(), layer.reversed[d], layer.sizes.directions, layer.sizes.steps);
    let first = &states[0][if reversed { 0 } else { n }..];
    let args = Args::none().read(first).write(&mut y[..steps * directions * n]);
    // SAFETY: recurrent_write: steps states of n elements, and room for those of all directions.
    unsafe { gpu.each("recurrent_write", steps * n, &args.numbers(&[steps * n, n, directions, d])) };
    let (last, _) = slots(reversed, layer.time(reversed, steps - 1));
    let all = steps * directions * n;
    for (part, states) in states.iter().enumerate().take(layer.outputs - 1) {
        let to = &mut y[all + (part * directions + d) * n..][..n];
        maps::copy(gpu, to, &states[last * n..][..n], false);
    }
}

/// The gradient of the last state (`k` = 0) or cell (1) of direction `d`; zeros where nobody reads it.
pub fn d_last(gpu: &Gpu, layer: &Layer, d_y: &[f32], d: usize, k: usize, to: &mut [f32]) {
    let (n, directions) = (layer.state(), layer.sizes.directions);
    if layer.outputs > k + 1 {
        let all = layer.sizes.steps * directions * n;
        maps::copy(gpu, to, &d_y[all + (k * directions + d) * n..][..n], false);
    } else {
        maps::fill(gpu, to, 0.0);
    }
}

/// Gradients of X and W from those of the sums of direction `d`, `[T N, gates H]`.
pub fn d_input(gpu: &Gpu, layer: &Layer, x: &Inputs<'_, f32>, d: usize, d_sums: &[f32], d_x: &mut [Gradient<f32>]) {
    let (features, rows) = (layer.sizes.features, layer.sizes.steps * layer.sizes.batch);
    let columns = layer.gates * layer.sizes.hidden;
    let d_sums = Matrix::rows(d_sums, columns);
    if let Some((to, add)) = d_x[X].target() {
        let w = Matrix::rows(layer.weights(x.get(W), d, features), features);
        product(gpu, to, d_sums, w, [rows, features, columns], add || d > 0);
    }
    if let Some((to, add)) = d_x[W].target() {
        let to = &mut to[d * columns * features..][..columns * features];
        product(gpu, to, d_sums.t(), Matrix::rows(x.get(X), features), [columns, features, rows], add);
    }
}

/// Gradients of the biases of direction `d`: sums of the columns of those of the sums, and of those of the state's part from
/// some column on, where that is another.
pub fn d_biases(gpu: &Gpu, layer: &Layer, d: usize, d_sums: &[f32], own: Option<&[f32]>, d_x: &mut [Gradient<f32>]) {
    let (hidden, rows) = (layer.sizes.hidden, layer.sizes.steps * layer.sizes.batch);
    let columns = layer.gates * hidden;
    let Some((to, add)) = d_x.get_mut(B).and_then(Gradient::target) else { return };
    let (input, state) = to[2 * d * columns..][..2 * columns].split_at_mut(columns);
    let sums = |from: &[f32], columns: usize, to: &mut [f32]| {
        let args = Args::none().read(from).write(to).numbers(&[rows, columns]).flag(add);
        // SAFETY: column_sums: rows of columns, and a sum for each of these.
        unsafe { gpu.groups("column_sums", columns, &args) };
    };
    sums(d_sums, columns, input);
    match own {
        None => sums(d_sums, columns, state),
        Some(own) => {
            // A row is as long as before, and fewer of its columns are summed.
            let args = Args::none().read(d_sums).write(&mut state[..columns - hidden]);
            let args = args.numbers(&[rows, columns]).flag(add);
            // SAFETY: column_sums: rows of columns, of which the first are summed.
            unsafe { gpu.groups("column_sums", columns - hidden, &args) };
            sums(own, hidden, &mut state[columns - hidden..]);
        }
    }
}

/// The gradient of an initial state of direction `d`.
pub fn give(gpu: &Gpu, gradient: Option<&mut Gradient<f32>>, d: usize, source: &[f32]) {
    if let Some((to, add)) = gradient.and_then(Gradient::target) {
        maps::copy(gpu, &mut to[d * source.len()..][..source.len()], source, add);
    }
}
