//! How images lie in memory while they are trained on: channels last, with a halo of zeros, so that a convolution reads
//! its window without bounds and without copies.

use super::threads;
use crate::exec::Real;

/// The layout of a value `[N, C, H, W]` (or `[N, C, T]`, as H = 1): N images of `top + h + bottom` rows of
/// `left + w + right` pixels of c channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Pixels of a row.
    pub w: usize,
    /// Rows of the halo above.
    pub top: usize,
    /// Rows of the halo below.
    pub bottom: usize,
    /// Pixels of the halo before a row.
    pub left: usize,
    /// Pixels of the halo after a row.
    pub right: usize,
    /// Whether somebody reads the halo of the value.
    pub value_halo: bool,
    /// Whether somebody reads the halo of the gradient.
    pub gradient_halo: bool,
}

impl Frame {
    /// The frame of a shape `[N, C, H, W]`, `[N, C, T]` or `[N, C]` without halo.
    pub fn of(shape: &[usize]) -> Option<Self> {
        let (c, h, w) = match *shape {
            [_, c] => (c, 1, 1),
            [_, c, w] => (c, 1, w),
            [_, c, h, w] => (c, h, w),
            _ => return None,
        };
        Some(Self { c, h, w, ..Self::default() })
    }

    /// Whether each pixel lies at the same place in both.
    pub fn same_places(&self, other: &Self) -> bool {
        let places = |f: &Self| [f.c, f.h, f.w, f.top, f.bottom, f.left, f.right];
        places(self) == places(other)
    }

    /// Makes the halo at least `[top, bottom, left, right]`.
    pub fn widen(&mut self, [top, bottom, left, right]: [usize; 4]) {
        self.top = self.top.max(top);
        self.bottom = self.bottom.max(bottom);
        self.left = self.left.max(left);
        self.right = self.right.max(right);
    }

    /// Elements from one row to the next.
    pub fn row(&self) -> usize {
        (self.left + self.w + self.right) * self.c
    }

    /// Elements from one image to the next.
    pub fn image(&self) -> usize {
        (self.top + self.h + self.bottom) * self.row()
    }

    /// Where the first pixel lies in an image.
    pub fn origin(&self) -> usize {
        self.top * self.row() + self.left * self.c
    }

    /// Elements of a row without its halo.
    pub fn span(&self) -> usize {
        self.w * self.c
    }

    /// Where a pixel lies in an image.
    pub fn pixel(&self, y: usize, x: usize) -> usize {
        self.origin() + y * self.row() + x * self.c
    }

    /// Beginnings of the rows of an image.
    pub fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        let (origin, row) = (self.origin(), self.row());
        (0..self.h).map(move |y| origin + y * row)
    }

    /// Writes zeros around an image.
    pub fn clear_halo<T: Real>(&self, image: &mut [T]) {
        let (row, span, origin) = (self.row(), self.span(), self.origin());
        if row * (self.h + self.top + self.bottom) == span * self.h {
            return;
        }
        let mut from = 0;
        for start in self.rows() {
            image[from..start].fill(T::ZERO);
            from = start + span;
        }
        debug_assert!(self.h > 0 && origin <= from);
        image[from..].fill(T::ZERO);
    }
}

/// Images of a piece, so that a piece has some work and there are pieces for many threads.
pub fn images(frame: &Frame, batch: usize) -> usize {
    (super::pointwise::PIECE / frame.image().max(1)).clamp(1, batch.div_ceil(16).max(1))
}

/// Planar images into a frame.
pub fn from_planar<T: Real>(y: &mut [T], to: &Frame, clear: bool, x: &[T], add: bool) {
    let plane = to.h * to.w;
    let n = images(to, y.len() / to.image().max(1));
    threads::chunks(y, n * to.image(), |piece, y| {
        let x = &x[piece * n * plane * to.c..];
        for (y, x) in y.chunks_exact_mut(to.image()).zip(x.chunks_exact(plane * to.c)) {
            if clear {
                to.clear_halo(y);
            }
            for (line, start) in to.rows().enumerate() {
                let row = &mut y[start..start + to.span()];
                for (c, plane) in x.chunks_exact(plane).enumerate() {
                    let values = &plane[line * to.w..][..to.w];
                    for (pixel, &value) in row.chunks_exact_mut(to.c).zip(values) {
                        pixel[c] = if add { pixel[c] + value } else { value };
                    }
                }
            }
        }
    });
}

/// A frame's images into planar ones.
pub fn to_planar<T: Real>(y: &mut [T], x: &[T], from: &Frame, add: bool) {
    let plane = from.h * from.w;
    let n = images(from, x.len() / from.image().max(1));
    threads::chunks(y, n * plane * from.c, |piece, y| {
        let x = &x[piece * n * from.image()..];
        for (y, x) in y.chunks_exact_mut(plane * from.c).zip(x.chunks_exact(from.image())) {
            for (line, start) in from.rows().enumerate() {
                let row = &x[start..start + from.span()];
                for (c, plane) in y.chunks_exact_mut(plane).enumerate() {
                    let values = &mut plane[line * from.w..][..from.w];
                    for (value, pixel) in values.iter_mut().zip(row.chunks_exact(from.c)) {
                        *value = if add { *value + pixel[c] } else { pixel[c] };
                    }
                }
            }
        }
    });
}
