//! Values of a network as channels at places: averaged to fewer places, and rows of length 1.

use crate::exec::Real;

/// How one sample lies: channels first, each with its places row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Values of a place.
    pub channels: usize,
    /// Rows of places; 1 for a series.
    pub height: usize,
    /// Places of a row.
    pub width: usize,
}

impl Map {
    /// Of a sample `[C, H, W]`, `[C, T]` or `[F]`.
    pub fn of(shape: &[usize]) -> Option<Self> {
        let (channels, height, width) = match *shape {
            [c, h, w] => (c, h, w),
            [c, t] => (c, 1, t),
            [f] => (f, 1, 1),
            _ => return None,
        };
        Some(Self { channels, height, width })
    }

    /// Of a sample `[L, D]`, a row a token.
    pub fn of_tokens(shape: &[usize]) -> Option<Self> {
        match *shape {
            [tokens, channels] => Some(Self { channels, height: 1, width: tokens }),
            _ => None,
        }
    }

    /// Places.
    pub fn places(&self) -> usize {
        self.height * self.width
    }

    /// Elements of a sample.
    pub fn elements(&self) -> usize {
        self.channels * self.places()
    }

    /// The same channels at another resolution.
    pub fn resized(&self, height: usize, width: usize) -> Self {
        Self { height, width, ..*self }
    }
}

/// The places of an axis of `n` that place `i` of `to` averages.
fn window(i: usize, n: usize, to: usize) -> std::ops::Range<usize> {
    i * n / to..((i + 1) * n).div_ceil(to)
}

/// Calls `f` for each place of `to` with the places of `from` that it averages and the weight of each.
fn cells<T: Real>(from: Map, to: Map, mut f: impl FnMut(usize, &mut dyn Iterator<Item = usize>, T)) {
    for i in 0..to.height {
        let rows = window(i, from.height, to.height);
        for j in 0..to.width {
            let columns = window(j, from.width, to.width);
            let weight = T::ONE / T::from_usize(rows.len() * columns.len());
            let mut places = rows.clone().flat_map(|row| columns.clone().map(move |column| row * from.width + column));
            f(i * to.width + j, &mut places, weight);
        }
    }
}

/// Averages every channel of `x` to the resolution of `to`, as torch's `adaptive_avg_pool2d`: place i of n is the mean of
/// the places from `⌊i · N / n⌋` to below `⌈(i + 1) · N / n⌉`. `y` is overwritten.
pub fn average_pool<T: Real>(x: &[T], from: Map, to: Map, y: &mut [T]) {
    for (x, y) in x.chunks_exact(from.places()).zip(y.chunks_exact_mut(to.places())) {
        cells(from, to, |place, places, weight| {
            let mut sum = T::ZERO;
            places.for_each(|at| sum += x[at]);
            y[place] = sum * weight;
        });
    }
}

/// The gradient of [`average_pool`]: overwrites `d_x`.
pub fn average_pool_back<T: Real>(d_y: &[T], from: Map, to: Map, d_x: &mut [T]) {
    d_x.fill(T::ZERO);
    for (d_x, d_y) in d_x.chunks_exact_mut(from.places()).zip(d_y.chunks_exact(to.places())) {
        cells(from, to, |place, places, weight| {
            let d = d_y[place] * weight;
            places.for_each(|at| d_x[at] += d);
        });
    }
}

/// Below it a row is not divided by its own length.
const LEAST_LENGTH: f64 = 1e-12;

/// Divides a row by `max(|row|, 1e-12)`, in place; gives what it was divided by, negative where that was the bound.
pub fn to_unit<T: Real>(row: &mut [T]) -> T {
    let square: f64 = row.iter().map(|x| x.to_f64() * x.to_f64()).sum();
    let length = square.sqrt();
    let divisor = if length < LEAST_LENGTH { LEAST_LENGTH } else { length };
    let inverse = T::from_f64(1.0 / divisor);
    row.iter_mut().for_each(|x| *x *= inverse);
    T::from_f64(if length < LEAST_LENGTH { -divisor } else { divisor })
}

/// From the gradient by a row of length 1 (and what it was divided by) to that by the row before, in place.
pub fn to_unit_back<T: Real>(unit: &[T], divisor: T, d: &mut [T]) {
    let along: f64 = unit.iter().zip(d.iter()).map(|(u, d)| u.to_f64() * d.to_f64()).sum();
    // At the bound the divisor is a constant.
    let along = if divisor < T::ZERO { T::ZERO } else { T::from_f64(along) };
    let inverse = T::ONE / divisor.abs();
    d.iter_mut().zip(unit).for_each(|(d, &u)| *d = (*d - u * along) * inverse);
}

/// Elements of one partial sum: they are added in the float of the arrays, the partial sums in f64.
const CHUNK: usize = 256;
/// Sums beside each other in a chunk, which a compiler makes one vector.
const LANES: usize = 16;

/// Overwrites each `d` by what `f` makes of the elements beside it, and sums the values that it gives. `f` gives the value
/// and the gradient of one element.
pub fn sum_pairs<T: Real>(s: &[T], t: &[T], d: &mut [T], f: impl Fn(T, T) -> (T, T)) -> f64 {
    let mut total = 0.0;
    for ((s, t), d) in s.chunks(CHUNK).zip(t.chunks(CHUNK)).zip(d.chunks_mut(CHUNK)) {
        let mut lanes = [T::ZERO; LANES];
        let ((s_rows, s_rest), (t_rows, t_rest)) = (s.as_chunks::<LANES>(), t.as_chunks::<LANES>());
        let (d_rows, d_rest) = d.as_chunks_mut::<LANES>();
        for ((s, t), d) in s_rows.iter().zip(t_rows).zip(d_rows) {
            for lane in 0..LANES {
                let (value, gradient) = f(s[lane], t[lane]);
                lanes[lane] += value;
                d[lane] = gradient;
            }
        }
        for ((&s, &t), d) in s_rest.iter().zip(t_rest).zip(d_rest) {
            let (value, gradient) = f(s, t);
            lanes[0] += value;
            *d = gradient;
        }
        total += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_other_sizes_overlap_as_torchs() {
        // torch.nn.functional.adaptive_avg_pool1d(torch.arange(5.), 3)
        let [from, to] = [5, 3].map(|width| Map { channels: 1, height: 1, width });
        let mut y = [0.0; 3];
        average_pool(&[0.0_f64, 1.0, 2.0, 3.0, 4.0], from, to, &mut y);
        assert_eq!(y, [0.5, 2.0, 3.5]);
        let mut d_x = [9.0; 5];
        average_pool_back(&[1.0_f64, 10.0, 100.0], from, to, &mut d_x);
        let third = 10.0 / 3.0;
        let expected = [0.5, 0.5 + third, third, third + 50.0, 50.0];
        assert!(d_x.iter().zip(expected).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-12), "{d_x:?}");
    }

    #[test]
    fn sums_every_element_whatever_the_length() {
        for n in [0, 1, 15, 16, 17, 255, 256, 257, 300] {
            let x: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let mut d = vec![0.0; n];
            let sum = sum_pairs(&x, &x, &mut d, |s, t| (s + t, s * 3.0));
            assert_eq!(sum, (0..n).sum::<usize>() as f64 * 2.0);
            assert!(d.iter().zip(&x).all(|(d, x)| *d == 3.0 * x));
        }
    }
}
