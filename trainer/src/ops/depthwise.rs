//! Convolution where each output channel sees one input channel of its own: direct loops over channels.

use super::conv::{Shape, reduce_partials};
use super::kernels::frame::Frame;
use super::kernels::prefetch::Next;
use super::kernels::rows::{self, Row};
use super::kernels::taps::{self, Sweep};
use super::kernels::threads;
use super::kernels::tile::{Depthwise as Call, DepthwiseOuter, Start};
use super::{Context, Gradient, Inputs, Keeps, Kernel, Scratch, ScratchSize, moments};
use crate::exec::Real;

/// Pixels of a call: few enough that what they read stays in the nearest cache while it is read channel by channel. Between
/// calls the next image is asked for.
const PART: usize = 32;

struct Depthwise<T: Real> {
    shape: Shape,
    forward: Sweep,
    backward: Vec<Sweep>,
    row: &'static Row<T>,
}

/// The kernel for one input and one output channel a group.
pub fn build<T: Real>(shape: Shape) -> Box<dyn Kernel<T>> {
    let forward = taps::forward(&shape.window, &shape.x, &shape.y, false);
    let backward = if shape.wanted[0] { taps::backward(&shape.window, &shape.x, &shape.y, false) } else { Vec::new() };
    Box::new(Depthwise { forward, backward, row: rows::choose(shape.groups), shape })
}

/// Weights `[C, 1, …]` as a row of channels for each tap, in a sweep's order.
fn pack<T: Real>(to: &mut [T], w: &[T], sweep: &Sweep, channels: usize, taps: usize) {
    for (row, &tap) in to.chunks_exact_mut(channels).zip(&sweep.taps) {
        row.iter_mut().enumerate().for_each(|(c, value)| *value = w[c * taps + tap]);
    }
}

impl<T: Real> Depthwise<T> {
    /// What is asked for while image `i` of a chunk is worked on.
    fn next<'a>(&self, chunk: &'a [T], frame: &Frame, i: usize, sweep: &Sweep) -> Next<'a, T> {
        Next::new(chunk, (i + 1) * frame.image(), frame.image(), sweep.pixels.len().div_ceil(PART))
    }
}

impl<T: Real> Kernel<T> for Depthwise<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let s = &self.shape;
        let (input, b) = (x.get(0), x.get(2));
        let Scratch { shared, lanes, moments } = &mut *context.scratch;
        let packed = &mut shared[..s.weights()];
        pack(packed, x.get(1), &self.forward, s.groups, s.window.taps());
        let packed = &*packed;
        let sums = moments.start_if_wanted(s.chunks(), &s.y);
        threads::pairs((y, s.chunk * s.y.image()), (sums, moments::piece(&s.y)), |chunk, y, sums| {
            let x = &input[chunk * s.chunk * s.x.image()..];
            let all = x;
            for (i, (y, x)) in y.chunks_exact_mut(s.y.image()).zip(x.chunks_exact(s.x.image())).enumerate() {
                let mut next = self.next(all, &s.x, i, &self.forward);
                let mut call = Call {
                    x: x.as_ptr(),
                    y: y.as_mut_ptr(),
                    pixels: &[],
                    taps: &self.forward.runs,
                    w: packed.as_ptr(),
                    pitch: s.groups,
                    channels: s.groups,
                    start: if s.bias { Start::Bias(b.as_ptr()) } else { Start::Zero },
                };
                for part in self.forward.pixels.chunks(PART) {
                    next.ask();
                    call.pixels = part;
                    // SAFETY: pixels and taps lie inside images of the frames by `taps::forward`.
                    unsafe { self.row.depthwise(&call) };
                }
                if s.y.value_halo {
                    s.y.clear_halo(y);
                }
            }
            s.measure(y, sums, lanes);
        });
    }

    fn backward(
        &mut self,
        x: &Inputs<'_, T>,
        _y: &[T],
        d_y: &[T],
        d_x: &mut [Gradient<T>],
        context: &mut Context<'_, T>,
    ) {
        let s = &self.shape;
        let (input, w) = (x.get(0), x.get(1));
        let [want_x, want_w, want_b] = s.wanted;
        let (channels, taps) = (s.groups, s.window.taps());
        let shared = &mut context.scratch.shared;
        if want_b {
            s.d_bias(d_y, d_x.get_mut(2).and_then(Gradient::target), shared);
        }
        if want_w {
            let partials = &mut shared[..s.sum_chunks() * s.weights()];
            threads::chunks(partials, s.weights(), |chunk, d_w| {
                let (d_y, x) = (s.sum_chunk_of(&s.y, chunk, d_y), s.sum_chunk_of(&s.x, chunk, input));
                let (all_x, all_y) = (x, d_y);
                for (i, (x, d_y)) in x.chunks_exact(s.x.image()).zip(d_y.chunks_exact(s.y.image())).enumerate() {
                    let mut next_x = self.next(all_x, &s.x, i, &self.forward);
                    let mut next_y = self.next(all_y, &s.y, i, &self.forward);
                    let mut call = DepthwiseOuter {
                        x: x.as_ptr(),
                        y: d_y.as_ptr(),
                        pixels: &[],
                        taps: &self.forward.runs,
                        d: d_w.as_mut_ptr(),
                        pitch: channels,
                        channels,
                        add: i > 0,
                    };
                    for part in self.forward.pixels.chunks(PART) {
                        next_x.ask();
                        next_y.ask();
                        call.pixels = part;
                        // SAFETY: as above; d_w holds a row of channels for each tap.
                        unsafe { self.row.depthwise_outer(&call) };
                        call.add = true;
                    }
                }
            });
            let mut order = vec![0; taps];
            self.forward.taps.iter().enumerate().for_each(|(i, &tap)| order[tap] = i);
            if let Some((d, add)) = d_x.get_mut(1).and_then(Gradient::target) {
                reduce_partials(d, add, partials, s.weights(), |i| order[i % taps] * channels + i / taps);
            }
        }
        if !want_x {
            return;
        }
        let Some((d_x, add)) = d_x[0].target() else { return };
        let mut rest = &mut shared[..s.weights()];
        let mut packed = Vec::with_capacity(self.backward.len());
        for sweep in &self.backward {
            let (own, after) = rest.split_at_mut(sweep.taps.len() * channels);
            pack(own, w, sweep, channels, taps);
            packed.push(&*own);
            rest = after;
        }
        threads::chunks(d_x, s.chunk * s.x.image(), |chunk, d_x| {
            let d_y = s.chunk_of(&s.y, chunk, d_y);
            let all = d_y;
            for (i, (d_x, d_y)) in d_x.chunks_exact_mut(s.x.image()).zip(d_y.chunks_exact(s.y.image())).enumerate() {
                for (sweep, packed) in self.backward.iter().zip(&packed) {
                    let mut next = self.next(all, &s.y, i, sweep);
                    let mut call = Call {
                        x: d_y.as_ptr(),
                        y: d_x.as_mut_ptr(),
                        pixels: &[],
                        taps: &sweep.runs,
                        w: packed.as_ptr(),
                        pitch: channels,
                        channels,
                        start: if add { Start::There } else { Start::Zero },
                    };
                    for part in sweep.pixels.chunks(PART) {
                        next.ask();
                        call.pixels = part;
                        // SAFETY: pixels and taps lie inside images of the frames by `taps::backward`.
                        unsafe { self.row.depthwise(&call) };
                    }
                }
                if s.x.gradient_halo && !add {
                    s.x.clear_halo(d_x);
                }
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.shape.wanted[1]), (1, self.shape.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let s = &self.shape;
        let partials = if s.wanted[1] || s.wanted[2] { s.partials() } else { 0 };
        ScratchSize { shared: partials.max(s.weights()), lane: moments::lane(&s.y) }
    }
}
