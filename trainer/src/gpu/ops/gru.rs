//! Gated recurrent unit.

use kd_runtime::ops;

use super::product::{Matrix, product};
use super::{Made, recurrent};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::recurrent::{B, H0, Layer, R, W, X, pair, slots};
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Gru {
    gpu: Gpu,
    layer: Layer,
    linear_before_reset: bool,
    directions: Vec<Memory>,
    /// The state's part of a step's update and reset, `[N, 2H]`, and of its hidden gate where the reset comes first.
    sums: Buffer<f32>,
    own: Buffer<f32>,
    /// Of the sums of all steps, `[T, N, 3H]`; of the state's part of the hidden gate, `[T, N, H]` where the reset multiplies it,
    /// else of the states after the reset, `[N, H]`; of a state.
    d_sums: Buffer<f32>,
    d_own: Buffer<f32>,
    d_h: Buffer<f32>,
}

/// What a direction's forward pass leaves for backward, in the order of time.
struct Memory {
    /// Gates after their functions, `[T, N, 3H]`.
    gates: Buffer<f32>,
    /// States with the initial one, `[T + 1, N, H]`.
    h: Buffer<f32>,
    /// What the reset met, `[T, N, H]`: see [`crate::ops`]' GRU.
    met: Buffer<f32>,
}

/// GRU.
pub fn build(op: &ops::gru::GRU, site: &Site<'_>, gpu: &Gpu) -> Made {
    let layer = Layer::new(&op.layer, ops::gru::GATES, site)?;
    let (steps, n, linear_before_reset) = (layer.sizes.steps, layer.state(), op.linear_before_reset);
    let memory = |_: &bool| -> kd_runtime::Result<Memory> {
        let [h, met] = [Buffer::on(gpu, layer.history())?, Buffer::on(gpu, steps * n)?];
        Ok(Memory { gates: Buffer::on(gpu, steps * layer.gate_elements())?, h, met })
    };
    Ok(Box::new(Gru {
        gpu: gpu.clone(),
        linear_before_reset,
        directions: layer.reversed.iter().map(memory).collect::<kd_runtime::Result<_>>()?,
        sums: Buffer::on(gpu, 2 * n)?,
        own: Buffer::on(gpu, n)?,
        d_sums: Buffer::on(gpu, steps * layer.gate_elements())?,
        d_own: Buffer::on(gpu, if linear_before_reset { steps * n } else { n })?,
        d_h: Buffer::on(gpu, n)?,
        layer,
    }))
}

/// The weights of the state, of update and reset, and of the hidden gate.
fn state_weights<'a>(layer: &Layer, x: &Inputs<'a, f32>, d: usize) -> [Matrix<'a>; 2] {
    let hidden = layer.sizes.hidden;
    let (gates, own) = layer.weights(x.get(R), d, hidden).split_at(2 * hidden * hidden);
    [Matrix::rows(gates, hidden), Matrix::rows(own, hidden)]
}

impl Kernel<f32> for Gru {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let (gpu, layer, resets_product) = (&self.gpu, &self.layer, self.linear_before_reset);
        let (batch, hidden, n) = (layer.sizes.batch, layer.sizes.hidden, layer.state());
        let (sums, own) = (self.sums.raw_mut(), self.own.raw_mut());
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&mut self.directions).enumerate() {
            let [gates, h, met] = [memory.gates.raw_mut(), memory.h.raw_mut(), memory.met.raw_mut()];
            let [input, state] = layer.biases(x.get(B), d);
            // The hidden gate's bias of the state belongs to its product where that comes before the reset.
            let (shared, own_bias) =
                state.split_at(if resets_product { state.len().min(2 * hidden) } else { state.len() });
            recurrent::project(gpu, layer, x, d, [input, shared], gates);
            recurrent::begin(gpu, layer, h, x.get(H0), d);
            let [r_gates, r_own] = state_weights(layer, x, d);
            for i in 0..layer.sizes.steps {
                let t = layer.time(reversed, i);
                let (h, before) = pair(h, slots(reversed, t), n);
                let (gates, met) = (&mut gates[t * 3 * n..][..3 * n], &mut met[t * n..][..n]);
                let h_before = Matrix::rows(before, hidden);
                product(gpu, sums, h_before, r_gates.t(), [batch, 2 * hidden, hidden], false);
                let args = Args::none().read(before).read(sums).write(gates).write(met);
                // SAFETY: gru_gates: gates of n times 3 elements, sums of n times 2, the others of n.
                unsafe { gpu.each("gru_gates", n, &args.numbers(&[n, hidden]).flag(!resets_product)) };
                let own = if resets_product {
                    if !own_bias.is_empty() {
                        let args = Args::none().read(own_bias).read::<f32>(&[]).write(met).numbers(&[n, hidden, 0]);
                        // SAFETY: recurrent_biases: n elements in rows of as many as there are biases.
                        unsafe { gpu.each("recurrent_biases", n, &args) };
                    }
                    product(gpu, met, h_before, r_own.t(), [batch, hidden, hidden], !own_bias.is_empty());
                    &*met
                } else {
                    product(gpu, own, Matrix::rows(met, hidden), r_own.t(), [batch, hidden, hidden], false);
                    &*own
                };
                let args = Args::none().read(before).read(own).write(gates).write(h);
                // SAFETY: gru_state: gates of n times 3 elements, the others of n.
                unsafe { gpu.each("gru_state", n, &args.numbers(&[n, hidden]).flag(resets_product)) };
            }
            recurrent::write(gpu, layer, d, &[h], y);
        }
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, f32>,
        _y: &[f32],
        d_y: &[f32],
        d_x: &mut [Gradient<f32>],
        _context: &mut Context<'_, f32>,
    ) {
        let (gpu, layer, resets_product) = (&self.gpu, &self.layer, self.linear_before_reset);
        let (steps, batch, hidden, n) = (layer.sizes.steps, layer.sizes.batch, layer.sizes.hidden, layer.state());
        let (columns, rows) = (3 * hidden, steps * batch);
        let [d_sums, d_all_own, d_h] = [self.d_sums.raw_mut(), self.d_own.raw_mut(), self.d_h.raw_mut()];
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&self.directions).enumerate() {
            let [gates, h, met] = [memory.gates.raw(), memory.h.raw(), memory.met.raw()];
            recurrent::d_last(gpu, layer, d_y, d, 0, d_h);
            let [r_gates, r_own] = state_weights(layer, x, d);
            for i in (0..steps).rev() {
                let t = layer.time(reversed, i);
                let before = &h[slots(reversed, t).1 * n..][..n];
                let (gates, d_t) = (&gates[t * 3 * n..][..3 * n], &mut d_sums[t * 3 * n..][..3 * n]);
                let d_own = &mut d_all_own[if resets_product { t * n } else { 0 }..][..n];
                let args =
                    Args::none().read(layer.d_states(d_y, d, t)).read(gates).read(before).read(&met[t * n..][..n]);
                let args = args.write(d_h).write(d_t).write(d_own).numbers(&[n, hidden]).flag(resets_product);
                // SAFETY: gru_back: gates and their gradient of n times 3 elements, the others of n.
                unsafe { gpu.each("gru_back", n, &args) };
                if resets_product {
                    product(gpu, d_h, Matrix::rows(d_own, hidden), r_own, [batch, hidden, hidden], true);
                } else {
                    let d_hidden = Matrix::rows(&d_t[2 * hidden..], columns);
                    product(gpu, d_own, d_hidden, r_own, [batch, hidden, hidden], false);
                    let args = Args::none().read(d_own).read(gates).read(before).write(d_t).write(d_h);
                    // SAFETY: gru_reset_back: gates and their gradient of n times 3 elements, the others of n.
                    unsafe { gpu.each("gru_reset_back", n, &args.numbers(&[n, hidden])) };
                }
                product(gpu, d_h, Matrix::rows(d_t, columns), r_gates, [batch, hidden, 2 * hidden], true);
            }
            recurrent::d_input(gpu, layer, x, d, d_sums, d_x);
            if let Some((to, add)) = d_x[R].target() {
                let to = &mut to[d * columns * hidden..][..columns * hidden];
                let (to_gates, to_own) = to.split_at_mut(2 * hidden * hidden);
                let before = Matrix::rows(&h[if reversed { n } else { 0 }..][..steps * n], hidden);
                product(gpu, to_gates, Matrix::rows(d_sums, columns).t(), before, [2 * hidden, hidden, rows], add);
                if resets_product {
                    product(gpu, to_own, Matrix::rows(d_all_own, hidden).t(), before, [hidden, hidden, rows], add);
                } else {
                    let d_hidden = Matrix::rows(&d_sums[2 * hidden..], columns);
                    product(gpu, to_own, d_hidden.t(), Matrix::rows(met, hidden), [hidden, hidden, rows], add);
                }
            }
            recurrent::d_biases(gpu, layer, d, d_sums, resets_product.then_some(&*d_all_own), d_x);
            recurrent::give(gpu, d_x.get_mut(H0), d, d_h);
        }
    }

    fn keeps(&self) -> Keeps {
        let wanted = &self.layer.wanted;
        Keeps::inputs(&[(X, wanted[W]), (W, wanted[X]), (R, true)])
    }
}
