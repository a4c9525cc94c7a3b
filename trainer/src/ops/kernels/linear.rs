//! Matrix products in register tiles: rows of one matrix against packed panels of the other.

use std::sync::Mutex;

use super::buffer::Buffer;
use super::gemm::Matrix;
use super::prefetch::{Next, prefetch};
use super::rows::{self, Row, wide};
use super::threads;
use super::tile::{Outer, Pixel, Product, Start};
use crate::exec::Real;
use crate::ops::with_lane;

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

/// Whether the kernels here can tell all places of `x [m, k]` times `b [k, n]` and of its gradients: they count in 32 bits.
pub fn fits([m, n, k]: [usize; 3]) -> bool {
    // Panels are at most so wide, and as many rows of weights are read at once.
    let places = |rows: usize, columns: usize| rows.checked_mul(columns).is_some_and(|n| u32::try_from(n).is_ok());
    [k, n, WEIGHT_ROWS].iter().all(|&columns| places(m, columns)) && places(WEIGHT_ROWS, k)
}

/// Floats that a lane needs for products with a depth of k (for sums of outer products: of as many rows).
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
    lanes: &[Mutex<Buffer<T>>],
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

/// Floats of memory that [`multiply_rows`] needs once.
pub fn shared<T: Real>([m, k]: [usize; 2]) -> usize {
    m.next_multiple_of(rows::choose::<T>(m).width) * k
}

/// Floats of a lane that [`multiply_rows`] needs.
pub fn row_lane(m: usize) -> usize {
    WEIGHT_ROWS * m
}

/// Rows of weights that one task of [`multiply_rows`] reads.
const WEIGHT_ROWS: usize = 96;

/// `y = x wᵀ + bias` for row-major x `[m, k]`, y `[m, n]`, w `[n, k]`: w is by far the largest, so it is read once, as it
/// lies, and x is packed. A task has rows of w, whose products are columns of y.
pub fn multiply_rows<T: Real>(
    y: &mut [T],
    x: &[T],
    w: &[T],
    [m, n, k]: [usize; 3],
    bias: Option<&[T]>,
    packed: &mut [T],
    lanes: &[Mutex<Buffer<T>>],
) {
    assert!(y.len() == m * n && x.len() == m * k && w.len() == n * k, "a product of [{m}, {k}] and [{n}, {k}]");
    let row: &'static Row<T> = rows::choose(m);
    let width = row.width;
    threads::chunks(packed, (k * width).max(1), |panel, to| {
        pack(to, Matrix::rows(x, k).t(), panel * width, width.min(m - panel * width), width, k);
    });
    let packed = &*packed;
    let target = Shared(y.as_mut_ptr());
    threads::each(n.div_ceil(WEIGHT_ROWS), |task| {
        let first = task * WEIGHT_ROWS;
        let outputs = WEIGHT_ROWS.min(n - first);
        with_lane(lanes, |lane| {
            let products = &mut lane[..outputs * m];
            let pixels: [Pixel; WEIGHT_ROWS] = std::array::from_fn(|i| Pixel { x: (i * k) as u32, y: (i * m) as u32 });
            // A tile's rows stay in the cache while they meet all panels.
            for tile in (0..outputs).step_by(TILE_ROWS) {
                let mut next = Next::new(w, (first + tile + TILE_ROWS) * k, TILE_ROWS * k, m.div_ceil(width));
                for (panel, packed) in packed.chunks_exact(k * width).enumerate() {
                    next.ask();
                    let call = Product {
                        x: w[first * k..].as_ptr(),
                        y: products[panel * width..].as_mut_ptr(),
                        pixels: &pixels[tile..(tile + TILE_ROWS).min(outputs)],
                        runs: &[0],
                        len: k,
                        panel: packed.as_ptr(),
                        columns: width.min(m - panel * width),
                        start: Start::Zero,
                    };
                    // SAFETY: rows of w and of the products lie inside their slices by the assertion.
                    unsafe { row.product(&call) };
                }
            }
            for j in (0..outputs).step_by(SIDE) {
                let columns = SIDE.min(outputs - j);
                let mut plus = [T::ZERO; SIDE];
                if let Some(bias) = bias {
                    plus[..columns].copy_from_slice(&bias[first + j..][..columns]);
                }
                let from = Matrix::rows(&products[j * m..], m).t();
                // SAFETY: m rows of so many columns, inside y by the assertion; this task alone has these columns.
                unsafe { turn(from, [m, columns], &plus, target.get().add(first + j), n) };
            }
        });
    });
}

/// Rows of a tile of [`multiply_rows`].
const TILE_ROWS: usize = 12;
/// Rows and columns that are turned at once: lines in the cache are read and written whole.
const SIDE: usize = 16;

/// `to[i * pitch + j] = from(i, j) + plus[j]` for `i < rows`, `j < columns` (at most [`SIDE`]), where `from` holds columns.
///
/// # Safety
/// `from` fits. Nobody else uses the rows of `columns` elements, `pitch` apart, from `to` on.
unsafe fn turn<T: Real>(from: Matrix<'_, T>, [rows, columns]: [usize; 2], plus: &[T; SIDE], to: *mut T, pitch: usize) {
    wide(move || {
        for first in (0..rows).step_by(SIDE) {
            let count = SIDE.min(rows - first);
            let mut block = [[T::ZERO; SIDE]; SIDE];
            for (j, block) in block[..columns].iter_mut().enumerate() {
                let line = &from.data[j * from.col + first..][..count];
                match line.first_chunk::<SIDE>() {
                    Some(whole) => *block = *whole,
                    None => block[..count].copy_from_slice(line),
                }
            }
            for (i, row) in (first..first + count).enumerate() {
                let line: [T; SIDE] = std::array::from_fn(|j| block[j][i] + plus[j]);
                // SAFETY: by this function's contract.
                unsafe {
                    let to = to.add(row * pitch);
                    if columns == SIDE {
                        to.cast::<[T; SIDE]>().write(line);
                    } else {
                        std::ptr::copy_nonoverlapping(line.as_ptr(), to, columns);
                    }
                }
            }
        }
    });
}

/// W columns from `first` on of b as rows. Asks for those behind them: each row lies in another page, where the machine
/// does not look ahead by itself.
fn pack_rows<T: Real, const W: usize>(to: &mut [T], b: Matrix<'_, T>, first: usize, k: usize) {
    for (line, i) in to.as_chunks_mut::<W>().0.iter_mut().zip(0..k) {
        prefetch(b.data, i * b.row + first + W, W);
        if let Some((from, _)) = b.data[i * b.row + first..].split_first_chunk::<W>() {
            *line = *from;
        }
    }
}

/// Columns `first..first + columns` of b as rows of `width`, zeros behind them.
fn pack<T: Real>(to: &mut [T], b: Matrix<'_, T>, first: usize, columns: usize, width: usize, k: usize) {
    if b.col == 1 {
        if columns == width {
            // Sizes that the compiler knows.
            match width {
                32 => return pack_rows::<T, 32>(to, b, first, k),
                16 => return pack_rows::<T, 16>(to, b, first, k),
                _ => {}
            }
        }
        for (line, i) in to.chunks_exact_mut(width).zip(0..k) {
            line[..columns].copy_from_slice(&b.data[i * b.row + first..][..columns]);
            line[columns..].fill(T::ZERO);
        }
        return;
    }
    assert!(b.row == 1 && to.len() >= k * width && b.fits(k, first + columns), "a turned matrix");
    if columns < width {
        to[..k * width].fill(T::ZERO);
    }
    for j in (0..columns).step_by(SIDE) {
        let from = Matrix { data: &b.data[(first + j) * b.col..], ..b };
        // SAFETY: k rows of so many columns lie inside `to` by the assertion.
        unsafe { turn(from, [k, SIDE.min(columns - j)], &[T::ZERO; SIDE], to.as_mut_ptr().add(j), width) };
    }
}

/// Floats of memory that [`multiply_transposed`] needs once.
pub fn outer_shared<T: Real>([m, rows, columns]: [usize; 3]) -> usize {
    rows.next_multiple_of(rows::choose::<T>(columns).outer_rows) * m
}

/// `d = aᵀ b` (or `d += aᵀ b`) for row-major a `[m, rows]`, b `[m, columns]`, d `[rows, columns]`. One task a panel of
/// columns; a lane each. Both are packed, so that a tile reads from a few pages: rows of a and b lie far apart.
pub fn multiply_transposed<T: Real>(
    d: &mut [T],
    a: &[T],
    b: &[T],
    [m, rows, columns]: [usize; 3],
    add: bool,
    packed: &mut [T],
    lanes: &[Mutex<Buffer<T>>],
) {
    assert!(
        d.len() == rows * columns && a.len() == m * rows && b.len() == m * columns,
        "a product of [{m}, {rows}]ᵀ and [{m}, {columns}]"
    );
    let row: &'static Row<T> = rows::choose(columns);
    let (width, tall) = (row.width, row.outer_rows);
    // Tiles of rows of d, for each row of a.
    threads::chunks(packed, (m * tall).max(1), |tile, to| {
        let first = tile * tall;
        let count = tall.min(rows - first);
        for (to, from) in to.chunks_exact_mut(tall).zip(a.chunks_exact(rows)) {
            to[..count].copy_from_slice(&from[first..first + count]);
        }
    });
    let packed = &*packed;
    let pixels: Vec<Pixel> = (0..m).map(|i| Pixel { x: (i * tall) as u32, y: (i * width) as u32 }).collect();
    let target = Shared(d.as_mut_ptr());
    threads::each(columns.div_ceil(width), |panel| {
        let first = panel * width;
        let wide = width.min(columns - first);
        with_lane(lanes, |lane| {
            let right = &mut lane[..m * width];
            pack(right, Matrix::rows(b, columns), first, wide, width, m);
            for (tile, left) in packed.chunks_exact((m * tall).max(1)).enumerate() {
                let call = Outer {
                    x: left.as_ptr(),
                    y: right.as_ptr(),
                    pixels: &pixels,
                    d: target.get().wrapping_add(tile * tall * columns + first),
                    pitch: columns,
                    rows: tall.min(rows - tile * tall),
                    columns: wide,
                    add,
                };
                // SAFETY: rows and columns lie inside the packed parts and d by the assertion; this task alone has these
                // columns of d.
                unsafe { row.outer(&call) };
            }
        });
    });
}
