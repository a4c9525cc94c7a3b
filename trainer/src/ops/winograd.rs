//! Convolution with stride 1 and 3 or 5 taps along its last axis, by minimal filtering along that axis: half the products
//! of a direct one (2.5 times fewer with 5 taps).
//!
//! Each point of the transform has planes of its own, and there the convolution is a product over the kernel's rows and
//! the channels: the same loops over pixels and runs as elsewhere. The gradient by the input is the same with the kernel
//! turned round; the gradient by the weights sums outer products of planes, and goes back through the transform once.

use std::sync::Mutex;

use super::conv::Shape;
use super::kernels::buffer::Buffer;
use super::kernels::frame::Frame;
use super::kernels::prefetch::Next;
use super::kernels::rows::{self, Row, wide};
use super::kernels::threads;
use super::kernels::tile::{Outer, Pixel, Product, Start};
use super::kernels::winograd::{Points, Tiles};
use super::{Context, Gradient, Inputs, Keeps, Kernel, Scratch, ScratchSize, moments, with_lane};
use crate::exec::Real;

/// Tiles that a product has to choose from, about: small images are taken together.
const TILES: usize = 64;
/// All chunks' weight gradients together hold at most so many floats (or those of the fewest chunks).
const CHUNK_FLOATS: usize = 1 << 19;
/// Chunks of a batch.
const FEWEST_CHUNKS: usize = 8;
const MOST_CHUNKS: usize = 16;

/// One direction: a correlation of what is read with a kernel.
struct Side<T: Real> {
    row: &'static Row<T>,
    read: Frame,
    write: Frame,
    /// Where the first pixel that an image's first tile reads lies.
    first: usize,
    /// Rows of the kernel, and taps of a row.
    kernel: [usize; 2],
    /// Tiles of a row.
    tiles: usize,
    /// Images of a block.
    images: usize,
    /// Of a block: places in a plane that is read and in one that is written.
    pixels: Vec<Pixel>,
    /// Beginnings of the kernel's rows in a plane.
    runs: Vec<u32>,
}

impl<T: Real> Side<T> {
    /// `before`: rows and pixels that the kernel reaches before the pixel that it is summed for.
    fn new(
        points: &Points<T>,
        [read, write]: [Frame; 2],
        kernel: [usize; 2],
        before: [isize; 2],
        chunk: usize,
    ) -> Self {
        let tiles = write.w.div_ceil(points.outputs);
        let images = TILES.div_ceil((write.h * tiles).max(1)).clamp(1, chunk);
        let rows = write.h + kernel[0] - 1;
        let mut pixels = Vec::with_capacity(images * write.h * tiles);
        for image in 0..images {
            for y in 0..write.h {
                for tile in 0..tiles {
                    let x = ((image * rows + y) * tiles + tile) * read.c;
                    pixels.push(Pixel { x: x as u32, y: (((image * write.h + y) * tiles + tile) * write.c) as u32 });
                }
            }
        }
        let first =
            (read.top as isize - before[0]) * read.row() as isize + (read.left as isize - before[1]) * read.c as isize;
        debug_assert!(first >= 0);
        Self {
            row: rows::choose(write.c),
            read,
            write,
            first: first as usize,
            kernel,
            tiles,
            images,
            pixels,
            runs: (0..kernel[0]).map(|k| (k * tiles * read.c) as u32).collect(),
        }
    }

    /// Rows that an image's kernels reach.
    fn rows(&self) -> usize {
        self.write.h + self.kernel[0] - 1
    }

    /// Floats of a block's plane that is read.
    fn read_plane(&self) -> usize {
        self.images * self.rows() * self.tiles * self.read.c
    }

    /// Floats of a block's plane that is written.
    fn write_plane(&self) -> usize {
        self.images * self.write.h * self.tiles * self.write.c
    }

    /// Weights that a sum sees at one point.
    fn depth(&self) -> usize {
        self.kernel[0] * self.read.c
    }

    fn panels(&self) -> usize {
        self.write.c.div_ceil(self.row.width)
    }

    /// Floats of a panel of weights at one point.
    fn panel(&self) -> usize {
        self.depth() * self.row.width
    }

    /// Weights at the points: `[panel][point][kernel row][channel read][width]`; `place(read, written, row, tap)` is where
    /// a weight lies.
    fn pack(
        &self,
        to: &mut [T],
        w: &[T],
        points: &Points<T>,
        place: impl Fn(usize, usize, usize, usize) -> usize + Sync,
    ) {
        let (width, panel, taps) = (self.row.width, self.panel(), self.kernel[1]);
        threads::chunks(to, points.count() * panel, |i, to| {
            let first = i * width;
            let columns = width.min(self.write.c - first);
            let mut lines = vec![T::ZERO; taps * width];
            for (k, c) in (0..self.kernel[0]).flat_map(|k| (0..self.read.c).map(move |c| (k, c))) {
                for (tap, line) in lines.chunks_exact_mut(width).enumerate() {
                    line[..columns].iter_mut().enumerate().for_each(|(j, v)| *v = w[place(c, first + j, k, tap)]);
                }
                wide(|| {
                    for (point, filter) in points.filter.iter().enumerate() {
                        let line = &mut to[point * panel + (k * self.read.c + c) * width..][..width];
                        line.fill(T::ZERO);
                        for (taps, &factor) in lines.chunks_exact(width).zip(filter) {
                            line.iter_mut().zip(taps).for_each(|(to, &w)| *to += factor * w);
                        }
                    }
                });
            }
        });
    }

    /// Images of a chunk that is read into planes.
    fn gather(&self, points: &Points<T>, x: &[T], planes: &mut [T], images: usize) {
        for image in 0..images {
            let call = Tiles {
                points,
                // Only read.
                pixels: x[image * self.read.image() + self.first..].as_ptr().cast_mut(),
                row: self.read.row(),
                rows: self.rows(),
                width: self.write.w + self.kernel[1] - 1,
                channels: self.read.c,
                planes: planes[image * self.rows() * self.tiles * self.read.c..].as_mut_ptr(),
                plane: self.read_plane(),
                tiles: self.tiles,
            };
            // SAFETY: the frame's halo holds what the kernel reaches beyond the image, by `taps`; planes are those of a
            // block.
            unsafe { self.row.gather(&call) }
        }
    }

    /// The call between the pixels of an image that is written and its planes.
    fn written<'a>(&self, points: &'a Points<T>, image: *mut T, planes: *mut T) -> Tiles<'a, T> {
        Tiles {
            points,
            pixels: image.wrapping_add(self.write.origin()),
            row: self.write.row(),
            rows: self.write.h,
            width: self.write.w,
            channels: self.write.c,
            planes,
            plane: self.write_plane(),
            tiles: self.tiles,
        }
    }

    /// The correlation of a chunk's images. `lane` holds a block's planes.
    fn run(&self, points: &Points<T>, packed: &[T], x: &[T], y: &mut [T], start: Start<T>, lane: &mut [T]) {
        let (panel, width) = (self.panel(), self.row.width);
        let (read, written) = lane.split_at_mut(points.count() * self.read_plane());
        let all = y.len() / self.write.image();
        for first in (0..all).step_by(self.images) {
            let images = self.images.min(all - first);
            self.gather(points, &x[first * self.read.image()..], read, images);
            let (calls, after) = (packed.len() / panel, first + images);
            let mut next_x = Next::new(x, after * self.read.image(), images * self.read.image(), calls);
            let mut next_y = Next::new(y, after * self.write.image(), images * self.write.image(), calls);
            for (i, packed) in packed.chunks_exact(panel).enumerate() {
                next_x.ask();
                next_y.ask();
                let (column, point) = (i / points.count() * width, i % points.count());
                let call = Product {
                    x: read[point * self.read_plane()..].as_ptr(),
                    y: written[point * self.write_plane() + column..].as_mut_ptr(),
                    pixels: &self.pixels[..images * self.write.h * self.tiles],
                    runs: &self.runs,
                    len: self.read.c,
                    panel: packed.as_ptr(),
                    columns: width.min(self.write.c - column),
                    start: Start::Zero,
                };
                // SAFETY: pixels and runs lie inside a block's planes; the panel has a row for each element of the runs.
                unsafe { self.row.product(&call) };
            }
            for image in 0..images {
                let planes = written[image * self.write.h * self.tiles * self.write.c..].as_mut_ptr();
                let image = &mut y[(first + image) * self.write.image()..][..self.write.image()];
                // SAFETY: rows and planes are those of the frame and of a block.
                unsafe { self.row.scatter(&self.written(points, image.as_mut_ptr(), planes), start) };
            }
        }
    }

    /// Sums of outer products of a chunk's planes: `[point][kernel row][channel read][channel written]`.
    fn outer(&self, points: &Points<T>, x: &[T], d_y: &[T], d: &mut [T], lane: &mut [T]) {
        let (read, written) = lane.split_at_mut(points.count() * self.read_plane());
        let all = d_y.len() / self.write.image();
        for first in (0..all).step_by(self.images) {
            let images = self.images.min(all - first);
            self.gather(points, &x[first * self.read.image()..], read, images);
            for image in 0..images {
                let planes = written[image * self.write.h * self.tiles * self.write.c..].as_mut_ptr();
                // Only read.
                let pixels = d_y[(first + image) * self.write.image()..].as_ptr().cast_mut();
                // SAFETY: as in `run`.
                unsafe { self.row.spread(&self.written(points, pixels, planes)) };
            }
            let (calls, after) = (points.count() * self.kernel[0], first + images);
            let mut next_x = Next::new(x, after * self.read.image(), images * self.read.image(), calls);
            let mut next_y = Next::new(d_y, after * self.write.image(), images * self.write.image(), calls);
            for (i, d) in d.chunks_exact_mut(self.read.c * self.write.c).enumerate() {
                next_x.ask();
                next_y.ask();
                let (point, k) = (i / self.kernel[0], i % self.kernel[0]);
                let call = Outer {
                    x: read[point * self.read_plane() + self.runs[k] as usize..].as_ptr(),
                    y: written[point * self.write_plane()..].as_ptr(),
                    pixels: &self.pixels[..images * self.write.h * self.tiles],
                    d: d.as_mut_ptr(),
                    pitch: self.write.c,
                    rows: self.read.c,
                    columns: self.write.c,
                    add: first > 0,
                };
                // SAFETY: as in `run`; d has a row of channels for each channel that is read.
                unsafe { self.row.outer(&call) };
            }
        }
    }

    /// Floats of a lane.
    fn lane(&self, points: &Points<T>) -> usize {
        points.count() * (self.read_plane() + self.write_plane())
    }
}

struct Winograd<T: Real> {
    shape: Shape,
    points: Points<T>,
    forward: Side<T>,
    backward: Side<T>,
}

/// The kernel, where it pays.
pub fn build<T: Real>(shape: &Shape) -> Option<Box<dyn Kernel<T>>> {
    let (y, x) = (shape.window.y, shape.window.x);
    let dense = [y, x].iter().all(|axis| axis.stride == 1 && axis.dilation == 1);
    // With few channels the transforms cost more than they save.
    let pays = shape.groups == 1 && shape.c >= 8 && shape.m >= 8 && x.output >= 3 && x.input >= 3;
    let points = Points::new(x.kernel).filter(|_| dense && pays)?;
    let weights = points.count() * y.kernel * shape.c * shape.m;
    let chunks = (CHUNK_FLOATS / weights.max(1)).clamp(FEWEST_CHUNKS, MOST_CHUNKS);
    let chunk = shape.batch.div_ceil(chunks).max(1);
    let shape = Shape { chunk, sum_chunk: chunk, ..shape.clone() };
    let kernel = [y.kernel, x.kernel];
    let before = [y.pad_begin as isize, x.pad_begin as isize];
    let back = [y.kernel as isize - 1 - before[0], x.kernel as isize - 1 - before[1]];
    let forward = Side::new(&points, [shape.x, shape.y], kernel, before, shape.chunk);
    let backward = if shape.wanted[0] { Some(back) } else { None };
    // Where no gradient by the input is wanted its side is not used.
    let backward = match backward {
        Some(back) => Side::new(&points, [shape.y, shape.x], kernel, back, shape.chunk),
        None => Side::new(&points, [shape.x, shape.y], kernel, before, shape.chunk),
    };
    Some(Box::new(Winograd { shape, points, forward, backward }))
}

impl<T: Real> Winograd<T> {
    /// Weight `[m, c, row, tap]`.
    fn place(&self, m: usize, c: usize, row: usize, tap: usize) -> usize {
        let [rows, taps] = self.forward.kernel;
        ((m * self.shape.c + c) * rows + row) * taps + tap
    }

    fn packed(&self, side: &Side<T>) -> usize {
        self.points.count() * side.panels() * side.panel()
    }

    /// Floats of a chunk's own gradient of weights, at the points.
    fn partial(&self) -> usize {
        self.points.count() * self.forward.depth() * self.shape.m
    }

    /// Gradients of weights and bias.
    fn d_weights(&self, x: &[T], d_y: &[T], d_x: &mut [Gradient<T>], shared: &mut [T], lanes: &[Mutex<Buffer<T>>]) {
        let s = &self.shape;
        let [_, want_w, want_b] = s.wanted;
        if want_b {
            s.d_bias(d_y, d_x.get_mut(2).and_then(Gradient::target), shared);
        }
        if !want_w {
            return;
        }
        let partials = &mut shared[..s.sum_chunks() * self.partial()];
        threads::chunks(partials, self.partial(), |chunk, d_w| {
            let (x, d_y) = (s.sum_chunk_of(&s.x, chunk, x), s.sum_chunk_of(&s.y, chunk, d_y));
            with_lane(lanes, |lane| self.forward.outer(&self.points, x, d_y, d_w, lane));
        });
        if let Some((d, add)) = d_x.get_mut(1).and_then(Gradient::target) {
            self.back_from_points(d, add, partials, lanes);
        }
    }

    /// Adds the chunks' gradients at the points in order, and takes them through `Gᵀ`.
    fn back_from_points(&self, d: &mut [T], add: bool, partials: &[T], lanes: &[Mutex<Buffer<T>>]) {
        let s = &self.shape;
        let [rows, taps] = self.forward.kernel;
        let points = self.points.count();
        let line = s.c * rows * taps;
        // A task has the output channels of a panel: neighbours in memory.
        let width = self.forward.row.width;
        threads::chunks(d, width * line, |task, d| {
            let (first, columns) = (task * width, d.len() / line);
            with_lane(lanes, |lane| {
                let (sums, values) = lane[..(points + 1) * width].split_at_mut(points * width);
                for (k, c) in (0..rows).flat_map(|k| (0..s.c).map(move |c| (k, c))) {
                    wide(|| {
                        for (point, sums) in sums.chunks_exact_mut(width).enumerate() {
                            let at = ((point * rows + k) * s.c + c) * s.m + first;
                            sums[..columns].copy_from_slice(&partials[at..at + columns]);
                            for partial in partials.chunks_exact(self.partial()).skip(1) {
                                let own = sums[..columns].iter_mut().zip(&partial[at..at + columns]);
                                own.for_each(|(sum, &own)| *sum += own);
                            }
                        }
                    });
                    for tap in 0..taps {
                        wide(|| {
                            values.fill(T::ZERO);
                            for (sums, filter) in sums.chunks_exact(width).zip(&self.points.filter) {
                                let factor = filter[tap];
                                values.iter_mut().zip(sums).for_each(|(value, &sum)| *value += factor * sum);
                            }
                        });
                        for (j, &value) in values[..columns].iter().enumerate() {
                            let at = self.place(j, c, k, tap);
                            d[at] = if add { d[at] + value } else { value };
                        }
                    }
                }
            });
        });
    }
}

impl<T: Real> Kernel<T> for Winograd<T> {
    fn forward(&mut self, x: &Inputs<'_, T>, y: &mut [T], context: &mut Context<'_, T>) {
        let (s, side, points) = (&self.shape, &self.forward, &self.points);
        let (input, bias) = (x.get(0), x.get(2));
        let Scratch { shared, lanes, moments } = &mut *context.scratch;
        let packed = &mut shared[..self.packed(side)];
        side.pack(packed, x.get(1), points, |c, m, row, tap| self.place(m, c, row, tap));
        let packed = &*packed;
        let sums = moments.start_if_wanted(s.chunks(), &s.y);
        threads::pairs((y, s.chunk * s.y.image()), (sums, moments::piece(&s.y)), |chunk, y, sums| {
            let start = if s.bias { Start::Bias(bias.as_ptr()) } else { Start::Zero };
            let x = s.chunk_of(&s.x, chunk, input);
            with_lane(lanes, |lane| side.run(points, packed, x, y, start, lane));
            if s.y.value_halo {
                y.chunks_exact_mut(s.y.image()).for_each(|image| s.y.clear_halo(image));
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
        let (s, side, points) = (&self.shape, &self.backward, &self.points);
        let shared = &mut context.scratch.shared;
        let lanes = &context.scratch.lanes;
        if s.wanted[1] || s.wanted[2] {
            self.d_weights(x.get(0), d_y, d_x, shared, lanes);
        }
        let Some((d_x, add)) = d_x[0].target() else { return };
        let [rows, taps] = side.kernel;
        let packed = &mut shared[..self.packed(side)];
        side.pack(packed, x.get(1), points, |m, c, row, tap| self.place(m, c, rows - 1 - row, taps - 1 - tap));
        let packed = &*packed;
        threads::chunks(d_x, s.chunk * s.x.image(), |chunk, d_x| {
            let start = if add { Start::There } else { Start::Zero };
            let d_y = s.chunk_of(&s.y, chunk, d_y);
            with_lane(lanes, |lane| side.run(points, packed, d_y, d_x, start, lane));
            if s.x.gradient_halo && !add {
                d_x.chunks_exact_mut(s.x.image()).for_each(|image| s.x.clear_halo(image));
            }
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[(0, self.shape.wanted[1]), (1, self.shape.wanted[0])])
    }

    fn scratch(&self) -> ScratchSize {
        let s = &self.shape;
        let partials = if s.wanted[1] || s.wanted[2] { s.sum_chunks() * self.partial().max(s.m) } else { 0 };
        let packed = self.packed(&self.forward).max(self.packed(&self.backward));
        let sums = (self.points.count() + 1) * self.forward.row.width;
        let lane =
            self.forward.lane(&self.points).max(self.backward.lane(&self.points)).max(sums).max(moments::lane(&s.y));
        ScratchSize { shared: partials.max(packed), lane }
    }
}
