//! Mean and variance of each channel of images, made of sums that each piece of the batch has of its own. A convolution
//! sums its images while they are still in the cache, for the batch norm behind it.

use super::kernels::frame::Frame;
use super::kernels::prefetch::prefetch;
use super::kernels::rows::wide;
use crate::exec::Real;

/// Floats of a block of pixels, about.
const BLOCK: usize = 512;
/// Floats that are asked for before they are read.
pub const AHEAD: usize = 2048;

/// What pieces of a batch sum.
#[derive(Debug, Default)]
pub struct Moments {
    /// Whether the step behind the one that runs is a batch norm that reads it and wants them.
    pub wanted: bool,
    /// Whether they are those of the step before.
    pub there: bool,
    /// Of each piece: elements of a channel; then for each channel its first value, and the sums of the differences from
    /// it and of their squares, which do not cancel.
    pieces: Vec<f64>,
}

/// Floats of a block of whole pixels of a row: loops over it are over plain rows.
pub fn block(frame: &Frame) -> usize {
    (BLOCK / frame.c.max(1)).clamp(1, frame.w.max(1)) * frame.c
}

/// Floats that [`measure`] needs of a lane.
pub fn lane(frame: &Frame) -> usize {
    3 * block(frame)
}

/// Numbers of a piece.
pub fn piece(frame: &Frame) -> usize {
    1 + 3 * frame.c
}

/// A row of an image without its halo. Asks for what comes later.
#[inline]
pub fn line_of<'a, T>(x: &'a [T], frame: &Frame, image: usize, y: usize) -> &'a [T] {
    let at = image * frame.image() + frame.pixel(y, 0);
    prefetch(x, at + AHEAD, frame.row());
    &x[at..][..frame.span()]
}

/// Adds sums of a channel, held for each place of a block, to f64 sums of each channel.
pub fn fold<T: Real>(sums: &mut [f64], blocks: &[T], channels: usize) {
    for block in blocks.chunks_exact(channels) {
        sums.iter_mut().zip(block).for_each(|(sum, &b)| *sum += b.to_f64());
    }
}

/// Sums a piece: whole images.
pub fn measure<T: Real>(frame: &Frame, x: &[T], sums: &mut [f64], lane: &mut [T]) {
    let (channels, size, images) = (frame.c, block(frame), x.len() / frame.image());
    let (shift, rest) = lane.split_at_mut(size);
    let (s, rest) = rest.split_at_mut(size);
    let q = &mut rest[..size];
    let first = &x[frame.origin()..][..channels];
    shift.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(first));
    s.fill(T::ZERO);
    q.fill(T::ZERO);
    wide(|| {
        for image in 0..images {
            for y in 0..frame.h {
                for x in line_of(x, frame, image, y).chunks(size) {
                    for (((s, q), &x), &shift) in s.iter_mut().zip(&mut *q).zip(x).zip(&*shift) {
                        let d = x - shift;
                        *s += d;
                        *q += d * d;
                    }
                }
            }
        }
    });
    let (count, rest) = sums.split_at_mut(1);
    let (firsts, rest) = rest.split_at_mut(channels);
    let (sums, squares) = rest.split_at_mut(channels);
    count[0] = (images * frame.h * frame.w) as f64;
    firsts.iter_mut().zip(first).for_each(|(to, &x)| *to = x.to_f64());
    sums.fill(0.0);
    squares.fill(0.0);
    fold(sums, s, channels);
    fold(squares, q, channels);
}

impl Moments {
    /// Room for the sums of so many pieces of images.
    pub fn start(&mut self, pieces: usize, frame: &Frame) -> &mut [f64] {
        self.there = true;
        self.pieces.clear();
        self.pieces.resize(pieces * piece(frame), 0.0);
        &mut self.pieces
    }

    /// The same if they are wanted, else none.
    pub fn start_if_wanted(&mut self, pieces: usize, frame: &Frame) -> &mut [f64] {
        if self.wanted { self.start(pieces, frame) } else { &mut [] }
    }

    /// Of a channel the mean and the sum of squares of the differences from it; pieces are added in order (Chan, Golub,
    /// LeVeque 1979, eq. 2.1).
    pub fn total(&self, channels: usize, c: usize) -> [f64; 2] {
        let pieces = self.pieces.chunks_exact(1 + 3 * channels).map(|piece| {
            let [count, first, sum, square] =
                [piece[0], piece[1 + c], piece[1 + channels + c], piece[1 + 2 * channels + c]];
            [count, first + sum / count, (square - sum * sum / count).max(0.0)]
        });
        together(pieces)
    }
}

/// Mean and sum of squares of the differences from it, of pieces that each say how many values they have and the same two
/// numbers of their own; added in order.
pub fn together(pieces: impl Iterator<Item = [f64; 3]>) -> [f64; 2] {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for [count, own_mean, own_squares] in pieces {
        let off = own_mean - mean;
        let total = n + count;
        mean += off * (count / total);
        squares += own_squares + off * off * (n * count / total);
        n = total;
    }
    [mean, squares]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_together_have_the_moments_of_all() {
        let frame = Frame { c: 3, h: 2, w: 5, top: 1, bottom: 1, left: 2, right: 1, ..Frame::default() };
        let images: Vec<f64> =
            (0..7 * frame.image()).map(|i| 1e3 + (i * i % 31) as f64 + (i % 3) as f64 * 50.0).collect();
        let mut lane = vec![0.0; lane(&frame)];
        let of = |images: &[f64], c: usize| -> Vec<f64> {
            let rows =
                |image: &[f64]| frame.rows().flat_map(|at| image[at..at + frame.span()].to_vec()).collect::<Vec<_>>();
            images.chunks_exact(frame.image()).flat_map(rows).skip(c).step_by(3).collect()
        };
        for size in [1, 2, 4, 7] {
            let mut moments = Moments { wanted: true, ..Moments::default() };
            let sums = moments.start_if_wanted(7_usize.div_ceil(size), &frame);
            for (x, sums) in images.chunks(size * frame.image()).zip(sums.chunks_exact_mut(piece(&frame))) {
                measure(&frame, x, sums, &mut lane);
            }
            for c in 0..3 {
                let values = of(&images, c);
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let squares = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                let [found_mean, found] = moments.total(3, c);
                assert!((found_mean - mean).abs() < 1e-9 && (found / squares - 1.0).abs() < 1e-9, "{size} {c}");
            }
        }
        assert!(Moments::default().start_if_wanted(3, &frame).is_empty());
    }
}
