//! Matrix products in register tiles: rows of one matrix against packed panels of the other.

use std::sync::Mutex;

use super::gemm::Matrix;
use super::rows::{self, Row};
use super::threads;
use super::tile::{Outer, Pixel, Product, Start};
use crate::exec::Real;
use crate::ops::with_lane;

/// Rows of a sum of outer products that one task computes.
const TASK_ROWS: usize = 48;

/// A pointer that tasks write through, each to elements of its own.
struct Shared<T>(*mut T);
// SAFETY: see the functions below: no two tasks write the same element.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// What is added to a product.
#[derive(Clone, Copy, Debug)]
pub enum Plus<'a, T> {
    /// Nothing.
    Nothing,
    /// What is there.
    There,
    /// A row of n.
    Row(&'a [T]),
}

/// Floats that a lane needs for products with a depth of k.
pub fn lane<T: Real>(k: usize, n: usize) -> usize {
    k * rows::choose::<T>(n).width
}

/// `y = x b + plus` for row-major x `[m, k]`, y `[m, n]` and any b `[k, n]`. One task a panel of columns; a lane each.
pub fn multiply<T: Real>(
    y: &mut [T],
    x: &[T],
    b: Matrix<'_, T>,
    [m, n, k]: [usize; 3],
    plus: Plus<'_, T>,
    lanes: &[Mutex<Vec<T>>],
) {
    assert!(y.len() == m * n && x.len() == m * k && b.fits(k, n), "a product of [{m}, {k}] and [{k}, {n}]");
    let row: &'static Row<T> = rows::choose(n);
    let pixels: Vec<Pixel> = (0..m).map(|i| Pixel { x: (i * k) as u32, y: (i * n) as u32 }).collect();
    let target = Shared(y.as_mut_ptr());
    let width = row.width;
    threads::each(n.div_ceil(width), |panel| {
        let first = panel * width;
        let columns = width.min(n - first);
        with_lane(lanes, |lane| {
            let packed = &mut lane[..k * width];
            pack(packed, b, first, columns, width, k);
            let call = Product {
                x: x.as_ptr(),
                y: target.get().wrapping_add(first),
                pixels: &pixels,
                runs: &[0],
                len: k,
                panel: packed.as_ptr(),
                columns,
                start: match plus {
                    Plus::Nothing => Start::Zero,
                    Plus::There => Start::There,
                    Plus::Row(bias) => Start::Bias(bias[first..first + columns].as_ptr()),
                },
            };
            // SAFETY: rows and columns lie inside x and y by the assertion; this task alone has these columns of y.
            unsafe { row.product(&call) };
        });
    });
}

/// Columns `first..first + columns` of b as rows of `width`, zeros behind them.
fn pack<T: Real>(to: &mut [T], b: Matrix<'_, T>, first: usize, columns: usize, width: usize, k: usize) {
    if b.col == 1 {
        for (line, i) in to.chunks_exact_mut(width).zip(0..k) {
            line[..columns].copy_from_slice(&b.data[i * b.row + first..][..columns]);
            line[columns..].fill(T::ZERO);
        }
        return;
    }
    // Blocks, so that lines in the cache are read and written whole.
    const BLOCK: usize = 16;
    for (block, lines) in to.chunks_mut(BLOCK * width).enumerate() {
        for j in 0..columns {
            let at = (first + j) * b.col + block * BLOCK * b.row;
            for (i, line) in lines.chunks_exact_mut(width).enumerate() {
                line[j] = b.data[at + i * b.row];
            }
        }
        lines.chunks_exact_mut(width).for_each(|line| line[columns..].fill(T::ZERO));
    }
}

/// `d = aᵀ b` (or `d += aᵀ b`) for row-major a `[m, rows]`, b `[m, columns]`, d `[rows, columns]`.
pub fn multiply_transposed<T: Real>(d: &mut [T], a: &[T], b: &[T], [m, rows, columns]: [usize; 3], add: bool) {
    assert!(
        d.len() == rows * columns && a.len() == m * rows && b.len() == m * columns,
        "a product of [{m}, {rows}]ᵀ and [{m}, {columns}]"
    );
    let row: &'static Row<T> = rows::choose(columns);
    let pixels: Vec<Pixel> = (0..m).map(|i| Pixel { x: (i * rows) as u32, y: (i * columns) as u32 }).collect();
    threads::chunks(d, TASK_ROWS * columns.max(1), |task, d| {
        let call = Outer {
            x: a[task * TASK_ROWS..].as_ptr(),
            y: b.as_ptr(),
            pixels: &pixels,
            d: d.as_mut_ptr(),
            pitch: columns,
            rows: d.len() / columns,
            columns,
            add,
        };
        // SAFETY: rows and columns lie inside a, b and d by the assertion.
        unsafe { row.outer(&call) };
    });
}
