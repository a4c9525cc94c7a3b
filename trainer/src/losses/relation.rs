//! What losses over pairs of samples share. They compute in f64: distances and products of nearly equal rows cancel, and a
//! batch has few of them beside what the networks compute.

use crate::exec::Real;
use crate::ops::kernels::gemm::{Matrix, multiply};

/// Sums that are kept side by side.
const LANES: usize = 8;

/// The same numbers in f64.
pub fn to_f64<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

/// Writes f64 numbers.
pub fn write<T: Real>(from: &[f64], to: &mut [T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::from_f64(from));
}

/// Squared Euclidean distances of all rows `[n, columns]`, of their differences (a Gram matrix would lose them where the
/// rows are far from 0): `[n, n]`.
pub fn squared_distances(x: &[f64], columns: usize) -> Vec<f64> {
    let n = x.len() / columns.max(1);
    let mut squares = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..i {
            let (a, b) = (&x[i * columns..][..columns], &x[j * columns..][..columns]);
            let mut lanes = [0.0; LANES];
            let (blocks_a, blocks_b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
            for (a, b) in blocks_a.0.iter().zip(blocks_b.0) {
                for ((sum, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *sum += (a - b) * (a - b);
                }
            }
            let rest: f64 = blocks_a.1.iter().zip(blocks_b.1).map(|(a, b)| (a - b) * (a - b)).sum();
            let square = lanes.iter().sum::<f64>() + rest;
            (squares[i * n + j], squares[j * n + i]) = (square, square);
        }
    }
    squares
}

/// `d_x[i] = 2 Σ_j (w[i, j] + w[j, i]) (x[i] - x[j])`: from gradients w `[n, n]` by squared distances to those by the rows.
pub fn pull(x: &[f64], columns: usize, w: &[f64]) -> Vec<f64> {
    let n = x.len() / columns.max(1);
    let mut d = vec![0.0; x.len()];
    for (i, d) in d.chunks_exact_mut(columns).enumerate() {
        let x_i = &x[i * columns..][..columns];
        for (j, x_j) in x.chunks_exact(columns).enumerate() {
            let weight = 2.0 * (w[i * n + j] + w[j * n + i]);
            if weight != 0.0 && i != j {
                d.iter_mut().zip(x_i).zip(x_j).for_each(|((d, a), b)| *d += weight * (a - b));
            }
        }
    }
    d
}

/// Rows of length 1, and what their lengths were plus `epsilon`. A row of zeros stays one.
pub struct Units {
    /// `[n, columns]`.
    pub rows: Vec<f64>,
    /// What each row was divided by; 0 of a row of zeros where epsilon is 0.
    divisors: Vec<f64>,
    lengths: Vec<f64>,
}

impl Units {
    /// Divides rows `[n, columns]` by their lengths plus epsilon.
    pub fn new(x: &[f64], columns: usize, epsilon: f64) -> Self {
        let mut rows = x.to_vec();
        let lengths: Vec<f64> = x.chunks_exact(columns).map(|x| x.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
        let divisors: Vec<f64> = lengths.iter().map(|length| length + epsilon).collect();
        for (row, &divisor) in rows.chunks_exact_mut(columns).zip(&divisors) {
            if divisor > 0.0 {
                row.iter_mut().for_each(|x| *x /= divisor);
            }
        }
        Self { rows, divisors, lengths }
    }

    /// Turns gradients by the unit rows into those by the rows. Through the length of a row of zeros nothing flows.
    pub fn backward(&self, columns: usize, d: &mut [f64]) {
        let rows = self.rows.chunks_exact(columns).zip(d.chunks_exact_mut(columns));
        for ((unit, d), (&divisor, &length)) in rows.zip(self.divisors.iter().zip(&self.lengths)) {
            if divisor == 0.0 {
                d.fill(0.0);
                continue;
            }
            let along: f64 = unit.iter().zip(&*d).map(|(u, d)| u * d).sum();
            let along = if length > 0.0 { along / length } else { 0.0 };
            d.iter_mut().zip(unit).for_each(|(d, u)| *d = *d / divisor - u * along);
        }
    }
}

/// `x xᵀ` of rows `[n, columns]`.
pub fn gram(x: &[f64], columns: usize) -> Vec<f64> {
    let n = x.len() / columns.max(1);
    let mut gram = vec![0.0; n * n];
    multiply(&mut gram, Matrix::rows(x, columns), Matrix::rows(x, columns).t(), [n, n, columns], 1.0, false);
    gram
}

/// From gradients by `x xᵀ` to those by x: `(d + dᵀ) x`.
pub fn gram_backward(x: &[f64], columns: usize, d: &[f64]) -> Vec<f64> {
    let n = x.len() / columns.max(1);
    let mut d_x = vec![0.0; x.len()];
    let (d, x) = (Matrix::rows(d, n), Matrix::rows(x, columns));
    multiply(&mut d_x, d, x, [n, columns, n], 1.0, false);
    multiply(&mut d_x, d.t(), x, [n, columns, n], 1.0, true);
    d_x
}

/// Huber's function with delta 1 and its slope.
#[inline]
pub fn huber(x: f64) -> (f64, f64) {
    let slope = x.clamp(-1.0, 1.0);
    (slope * (x - 0.5 * slope), slope)
}

/// The rows as a relation reads them: as they are, or of length 1.
pub fn read<T: Real>(x: &[T], columns: usize, l2norm: bool) -> (Vec<f64>, Option<Units>) {
    let x = to_f64(x);
    if !l2norm {
        return (x, None);
    }
    let units = Units::new(&x, columns, 0.0);
    (units.rows.clone(), Some(units))
}
