//! Matrix products over slices, by the `gemm` crate (which finds the CPU's features itself), single-threaded or split
//! into blocks that depend on the sizes alone.

use super::threads;
use crate::exec::Real;

/// A matrix in a slice: element (i, j) at `i * row + j * col`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Distance of rows.
    pub row: usize,
    /// Distance of columns.
    pub col: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major with `columns` columns.
    pub fn rows(data: &'a [T], columns: usize) -> Self {
        Self { data, row: columns, col: 1 }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    /// Whether so many rows and columns lie inside the slice.
    pub fn fits(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.col < self.data.len()
    }
}

/// A pointer that blocks of one product write through.
struct Shared<T>(*mut T);
// SAFETY: every block writes elements of its own; see `product`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; nothing is read through it but the writer's own elements.
unsafe impl<T: Send> Sync for Shared<T> {}

/// `c = scale * a b` or `c += scale * a b`; c is row-major `[m, n]`, a `[m, k]`, b `[k, n]`; on this thread.
pub fn multiply<T: Real>(c: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, [m, n, k]: [usize; 3], scale: T, add: bool) {
    assert!(c.len() >= m * n && a.fits(m, k) && b.fits(k, n), "a product of [{m}, {k}] and [{k}, {n}]");
    if k == 0 && !add {
        c[..m * n].fill(T::ZERO);
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    // SAFETY: the sizes were compared with the slices' lengths above; c is borrowed exclusively.
    unsafe { call(c.as_mut_ptr(), n, a, b, [m, n, k], scale, add) }
}

/// # Safety
/// `a` and `b` fit `[m, k]` and `[k, n]`; `c` points to m rows of n elements, `pitch` apart, that nobody else uses.
unsafe fn call<T: Real>(
    c: *mut T,
    pitch: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    [m, n, k]: [usize; 3],
    scale: T,
    add: bool,
) {
    // SAFETY: by this function's contract; strides are those of the slices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            pitch as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            T::ONE,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Multiply-accumulates that are worth a block of their own.
const BLOCK_MACS: usize = 1 << 18;
/// Blocks along the longer side.
const MOST_BLOCKS: usize = 16;

/// As [`multiply`], in blocks of rows or columns of c (the longer side is cut) that run on the threads of the pool.
/// Each element is summed within one block, so the result does not depend on the number of threads.
pub fn product<T: Real>(c: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, [m, n, k]: [usize; 3], scale: T, add: bool) {
    assert!(c.len() >= m * n && a.fits(m, k) && b.fits(k, n), "a product of [{m}, {k}] and [{k}, {n}]");
    let macs = m.saturating_mul(n).saturating_mul(k);
    let longer = m.max(n);
    let blocks = (macs / BLOCK_MACS).clamp(1, MOST_BLOCKS.min(longer.div_ceil(32).max(1)));
    if blocks == 1 || k == 0 {
        return multiply(c, a, b, [m, n, k], scale, add);
    }
    let size = longer.div_ceil(blocks).next_multiple_of(16);
    let target = Shared(c.as_mut_ptr());
    let target = &target;
    threads::each(longer.div_ceil(size), |i| {
        let (from, len) = (i * size, size.min(longer - i * size));
        if m >= n {
            let a = Matrix { data: &a.data[from * a.row..], ..a };
            // SAFETY: sizes were compared above; block i alone has rows from..from + len of c.
            unsafe { call(target.0.add(from * n), n, a, b, [len, n, k], scale, add) }
        } else {
            let b = Matrix { data: &b.data[from * b.col..], ..b };
            // SAFETY: sizes were compared above; block i alone has columns from..from + len of c.
            unsafe { call(target.0.add(from), n, a, b, [m, len, k], scale, add) }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(a: Matrix<'_, f64>, b: Matrix<'_, f64>, [m, n, k]: [usize; 3]) -> Vec<f64> {
        let at = |x: Matrix<'_, f64>, i: usize, j: usize| x.data[i * x.row + j * x.col];
        let cells = (0..m).flat_map(|i| (0..n).map(move |j| (i, j)));
        cells.map(|(i, j)| (0..k).map(|p| at(a, i, p) * at(b, p, j)).sum()).collect()
    }

    #[test]
    fn products_equal_sums_at_every_size_and_layout() {
        let sizes = [[1, 1, 1], [3, 5, 7], [16, 144, 33], [200, 64, 100], [64, 900, 40], [7, 3, 0], [513, 2, 300]];
        for [m, n, k] in sizes {
            let wave = |len: usize, f: f64| (0..len).map(|i| (i as f64 * f).sin()).collect::<Vec<_>>();
            let (a, b) = (wave(m * k, 0.7), wave(k * n, 0.3));
            for (at, bt) in [(false, false), (true, false), (false, true), (true, true)] {
                let a = if at { Matrix::rows(&a, m).t() } else { Matrix::rows(&a, k) };
                let b = if bt { Matrix::rows(&b, k).t() } else { Matrix::rows(&b, n) };
                let expected = naive(a, b, [m, n, k]);
                for add in [false, true] {
                    let mut c = vec![0.5; m * n];
                    product(&mut c, a, b, [m, n, k], 2.0, add);
                    let start = if add { 0.5 } else { 0.0 };
                    for (i, (found, e)) in c.iter().zip(&expected).enumerate() {
                        let e = start + 2.0 * e;
                        assert!((found - e).abs() < 1e-10, "[{m}, {n}, {k}] {at} {bt} {add}: {i}: {e}, {found}");
                    }
                }
            }
        }
    }
}
