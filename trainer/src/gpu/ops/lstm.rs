//! Long short-term memory.

use kd_runtime::ops;

use super::product::{Matrix, product};
use super::{Made, recurrent};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::recurrent::{B, C0, H0, Layer, R, W, X, pair, slots};
use crate::ops::{Context, Gradient, Inputs, Keeps, Kernel, Site};

struct Lstm {
    gpu: Gpu,
    layer: Layer,
    directions: Vec<Memory>,
    /// Of the sums of all steps, `[T, N, 4H]`, of a state and of a cell.
    d_sums: Buffer<f32>,
    d_h: Buffer<f32>,
    d_c: Buffer<f32>,
}

/// What a direction's forward pass leaves for backward, in the order of time.
struct Memory {
    /// Gates after their functions, `[T, N, 4H]`.
    gates: Buffer<f32>,
    /// States and cells with the initial ones, `[T + 1, N, H]`.
    h: Buffer<f32>,
    c: Buffer<f32>,
}

/// LSTM.
pub fn build(op: &ops::lstm::LSTM, site: &Site<'_>, gpu: &Gpu) -> Made {
    let layer = Layer::new(&op.layer, ops::lstm::GATES, site)?;
    let all = layer.sizes.steps * layer.gate_elements();
    let memory = |_: &bool| -> kd_runtime::Result<Memory> {
        let [h, c] = [Buffer::on(gpu, layer.history())?, Buffer::on(gpu, layer.history())?];
        Ok(Memory { gates: Buffer::on(gpu, all)?, h, c })
    };
    let directions = layer.reversed.iter().map(memory).collect::<kd_runtime::Result<_>>()?;
    let (d_h, d_c) = (Buffer::on(gpu, layer.state())?, Buffer::on(gpu, layer.state())?);
    Ok(Box::new(Lstm { gpu: gpu.clone(), d_sums: Buffer::on(gpu, all)?, d_h, d_c, layer, directions }))
}

impl Kernel<f32> for Lstm {
    fn forward(&mut self, x: &Inputs<'_, f32>, y: &mut [f32], _context: &mut Context<'_, f32>) {
        let (gpu, layer) = (&self.gpu, &self.layer);
        let (batch, hidden, n) = (layer.sizes.batch, layer.sizes.hidden, layer.state());
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&mut self.directions).enumerate() {
            let [gates, h, c] = [memory.gates.raw_mut(), memory.h.raw_mut(), memory.c.raw_mut()];
            recurrent::project(gpu, layer, x, d, layer.biases(x.get(B), d), gates);
            recurrent::begin(gpu, layer, h, x.get(H0), d);
            recurrent::begin(gpu, layer, c, x.get(C0), d);
            let r = Matrix::rows(layer.weights(x.get(R), d, hidden), hidden);
            for i in 0..layer.sizes.steps {
                let t = layer.time(reversed, i);
                let gates = &mut gates[t * 4 * n..][..4 * n];
                let ((h, h_before), (c, c_before)) = (pair(h, slots(reversed, t), n), pair(c, slots(reversed, t), n));
                product(gpu, gates, Matrix::rows(h_before, hidden), r.t(), [batch, 4 * hidden, hidden], true);
                let args = Args::none().read(c_before).write(gates).write(c).write(h).numbers(&[n, hidden]);
                // SAFETY: lstm_step: gates of n times 4 elements, states of n.
                unsafe { gpu.each("lstm_step", n, &args) };
            }
            recurrent::write(gpu, layer, d, &[h, c], y);
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
        let (gpu, layer) = (&self.gpu, &self.layer);
        let (steps, batch, hidden, n) = (layer.sizes.steps, layer.sizes.batch, layer.sizes.hidden, layer.state());
        let columns = 4 * hidden;
        let [d_sums, d_h, d_c] = [self.d_sums.raw_mut(), self.d_h.raw_mut(), self.d_c.raw_mut()];
        for (d, (&reversed, memory)) in layer.reversed.iter().zip(&self.directions).enumerate() {
            let [gates, h, c] = [memory.gates.raw(), memory.h.raw(), memory.c.raw()];
            recurrent::d_last(gpu, layer, d_y, d, 0, d_h);
            recurrent::d_last(gpu, layer, d_y, d, 1, d_c);
            let r = Matrix::rows(layer.weights(x.get(R), d, hidden), hidden);
            for i in (0..steps).rev() {
                let t = layer.time(reversed, i);
                let (own, before) = slots(reversed, t);
                let d_t = &mut d_sums[t * 4 * n..][..4 * n];
                let args = Args::none().read(d_h).read(layer.d_states(d_y, d, t)).read(&gates[t * 4 * n..][..4 * n]);
                let args = args.read(&c[own * n..][..n]).read(&c[before * n..][..n]).write(d_c).write(d_t);
                // SAFETY: lstm_step_back: gates and their gradient of n times 4 elements, the others of n.
                unsafe { gpu.each("lstm_step_back", n, &args.numbers(&[n, hidden])) };
                product(gpu, d_h, Matrix::rows(d_t, columns), r, [batch, hidden, columns], false);
            }
            recurrent::d_input(gpu, layer, x, d, d_sums, d_x);
            if let Some((to, add)) = d_x[R].target() {
                let to = &mut to[d * columns * hidden..][..columns * hidden];
                let before = Matrix::rows(&h[if reversed { n } else { 0 }..][..steps * n], hidden);
                product(gpu, to, Matrix::rows(d_sums, columns).t(), before, [columns, hidden, steps * batch], add);
            }
            recurrent::d_biases(gpu, layer, d, d_sums, None, d_x);
            recurrent::give(gpu, d_x.get_mut(H0), d, d_h);
            recurrent::give(gpu, d_x.get_mut(C0), d, d_c);
        }
    }

    fn keeps(&self) -> Keeps {
        let wanted = &self.layer.wanted;
        Keeps::inputs(&[(X, wanted[W]), (W, wanted[X]), (R, true)])
    }
}
