//! The row that defines the result.

use super::{GemmI8, Result8, Right};
use crate::engine::requantize::Byte;
use crate::graph::{Slice, SliceMut, TensorView};

/// Multiplies; `acc` holds one row of the result.
pub fn gemm<A: Byte>(kernel: &GemmI8, a: &[A], b: Option<TensorView<'_>>, mut y: SliceMut<'_>, acc: &mut [i32]) {
    let (k, n) = (kernel.k, kernel.n);
    for (row, a) in a.chunks_exact(k.max(1)).enumerate() {
        acc.copy_from_slice(&kernel.bias);
        match (&kernel.right, b.map(|b| b.data)) {
            (Right::Computed(zero_point), Some(Slice::U8(b))) => {
                let b = matrix(b, k * n, row / kernel.rows.max(1));
                add_products(a, kernel.left_zero_point, b, |b| b.wide() - zero_point, acc);
            }
            (Right::Computed(zero_point), Some(Slice::I8(b))) => {
                let b = matrix(b, k * n, row / kernel.rows.max(1));
                add_products(a, kernel.left_zero_point, b, |b| b.wide() - zero_point, acc);
            }
            (Right::Constant(b), _) => add_products(a, kernel.left_zero_point, b, i32::from, acc),
            (Right::Computed(_), _) => unreachable!("fused over 8-bit inputs only"),
        }
        let (from, to) = (row * n, (row + 1) * n);
        match (&kernel.result, &mut y) {
            (Result8::Quantized(output), SliceMut::U8(y)) => {
                let results =
                    acc.iter().zip(&kernel.multipliers).map(|(&acc, &m)| u8::narrow(output.requantize(acc, m)));
                y[from..to].iter_mut().zip(results).for_each(|(y, q)| *y = q);
            }
            (Result8::Quantized(output), SliceMut::I8(y)) => {
                let results =
                    acc.iter().zip(&kernel.multipliers).map(|(&acc, &m)| i8::narrow(output.requantize(acc, m)));
                y[from..to].iter_mut().zip(results).for_each(|(y, q)| *y = q);
            }
            (Result8::Float, SliceMut::F32(y)) => {
                let results = acc.iter().zip(&kernel.multipliers).map(|(&acc, &m)| acc as f32 * m);
                y[from..to].iter_mut().zip(results).for_each(|(y, x)| *y = x);
            }
            _ => unreachable!("the output's type is the fused node's"),
        }
    }
}

/// Matrix `i` of a batch, or the only one.
fn matrix<B>(b: &[B], size: usize, i: usize) -> &[B] {
    if b.len() == size { b } else { &b[i * size..][..size] }
}

/// `acc[n] += Σ_k (a[k] − za) · b[k][n]`.
fn add_products<A: Byte, B: Copy>(a: &[A], zero_point: i32, b: &[B], real: impl Fn(B) -> i32, acc: &mut [i32]) {
    for (&a, b) in a.iter().zip(b.chunks_exact(acc.len().max(1))) {
        let a = a.wide() - zero_point;
        if a != 0 {
            acc.iter_mut().zip(b).for_each(|(acc, &b)| *acc += a * real(b));
        }
    }
}
