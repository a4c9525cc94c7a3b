//! The row that defines the result.

use super::ConvI8;
use crate::engine::requantize::Byte;
use crate::ops::window::Axis;

/// Convolves; `acc` holds one output plane.
pub fn conv<X: Byte, Y: Byte>(kernel: &ConvI8, x: &[X], y: &mut [Y], acc: &mut [i32]) {
    let [rows, columns] = &kernel.axes;
    let (in_plane, out_plane) = (rows.input * columns.input, rows.output * columns.output);
    let (taps, per_group) = (rows.kernel * columns.kernel, kernel.in_channels * in_plane);
    for (sample, y) in y.chunks_exact_mut(kernel.group * kernel.out_channels * out_plane).enumerate() {
        for (m, y) in y.chunks_exact_mut(out_plane).enumerate() {
            let g = m / kernel.out_channels;
            let x = &x[(sample * kernel.group + g) * per_group..][..per_group];
            let weights = &kernel.weights[m * kernel.in_channels * taps..][..kernel.in_channels * taps];
            acc.fill(kernel.bias[m]);
            for (x, weights) in x.chunks_exact(in_plane).zip(weights.chunks_exact(taps)) {
                add_plane(kernel, x, weights, acc);
            }
            let multiplier = kernel.multipliers[m];
            for (y, &acc) in y.iter_mut().zip(acc.iter()) {
                *y = Y::narrow(kernel.output.requantize(acc, multiplier));
            }
        }
    }
}

/// Adds one input channel's share to an output plane.
fn add_plane<X: Byte>(kernel: &ConvI8, x: &[X], weights: &[i16], acc: &mut [i32]) {
    let [rows, columns] = &kernel.axes;
    for (kh, weights) in weights.chunks_exact(columns.kernel).enumerate() {
        for (kw, &w) in weights.iter().enumerate() {
            let (w, zero_point) = (i32::from(w), kernel.input_zero_point);
            let (first_row, end_row) = inside(rows, kh);
            let (first, end) = inside(columns, kw);
            if first >= end {
                continue;
            }
            for oh in first_row..end_row {
                let ih = oh * rows.stride + kh * rows.dilation - rows.pad_begin;
                let from = first * columns.stride + kw * columns.dilation - columns.pad_begin;
                let acc = &mut acc[oh * columns.output..][first..end];
                let x = &x[ih * columns.input + from..(ih + 1) * columns.input];
                if columns.stride == 1 {
                    acc.iter_mut().zip(x).for_each(|(acc, &x)| *acc += w * (x.wide() - zero_point));
                } else {
                    let x = x.iter().step_by(columns.stride);
                    acc.iter_mut().zip(x).for_each(|(acc, &x)| *acc += w * (x.wide() - zero_point));
                }
            }
        }
    }
}

/// The outputs whose tap `k` lies inside the input: first, and one after the last.
fn inside(axis: &Axis, k: usize) -> (usize, usize) {
    let at = k * axis.dilation;
    let first = axis.pad_begin.saturating_sub(at).div_ceil(axis.stride);
    let end = (axis.input + axis.pad_begin).saturating_sub(at).div_ceil(axis.stride);
    (first, end.min(axis.output))
}
