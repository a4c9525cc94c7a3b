//! What a convolution's window is to the loops of [`tile`](super::tile): pixels, runs, and the order of the weights.

use kd_runtime::ops::window::Axis;

use super::frame::Frame;
use super::tile::Pixel;
use super::window::Window2;

/// Pixels that are summed in the same way, and the places that each sum reads relative to its pixel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Of one image: `x` is what is read, `y` what is written.
    pub pixels: Vec<Pixel>,
    /// Beginnings of runs relative to a pixel.
    pub runs: Vec<u32>,
    /// Taps of a run: it has so many times the channels.
    pub merged: usize,
    /// The window's tap (row-major) of each place, in the order in which they are summed.
    pub taps: Vec<usize>,
}

/// Places along an axis: outputs, and for each tap the input place of output 0 (halo included, so never negative).
struct Line {
    /// Outputs and the input step from one to the next, output step, first output, shift of the input.
    count: usize,
    step: usize,
    write_step: usize,
    first_write: usize,
    /// Tap and its place in the input (counted from the first stored element) for the first output.
    taps: Vec<(usize, isize)>,
}

fn forward_line(axis: &Axis, halo: usize) -> Line {
    let taps =
        (0..axis.kernel).map(|k| (k, (k * axis.dilation) as isize - axis.pad_begin as isize + halo as isize)).collect();
    Line { count: axis.output, step: axis.stride, write_step: 1, first_write: 0, taps }
}

/// Of the gradient by the input, inputs `phase, phase + stride, …` in padded coordinates.
fn backward_line(axis: &Axis, phase: usize, halo: usize) -> Line {
    let s = axis.stride;
    // Inputs i with (i + pad) % s == phase.
    let first = (phase + s * axis.pad_begin - axis.pad_begin) % s;
    let count = if first < axis.input { (axis.input - first).div_ceil(s) } else { 0 };
    let at = (first + axis.pad_begin) as isize;
    let taps = (0..axis.kernel)
        .filter(|k| (at - (k * axis.dilation) as isize).rem_euclid(s as isize) == 0)
        .map(|k| (k, (at - (k * axis.dilation) as isize).div_euclid(s as isize) + halo as isize))
        .collect();
    Line { count, step: 1, write_step: s, first_write: first, taps }
}

/// The halo that the gradient of the output needs on an axis: what the taps of any input reach beyond it.
pub fn gradient_halo(axis: &Axis) -> (usize, usize) {
    let (mut before, mut after) = (0, 0);
    for phase in 0..axis.stride {
        let line = backward_line(axis, phase, 0);
        for &(_, place) in line.taps.iter().filter(|_| line.count > 0) {
            before = before.max(-place);
            after = after.max(place + line.count as isize - axis.output as isize);
        }
    }
    (before.max(0) as usize, after.max(0) as usize)
}

/// The halo that the input needs on an axis.
pub fn value_halo(axis: &Axis) -> (usize, usize) {
    let reach = (axis.output.max(1) - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
    (axis.pad_begin, reach.saturating_sub(axis.pad_begin + axis.input))
}

fn sweep([y, x]: [&Line; 2], kernel_x: usize, [read, write]: [&Frame; 2], merge: bool) -> Sweep {
    let pitch = read.row() as isize;
    let mut places: Vec<(isize, usize)> = Vec::new();
    for &(ky, py) in &y.taps {
        for &(kx, px) in &x.taps {
            places.push((py * pitch + px * read.c as isize, ky * kernel_x + kx));
        }
    }
    places.sort_unstable();
    let least = places.first().map_or(0, |&(place, _)| place);
    let mut pixels = Vec::with_capacity(y.count * x.count);
    for i in 0..y.count {
        for j in 0..x.count {
            let from = least + (i * y.step) as isize * pitch + (j * x.step * read.c) as isize;
            debug_assert!(from >= 0);
            let to = write.pixel(y.first_write + i * y.write_step, x.first_write + j * x.write_step);
            pixels.push(Pixel { x: from as u32, y: to as u32 });
        }
    }
    let offsets: Vec<u32> = places.iter().map(|&(place, _)| (place - least) as u32).collect();
    let merged = if merge { longest_run(&offsets, read.c as u32) } else { 1 };
    Sweep {
        pixels,
        runs: offsets.iter().step_by(merged).copied().collect(),
        merged,
        taps: places.iter().map(|&(_, tap)| tap).collect(),
    }
}

/// The most taps that can be read as one run, the same for all runs.
fn longest_run(offsets: &[u32], channels: u32) -> usize {
    let n = offsets.len().max(1);
    let follows = |len: usize| {
        n.is_multiple_of(len) && offsets.chunks(len).all(|run| run.windows(2).all(|pair| pair[0] + channels == pair[1]))
    };
    (1..=n).rev().find(|&len| follows(len)).unwrap_or(1)
}

/// The forward pass: `x` is read, `y` written. `merge` joins neighbouring taps (only where all channels are read).
pub fn forward(window: &Window2, x: &Frame, y: &Frame, merge: bool) -> Sweep {
    let lines = [&forward_line(&window.y, x.top), &forward_line(&window.x, x.left)];
    sweep(lines, window.x.kernel, [x, y], merge)
}

/// The gradient by the input: the output's gradient (in `y`'s frame) is read, the input's written: one sweep for each
/// phase of the strides.
pub fn backward(window: &Window2, x: &Frame, y: &Frame, merge: bool) -> Vec<Sweep> {
    let mut sweeps = Vec::new();
    for py in 0..window.y.stride {
        for px in 0..window.x.stride {
            let lines = [&backward_line(&window.y, py, y.top), &backward_line(&window.x, px, y.left)];
            let sweep = sweep(lines, window.x.kernel, [y, x], merge);
            if !sweep.pixels.is_empty() {
                sweeps.push(sweep);
            }
        }
    }
    sweeps
}
