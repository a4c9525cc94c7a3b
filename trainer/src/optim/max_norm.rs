//! The max-norm constraint: no unit's incoming weights are longer than a limit.

use crate::exec::{Parameter, Role};
use crate::gpu;
use crate::ops::kernels::rows::wide;
use crate::ops::kernels::threads;

/// Units whose lengths are summed side by side: each sum waits for the one before.
const LANES: usize = 8;
/// Units of a piece of work.
const PIECE: usize = 8 * LANES;

/// Shortens the incoming weights of every unit whose 2-norm exceeds `most` to that length. Only [`Role::Weight`] counts;
/// `unit_axes` says along which axis the units of each parameter lie
/// ([`Executor::unit_axes`](crate::exec::Executor::unit_axes)). To be called after each optimizer step.
///
/// Source: Srivastava et al. 2014 (JMLR 15) §5.1, as used by Hinton, Vinyals, Dean 2015 §3 with dropout.
pub fn constrain(parameters: &mut [Parameter<f32>], unit_axes: &[usize], most: f32) {
    for (p, &axis) in parameters.iter_mut().zip(unit_axes) {
        if p.role != Role::Weight || axis >= p.shape.len() {
            continue;
        }
        if let Some(gpu) = p.value.gpu().cloned() {
            gpu::optim::max_norm(&gpu, &mut p.value, &p.shape, axis, most);
            continue;
        }
        let (units, inner) = (p.shape[axis], p.shape[axis + 1..].iter().product::<usize>());
        let values = &mut p.value[..];
        if values.is_empty() {
            continue;
        }
        let mut factors = vec![1.0; units];
        threads::chunks(&mut factors, PIECE, |i, factors| {
            for (lane, factors) in factors.chunks_mut(LANES).enumerate() {
                let first = i * PIECE + lane * LANES;
                let mut squares = [0.0; LANES];
                match factors.len() {
                    LANES => add_squares(values, [units, inner, first], &mut squares),
                    some => (0..some).for_each(|k| {
                        add_squares(values, [units, inner, first + k], std::array::from_mut(&mut squares[k]));
                    }),
                }
                for (factor, square) in factors.iter_mut().zip(squares) {
                    let norm = square.sqrt();
                    if norm.is_finite() && norm > f64::from(most) {
                        *factor = (f64::from(most) / norm) as f32;
                    }
                }
            }
        });
        if factors.iter().all(|&factor| factor == 1.0) {
            continue;
        }
        // Whole blocks of units where one's weights that lie together are few.
        let piece = if inner < PIECE { units * inner } else { inner };
        threads::chunks(values, piece, |i, values| {
            for (k, values) in values.chunks_exact_mut(inner.max(1)).enumerate() {
                let factor = factors[(i * (piece / inner) + k) % units];
                if factor != 1.0 {
                    values.iter_mut().for_each(|w| *w *= factor);
                }
            }
        });
    }
}

/// Adds the squares of the weights of so many units, from `first` on, of an array `[any, units, inner]`: each unit's in their
/// order.
fn add_squares<const N: usize>(values: &[f32], [units, inner, first]: [usize; 3], squares: &mut [f64; N]) {
    for block in values.chunks_exact((units * inner).max(1)) {
        let weights = &block[first * inner..][..N * inner];
        wide(|| {
            let whole = inner - inner % LANES;
            for from in (0..whole).step_by(LANES) {
                // Turned, so that the units lie side by side.
                let mut lines = [[0.0; N]; LANES];
                for (k, weights) in weights.chunks_exact(inner).enumerate() {
                    lines.iter_mut().zip(&weights[from..][..LANES]).for_each(|(line, &w)| line[k] = w);
                }
                lines.iter().for_each(|line| add(squares, line));
            }
            for i in whole..inner {
                add(squares, &std::array::from_fn(|k| weights[k * inner + i]));
            }
        });
    }
}

/// Adds the square of a weight of each unit.
#[inline(always)]
fn add<const N: usize>(squares: &mut [f64; N], weights: &[f32; N]) {
    squares.iter_mut().zip(weights).for_each(|(square, &w)| *square += f64::from(w) * f64::from(w));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::random::Stream;

    #[test]
    fn squares_are_added_in_the_order_of_the_weights() {
        let stream = Stream::new(3, 0);
        let (blocks, units) = (2, 11);
        for inner in [1, 3, 8, 9, 37] {
            let values: Vec<f32> = (0..blocks * units * inner).map(|i| stream.uniform(i) - 0.5).collect();
            for first in [0, 3] {
                let mut found = [0.0; LANES];
                add_squares(&values, [units, inner, first], &mut found);
                let expected: [f64; LANES] = std::array::from_fn(|k| {
                    let unit = |block: usize| &values[(block * units + first + k) * inner..][..inner];
                    (0..blocks).flat_map(unit).fold(0.0, |sum, &w| sum + f64::from(w) * f64::from(w))
                });
                assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits), "{inner} weights from unit {first}");
            }
        }
    }
}
