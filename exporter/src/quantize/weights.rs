//! Weights to int8 with a scale a channel, biases to int32 with the exact product of scales.

use kd_runtime::graph::Tensor;

use super::scheme;

/// Products of one sum that surely fit an i32 beside a bias: `depth · 255 · 127 ≤ 2^30`.
pub const MOST_DEPTH: usize = (1 << 30) / (255 * 127);
/// Largest bias, so that sums fit an i32 beside it.
const MOST_BIAS: f64 = (1_i64 << 30) as f64;

/// A weight in int8.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// As the float weight.
    pub values: Tensor,
    /// One a channel.
    pub scales: Vec<f32>,
}

/// Quantizes a float weight whose channels lie along `axis`: `scale = max |w| / 127` a channel; a channel of zeros takes
/// that of the largest channel. Where `bias / (input_scale · scale)` would leave 2^30 the channel's scale is raised.
pub fn quantize(weight: &Tensor, axis: usize, input_scale: f32, bias: Option<&[f32]>) -> Weights {
    let shape = weight.shape();
    let channels = shape.get(axis).copied().unwrap_or(1);
    let inner: usize = shape[axis + 1..].iter().product();
    let floats = weight.get::<f32>().unwrap_or(&[]);
    let channel = |i: usize| i / inner.max(1) % channels.max(1);
    let mut largest = vec![0.0_f32; channels];
    for (i, w) in floats.iter().enumerate() {
        let slot = &mut largest[channel(i)];
        *slot = slot.max(w.abs());
    }
    let of_layer = largest.iter().copied().fold(0.0, f32::max);
    let of_layer = if of_layer > 0.0 { of_layer } else { 1.0 };
    let mut scales: Vec<f32> = (largest.iter())
        .map(|&m| if m / 127.0 >= f32::MIN_POSITIVE { m / 127.0 } else { (of_layer / 127.0).max(f32::MIN_POSITIVE) })
        .collect();
    for (scale, &b) in scales.iter_mut().zip(bias.unwrap_or(&[])) {
        let least = f64::from(b.abs()) / (f64::from(input_scale) * MOST_BIAS);
        if f64::from(*scale) < least {
            *scale = least as f32;
        }
    }
    let values: Vec<i8> = floats.iter().enumerate().map(|(i, &w)| scheme::weight(w, scales[channel(i)])).collect();
    Weights { values: Tensor::from_vec(shape, values), scales }
}

/// The scales of a bias: `input_scale · scale` in f32, as integer kernels multiply them.
pub fn bias_scales(input_scale: f32, scales: &[f32]) -> Vec<f32> {
    scales.iter().map(|&scale| input_scale * scale).collect()
}

/// A bias in int32.
pub fn bias(bias: &[f32], scales: &[f32]) -> Vec<i32> {
    let one = |(&b, &scale): (&f32, &f32)| {
        let q = (f64::from(b) / f64::from(scale)).clamp(-MOST_BIAS, MOST_BIAS);
        // f64 holds the quotient; half to even by hand, since `round_ties_even` is of f32.
        let whole = q.floor();
        let up = q - whole > 0.5 || (q - whole == 0.5 && whole % 2.0 != 0.0);
        (whole + if up { 1.0 } else { 0.0 }) as i32
    };
    bias.iter().zip(scales).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_uses_its_whole_range() {
        let w = Tensor::from_vec(&[2, 3], vec![1.0_f32, -0.5, 0.25, 0.02, 0.0, -0.0101]);
        let rows = quantize(&w, 0, 1.0, None);
        assert_eq!(rows.values.get::<i8>().unwrap(), [127, -64, 32, 127, 0, -64]);
        assert_eq!(rows.scales, [1.0 / 127.0, 0.02 / 127.0]);
        let columns = quantize(&w, 1, 1.0, None);
        assert_eq!(columns.scales, [1.0 / 127.0, 0.5 / 127.0, 0.25 / 127.0]);
    }

    #[test]
    fn channels_of_zeros_and_biases_that_would_overflow_have_scales_that_work() {
        let w = Tensor::from_vec(&[3, 1], vec![0.0_f32, 2.0, 1e-20]);
        let found = quantize(&w, 0, 1e-3, Some(&[1.0, 1.0, 5.0]));
        assert_eq!(found.scales[0], 2.0 / 127.0);
        let scales = bias_scales(1e-3, &found.scales);
        let biases = bias(&[1.0, 1.0, 5.0], &scales);
        for ((&b, &s), real) in biases.iter().zip(&scales).zip([1.0_f64, 1.0, 5.0]) {
            assert!((f64::from(b) * f64::from(s) - real).abs() < 1e-4 * real, "{b} * {s}");
        }
    }
}
