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

/// Places along an axis that the window of output `o` covers.
fn covered(axis: &Axis, o: usize) -> impl Iterator<Item = usize> + Clone + use<> {
    let (start, pad, input) = (o * axis.stride, axis.pad_begin, axis.input);
    let dilation = axis.dilation;
    (0..axis.kernel)
        .map(move |k| start + k * dilation)
        .filter(move |&i| i >= pad && i < pad + input)
        .map(move |i| i - pad)
}

/// Of one image: for each output pixel its place, and the places of the input pixels that its window covers.
struct Cells {
    outputs: Vec<usize>,
    inputs: Vec<Vec<usize>>,
}

impl Cells {
    fn new(window: &Window2, x: &Frame, y: &Frame) -> Self {
        let (mut outputs, mut inputs) = (Vec::new(), Vec::new());
        for oy in 0..window.y.output {
            for ox in 0..window.x.output {
                outputs.push(y.pixel(oy, ox));
                let rows = covered(&window.y, oy);
                inputs.push(rows.flat_map(|iy| covered(&window.x, ox).map(move |ix| x.pixel(iy, ix))).collect());
            }
        }
        Self { outputs, inputs }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[usize])> {
        self.outputs.iter().copied().zip(self.inputs.iter().map(Vec::as_slice))
    }
}

/// Largest element of each window; the first of equal ones in row-major order takes the gradient. Pads never win.
struct Max {
    x: Frame,
    y: Frame,
    cells: Cells,
    /// Place in its image of the largest element, for each element of the output's layout.
    winners: Vec<u32>,
}

/// The kernel of a MaxPool node.
pub fn max<T: Real>(op: &ops::pool::MaxPool, site: &Site<'_>) -> Built<T> {
    let (window, x, y) = resolve(&op.window, site)?;
    let winners = vec![0; site.shape(0)[0] * y.image()];
    Ok(Box::new(Max { x, y, cells: Cells::new(&window, &x, &y), winners }))
}

impl<T: Real> Kernel<T> for Max {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let Self { x: from, y: to, cells, winners } = self;
        let n = images(to, y.len() / to.image());
        let x = x.get(0);
        threads::pairs((y, n * to.image()), (winners, n * to.image()), |piece, y, winners| {
            let x = &x[piece * n * from.image()..];
            let own = y.chunks_exact_mut(to.image()).zip(winners.chunks_exact_mut(to.image()));
            for ((y, winners), x) in own.zip(x.chunks_exact(from.image())) {
                if to.value_halo {
                    to.clear_halo(y);
                }
                for (at, inputs) in cells.iter() {
                    let (y, winners) = (&mut y[at..at + to.c], &mut winners[at..at + to.c]);
                    let Some((&first, rest)) = inputs.split_first() else {
                        y.fill(T::ZERO);
                        continue;
                    };
                    y.copy_from_slice(&x[first..first + to.c]);
                    winners.iter_mut().enumerate().for_each(|(c, winner)| *winner = (first + c) as u32);
                    for &place in rest {
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
        let (from, to) = (&self.y, &self.x);
        let n = images(from, d_y.len() / from.image());
        threads::chunks(d_x, n * to.image(), |piece, d_x| {
            let from_piece = piece * n * from.image();
            let (d_y, winners) = (&d_y[from_piece..], &self.winners[from_piece..]);
            let own = d_x.chunks_exact_mut(to.image()).zip(d_y.chunks_exact(from.image()));
            for ((d_x, d_y), winners) in own.zip(winners.chunks_exact(from.image())) {
                if !add {
                    d_x.fill(T::ZERO);
                }
                for (at, _) in self.cells.iter().filter(|(_, inputs)| !inputs.is_empty()) {
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
    x: Frame,
    y: Frame,
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
            (0..axis.kernel).filter(|k| o * axis.stride + k * axis.dilation < end).count()
        } else {
            covered(axis, o).count()
        }
    };
    let cells = (0..window.y.output).flat_map(|oy| (0..window.x.output).map(move |ox| (oy, ox)));
    let weights =
        cells.map(|(oy, ox)| T::ONE / T::from_usize((count(&window.y, oy) * count(&window.x, ox)).max(1))).collect();
    Ok(Box::new(Average { x, y, cells: Cells::new(&window, &x, &y), weights }))
}

impl<T: Real> Kernel<T> for Average<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], _context: &mut Context<'_, T>) {
        let (from, to) = (&self.x, &self.y);
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
                    for &place in inputs {
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
        let (from, to) = (&self.y, &self.x);
        let n = images(from, d_y.len() / from.image());
        threads::chunks(d_x, n * to.image(), |piece, d_x| {
            let d_y = &d_y[piece * n * from.image()..];
            for (d_x, d_y) in d_x.chunks_exact_mut(to.image()).zip(d_y.chunks_exact(from.image())) {
                if !add {
                    d_x.fill(T::ZERO);
                }
                for ((at, inputs), &weight) in self.cells.iter().zip(&self.weights) {
                    for &place in inputs {
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
