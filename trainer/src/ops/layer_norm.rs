//! Normalization over the last axes of each sample, with the biased variance.

use kd_runtime::ops::{self, OpError};

use super::kernels::pointwise::{self, PIECE};
use super::kernels::rows::wide;
use super::kernels::threads;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

struct LayerNorm<T> {
    /// Elements of a row.
    len: usize,
    /// Rows of a piece; what pieces add to the gradients of scale and bias is summed in their order.
    piece: usize,
    epsilon: T,
    /// Mean and 1 / √(var + epsilon) of each row.
    statistics: Vec<[T; 2]>,
    /// Gradients of scale and bias of each piece.
    sums: Vec<T>,
    wanted: [bool; 3],
}

/// The kernel of a LayerNormalization node.
pub fn build<T: Real>(op: &ops::layer_norm::LayerNormalization, site: &Site<'_>) -> Built<T> {
    let x = site.shape(0);
    let axis = ops::attrs::axis(op.axis, x.len())?;
    let (rows, len) = (x[..axis].iter().product::<usize>(), x[axis..].iter().product::<usize>());
    if len == 0 {
        return Err(OpError::new("rows that are not empty", format!("{x:?}")));
    }
    let piece = (PIECE / len).max(1);
    let wanted = [site.wanted(0), site.wanted(1), site.wanted(2)];
    let sums = if wanted[1] || wanted[2] { rows.div_ceil(piece) * 2 * len } else { 0 };
    Ok(Box::new(LayerNorm {
        len,
        piece,
        epsilon: T::from_f32(op.epsilon),
        statistics: vec![[T::ZERO; 2]; rows],
        sums: vec![T::ZERO; sums],
        wanted,
    }))
}

impl<T: Real> Kernel<T> for LayerNorm<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (len, epsilon, piece) = (self.len, self.epsilon, self.piece);
        let (x, scale, bias) = (x.get(0), x.get(1), x.get(2));
        let weight = T::ONE / T::from_usize(len);
        threads::pairs((y, piece * len), (&mut self.statistics, piece), |i, y, statistics| {
            let rows = y.chunks_exact_mut(len).zip(x[i * piece * len..].chunks_exact(len)).zip(statistics);
            wide(move || {
                for ((y, x), statistics) in rows {
                    let mean = pointwise::sum(x) * weight;
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
                    let inverse = T::ONE / (pointwise::dot(y, y) * weight + epsilon).sqrt();
                    y.iter_mut().zip(scale).for_each(|(y, &scale)| *y = *y * inverse * scale);
                    y.iter_mut().zip(bias).for_each(|(y, &bias)| *y += bias);
                    *statistics = [mean, inverse];
                }
            });
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let (len, piece, statistics) = (self.len, self.piece, &self.statistics);
        let (x, scale) = (x.get(0), x.get(1));
        if self.wanted[1] || self.wanted[2] {
            threads::chunks(&mut self.sums, 2 * len, |i, sums| {
                sums.fill(T::ZERO);
                let (d_scale, d_bias) = sums.split_at_mut(len);
                let rows = x[i * piece * len..].chunks_exact(len).zip(d_y[i * piece * len..].chunks_exact(len));
                let rows = rows.zip(&statistics[i * piece..]).take(piece);
                wide(move || {
                    for ((x, d_y), &[mean, inverse]) in rows {
                        for (d, (&x, &d_y)) in d_scale.iter_mut().zip(x.iter().zip(d_y)) {
                            *d += d_y * (x - mean) * inverse;
                        }
                        d_bias.iter_mut().zip(d_y).for_each(|(d, &d_y)| *d += d_y);
                    }
                });
            });
            for (k, offset) in [(1, 0), (2, len)] {
                let Some((d, add)) = d_x.get_mut(k).and_then(Gradient::target) else { continue };
                if !add {
                    d.fill(T::ZERO);
                }
                for sums in self.sums.chunks_exact(2 * len) {
                    d.iter_mut().zip(&sums[offset..]).for_each(|(d, &sum)| *d += sum);
                }
            }
        }
        let Some((d_x, add)) = d_x[0].target() else { return };
        let weight = T::ONE / T::from_usize(len);
        threads::chunks(d_x, piece * len, |i, d_x| {
            let rows = x[i * piece * len..].chunks_exact(len).zip(d_y[i * piece * len..].chunks_exact(len));
            let rows = d_x.chunks_exact_mut(len).zip(rows).zip(&statistics[i * piece..]);
            wide(move || {
                for ((d_x, (x, d_y)), &[mean, inverse]) in rows {
                    // With g = d_y scale and the normalized x: d_x = (g - mean(g) - x mean(g x)) / σ.
                    let (mut sum, mut product) = (T::ZERO, T::ZERO);
                    for ((&x, &d_y), &scale) in x.iter().zip(d_y).zip(scale) {
                        let g = d_y * scale;
                        sum += g;
                        product += g * (x - mean) * inverse;
                    }
                    let (sum, product) = (sum * weight, product * weight);
                    for (((d, &x), &d_y), &scale) in d_x.iter_mut().zip(x).zip(d_y).zip(scale) {
                        let value = (d_y * scale - sum - (x - mean) * inverse * product) * inverse;
                        *d = if add { *d + value } else { value };
                    }
                }
            });
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, true), (1, self.wanted[0])])
    }
}
