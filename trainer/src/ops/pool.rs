//! Pooling over one or two spatial axes, on images with their channels last.

use kd_runtime::ops::{self, OpError, window::Axis};

use super::kernels::frame::{Frame, images};
use super::kernels::rows::wide;
use super::kernels::threads;
use super::kernels::window::Window2;
use super::{Built, Context, Gradient, Inputs, Keeps, Kernel, Site};
use crate::exec::Real;

fn resolve(window: &ops::window::Window, site: &Site<'_>) -> Result<(Window2, Frame, Frame), OpError> {
    let x = site.shape(0);
    let axes = window.resolve(x.get(2..).unwrap_or(&[]), None)?;
    let window = Window2::new(&axes).ok_or_else(|| OpError::new("a pool over 1 or 2 spatial axes", axes.len()))?;
    match (site.frame(0), site.frame) {
        (Some(x), Some(y)) => Ok((window, x, y)),
        _ => Err(OpError::new("x [N, C, T] or [N, C, H, W]", format!("{x:?}"))),
    }
}

/// Places along an axis that the window of output `o` covers: the first, and how many, each a dilation behind the last.
fn covered(axis: &Axis, o: usize) -> (usize, usize) {
    let (start, pad) = (o * axis.stride, axis.pad_begin);
    let before = pad.saturating_sub(start).div_ceil(axis.dilation).min(axis.kernel);
    let first = start + before * axis.dilation;
    let inside = (pad + axis.input).saturating_sub(first).div_ceil(axis.dilation).min(axis.kernel - before);
    (first.saturating_sub(pad), inside)
}

/// Of one image: for each output pixel its place, and the places of the input pixels that its window covers. What a window
/// covers is kept by axis: there may be as many outputs as places of a window, and each of many.
struct Cells {
    x: Frame,
    y: Frame,
    /// [`covered`] of each output along each axis.
    rows: Vec<(usize, usize)>,
    columns: Vec<(usize, usize)>,
    dilations: [usize; 2],
}

impl Cells {
    fn new(window: &Window2, x: Frame, y: Frame) -> Self {
        let all = |axis: &Axis| (0..axis.output).map(|o| covered(axis, o)).collect();
        let (rows, columns) = (all(&window.y), all(&window.x));
        Self { x, y, rows, columns, dilations: [window.y.dilation, window.x.dilation] }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = usize> + Clone)> {
        let Self { x, y, rows, columns, dilations: [down, right] } = self;
        rows.iter().enumerate().flat_map(move |(oy, &(top, high))| {
            columns.iter().enumerate().map(move |(ox, &(left, wide))| {
                let pixels = move |iy: usize| (0..wide).map(move |k| x.pixel(top + iy * down, left + k * right));
                (y.pixel(oy, ox), (0..high).flat_map(pixels))
            })
        })
    }
}

/// Largest element of each window; the first of equal ones in row-major order takes the gradient. Pads never win.
struct Max {
    cells: Cells,
    /// Place in its image of the largest element, for each element of the output's layout.
    winners: Vec<u32>,
}

/// The kernel of a MaxPool node.
pub fn max<T: Real>(op: &ops::pool::MaxPool, site: &Site<'_>) -> Built<T> {
    let (window, x, y) = resolve(&op.window, site)?;
    let winners = vec![0; site.shape(0)[0] * y.image()];
    Ok(Box::new(Max { cells: Cells::new(&window, x, y), winners }))
}

impl<T: Real> Kernel<T> for Max {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let Self { cells, winners } = self;
        let (from, to) = (&cells.x, &cells.y);
        let n = images(to, y.len() / to.image());
        let x = x.get(0);
        threads::pairs((y, n * to.image()), (winners, n * to.image()), |piece, y, winners| {
            let x = &x[piece * n * from.image()..];
            let own = y.chunks_exact_mut(to.image()).zip(winners.chunks_exact_mut(to.image()));
            for ((y, winners), x) in own.zip(x.chunks_exact(from.image())) {
                if to.value_halo {
                    to.clear_halo(y);
                }
                for (at, mut inputs) in cells.iter() {
                    let (y, winners) = (&mut y[at..at + to.c], &mut winners[at..at + to.c]);
                    let Some(first) = inputs.next() else {
                        y.fill(T::ZERO);
                        continue;
                    };
                    y.copy_from_slice(&x[first..first + to.c]);
                    winners.iter_mut().enumerate().for_each(|(c, winner)| *winner = (first + c) as u32);
                    for place in inputs {
                        let pixel = &x[place..place + to.c];
                        for (c, ((best, winner), &value)) in y.iter_mut().zip(winners.iter_mut()).zip(pixel).enumerate()
                        {
                            // A NaN wins and stays: a loss that is not finite must be noticed.
                            let wins = value > *best || (value.is_nan() && !best.is_nan());
                            *best = if wins { value } else { *best };
                            *winner = if wins { (place + c) as u32 } else { *winner };
                        }
                    }
                }
            }
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d_x, add)) = d_x[0].target() else { return };
        let (from, to) = (&self.cells.y, &self.cells.x);
        let n = images(from, d_y.len() / from.image());
        threads::chunks(d_x, n * to.image(), |piece, d_x| {
            let from_piece = piece * n * from.image();
            let (d_y, winners) = (&d_y[from_piece..], &self.winners[from_piece..]);
            let own = d_x.chunks_exact_mut(to.image()).zip(d_y.chunks_exact(from.image()));
            for ((d_x, d_y), winners) in own.zip(winners.chunks_exact(from.image())) {
                if !add {
                    d_x.fill(T::ZERO);
                }
                for (at, _) in self.cells.iter().filter(|(_, inputs)| inputs.clone().next().is_some()) {
                    for (&d, &winner) in d_y[at..at + from.c].iter().zip(&winners[at..at + from.c]) {
                        d_x[winner as usize] += d;
                    }
                }
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// Mean of each window.
struct Average<T> {
    cells: Cells,
    /// 1 / elements that count, of each output pixel.
    weights: Vec<T>,
}

/// The kernel of an AveragePool node.
pub fn average<T: Real>(op: &ops::pool::AveragePool, site: &Site<'_>) -> Built<T> {
    let (window, x, y) = resolve(&op.window, site)?;
    let count = |axis: &Axis, o: usize| {
        if op.count_include_pad {
            // The end pad counts; what a last window of `ceil_mode` reaches beyond it does not.
            let end = axis.pad_begin + axis.input + axis.pad_end;
            end.saturating_sub(o * axis.stride).div_ceil(axis.dilation).min(axis.kernel)
        } else {
            covered(axis, o).1
        }
    };
    let cells = (0..window.y.output).flat_map(|oy| (0..window.x.output).map(move |ox| (oy, ox)));
    let weights =
        cells.map(|(oy, ox)| T::ONE / T::from_usize((count(&window.y, oy) * count(&window.x, ox)).max(1))).collect();
    Ok(Box::new(Average { cells: Cells::new(&window, x, y), weights }))
}

impl<T: Real> Kernel<T> for Average<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (from, to) = (&self.cells.x, &self.cells.y);
        let n = images(to, y.len() / to.image());
        let x = x.get(0);
        threads::chunks(y, n * to.image(), |piece, y| {
            let x = &x[piece * n * from.image()..];
            for (y, x) in y.chunks_exact_mut(to.image()).zip(x.chunks_exact(from.image())) {
                if to.value_halo {
                    to.clear_halo(y);
                }
                for ((at, inputs), &weight) in self.cells.iter().zip(&self.weights) {
                    let y = &mut y[at..at + to.c];
                    y.fill(T::ZERO);
                    for place in inputs {
                        y.iter_mut().zip(&x[place..place + to.c]).for_each(|(y, &x)| *y += x);
                    }
                    y.iter_mut().for_each(|y| *y *= weight);
                }
            }
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d_x, add)) = d_x[0].target() else { return };
        let (from, to) = (&self.cells.y, &self.cells.x);
        let n = images(from, d_y.len() / from.image());
        threads::chunks(d_x, n * to.image(), |piece, d_x| {
            let d_y = &d_y[piece * n * from.image()..];
            for (d_x, d_y) in d_x.chunks_exact_mut(to.image()).zip(d_y.chunks_exact(from.image())) {
                if !add {
                    d_x.fill(T::ZERO);
                }
                for ((at, inputs), &weight) in self.cells.iter().zip(&self.weights) {
                    for place in inputs {
                        let pairs = d_x[place..place + to.c].iter_mut().zip(&d_y[at..at + to.c]);
                        pairs.for_each(|(x, &d)| *x += d * weight);
                    }
                }
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// Mean over all spatial axes.
struct GlobalAverage {
    x: Frame,
}

/// The kernel of a GlobalAveragePool node.
pub fn global_average<T: Real>(_op: &ops::pool::GlobalAveragePool, site: &Site<'_>) -> Built<T> {
    match site.frame(0) {
        Some(x) if x.h * x.w > 0 => Ok(Box::new(GlobalAverage { x })),
        _ => Err(OpError::new("planes that are not empty", format!("{:?}", site.shape(0)))),
    }
}

impl<T: Real> Kernel<T> for GlobalAverage {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let frame = &self.x;
        let factor = T::ONE / T::from_usize(frame.h * frame.w);
        let x = x.get(0);
        threads::chunks(y, frame.c, |image, y| {
            let x = &x[image * frame.image()..][..frame.image()];
            wide(|| {
                y.fill(T::ZERO);
                for start in frame.rows() {
                    for pixel in x[start..start + frame.span()].chunks_exact(frame.c) {
                        y.iter_mut().zip(pixel).for_each(|(y, &x)| *y += x);
                    }
                }
                y.iter_mut().for_each(|y| *y *= factor);
            });
        });
    }

    fn backward(
        &mut self,
        _x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        _context: &mut Context<'_, T>,
    ) {
        let Some((d_x, add)) = d_x[0].target() else { return };
        let frame = &self.x;
        let factor = T::ONE / T::from_usize(frame.h * frame.w);
        threads::chunks(d_x, frame.image(), |image, d_x| {
            let d_y = &d_y[image * frame.c..][..frame.c];
            wide(|| {
                if frame.gradient_halo && !add {
                    frame.clear_halo(d_x);
                }
                for start in frame.rows() {
                    for pixel in d_x[start..start + frame.span()].chunks_exact_mut(frame.c) {
                        for (x, &d) in pixel.iter_mut().zip(d_y) {
                            *x = if add { *x + d * factor } else { d * factor };
                        }
                    }
                }
            });
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::random::Stream;

    #[test]
    fn windows_cover_what_their_places_say() {
        let noise = Stream::new(3, 0);
        for i in 0..3000 {
            let draw = |j: usize, n: usize| (noise.uniform(8 * i + j) * n as f32) as usize;
            let [input, kernel, stride, dilation] = [1 + draw(0, 9), 1 + draw(1, 5), 1 + draw(2, 3), 1 + draw(3, 3)];
            let (pad_begin, pad_end) = (draw(4, 7), draw(5, 7));
            let axis = Axis { input, output: 12, kernel, stride, dilation, pad_begin, pad_end };
            for o in 0..axis.output {
                let (first, n) = covered(&axis, o);
                let found: Vec<usize> = (0..n).map(|k| first + k * dilation).collect();
                let padded = (0..kernel).map(|k| o * stride + k * dilation);
                let inside = padded.filter(|&at| at >= pad_begin && at < pad_begin + input);
                assert_eq!(found, inside.map(|at| at - pad_begin).collect::<Vec<_>>(), "{axis:?}, output {o}");
            }
        }
    }

    /// A million outputs whose windows cover up to 784 pixels: what is kept of them is a row and a column each.
    #[test]
    fn what_is_kept_of_windows_does_not_grow_with_what_they_cover() {
        let axis =
            Axis { input: 28, output: 1028, kernel: 1001, stride: 1, dilation: 1, pad_begin: 1000, pad_end: 1000 };
        let frame = |n: usize| Frame { c: 1, h: n, w: n, ..Frame::default() };
        let cells = Cells::new(&Window2 { y: axis, x: axis }, frame(28), frame(1028));
        assert_eq!((cells.rows.len(), cells.columns.len()), (1028, 1028));
        let (at, inputs) = cells.iter().nth(500 * 1028 + 500).unwrap();
        assert_eq!((at, inputs.count()), (500 * 1028 + 500, 28 * 28));
    }
}
