//! What changes colors of an image in place: shared by `color_jitter` and `rand_augment`.

/// Gray of a pixel: ITU-R BT.601, with the digits that torchvision and PIL's `L` round to.
const GRAY: [f32; 3] = [0.2989, 0.587, 0.114];

/// The gray image, rounded nowhere; of one channel the channel itself. Reuses `gray`.
pub(super) fn gray(raw: &[f32], channels: usize, gray: &mut Vec<f32>) {
    let n = raw.len() / channels.max(1);
    gray.clear();
    match channels {
        3 => gray.extend((0..n).map(|i| (0..3).map(|c| GRAY[c] * raw[c * n + i]).sum::<f32>())),
        _ => gray.extend_from_slice(&raw[..n]),
    }
}

/// Mean of values, summed in f64.
pub(super) fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64) as f32
}

/// `factor · value`, within 0 and `most`.
pub(super) fn brightness(raw: &mut [f32], factor: f32, most: f32) {
    raw.iter_mut().for_each(|value| *value = (factor * *value).clamp(0.0, most));
}

/// Away from (factor above 1) or towards the mean of the gray image, within 0 and `most`.
pub(super) fn contrast(raw: &mut [f32], channels: usize, factor: f32, most: f32, scratch: &mut Vec<f32>) {
    gray(raw, channels, scratch);
    let mean = mean(scratch);
    raw.iter_mut().for_each(|value| *value = blend(*value, mean, factor, most));
}

/// Away from (factor above 1) or towards the gray image, within 0 and `most`; nothing where there is one channel.
pub(super) fn saturation(raw: &mut [f32], channels: usize, factor: f32, most: f32, scratch: &mut Vec<f32>) {
    gray(raw, channels, scratch);
    for plane in raw.chunks_exact_mut(scratch.len().max(1)) {
        plane.iter_mut().zip(&*scratch).for_each(|(value, &gray)| *value = blend(*value, gray, factor, most));
    }
}

/// `other` at factor 0, `value` at 1, beyond it above 1; within 0 and `most`.
pub(super) fn blend(value: f32, other: f32, factor: f32, most: f32) -> f32 {
    // In this form factor 1 gives the value's own bits.
    (other * (1.0 - factor) + factor * value).clamp(0.0, most)
}
