//! Loops over elements, in pieces of a fixed size that run on the threads of the pool. Functions are copied into the
//! loops: what a loop reads through a reference keeps it from becoming vectors.

use super::rows::wide;
use super::threads;
use crate::exec::Real;

/// Elements of a piece.
pub const PIECE: usize = 1 << 14;

/// `y = f(x)`.
pub fn map<T: Real>(y: &mut [T], x: &[T], f: impl Fn(T) -> T + Sync + Copy) {
    threads::chunks(y, PIECE, |i, y| {
        wide(move || {
            for (y, &x) in y.iter_mut().zip(&x[i * PIECE..]) {
                *y = f(x);
            }
        });
    });
}

/// `y = f(y)`.
pub fn update<T: Real>(y: &mut [T], f: impl Fn(T) -> T + Sync + Copy) {
    threads::chunks(y, PIECE, |_, y| wide(move || y.iter_mut().for_each(|y| *y = f(*y))));
}

/// `y = f(y, x)`.
pub fn update_with<T: Real>(y: &mut [T], x: &[T], f: impl Fn(T, T) -> T + Sync + Copy) {
    threads::chunks(y, PIECE, |i, y| {
        wide(move || {
            for (y, &x) in y.iter_mut().zip(&x[i * PIECE..]) {
                *y = f(*y, x);
            }
        });
    });
}

/// `y = f(a, b)` or `y += f(a, b)`.
pub fn combine<T: Real>(y: &mut [T], add: bool, a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync + Copy) {
    threads::chunks(y, PIECE, |i, y| {
        let pairs = a[i * PIECE..].iter().zip(&b[i * PIECE..]);
        wide(move || {
            if add {
                y.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y += f(a, b));
            } else {
                y.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y = f(a, b));
            }
        });
    });
}

/// `y = x` or `y += x`.
pub fn copy<T: Real>(y: &mut [T], add: bool, x: &[T]) {
    if add {
        update_with(y, x, |y, x| y + x);
    } else {
        threads::chunks(y, PIECE, |i, y| y.copy_from_slice(&x[i * PIECE..][..y.len()]));
    }
}

/// The sum in a fixed order: eight running sums, then their sum; fast and the same everywhere.
pub fn sum<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; 8];
    let chunks = x.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    fold(lanes)
}

/// `Σ a b` in a fixed order, as [`sum`].
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (a, b) in ca.zip(cb) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(ra.iter().zip(rb)) {
        *lane += a * b;
    }
    fold(lanes)
}

fn fold<T: Real>([a, b, c, d, e, f, g, h]: [T; 8]) -> T {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
