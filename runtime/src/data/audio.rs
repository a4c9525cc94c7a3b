//! From a recording to a picture of its sound: log-mel energies or their cepstrum (MFCC), part of a contract, so that a
//! device computes what training saw.
//!
//! Per frame: window, Fourier transform, magnitude or power, triangular bands on the mel scale, logarithm, and for MFCC a
//! cosine transform of the bands. Computed in f64, with functions of `libm`: the same
//! bits on every machine.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::reading::refuse;
use crate::error::Result;

/// How sound becomes features. Lengths are in samples of the recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioReading {
    /// Of every recording; none is resampled.
    pub sample_rate_hz: usize,
    /// Length that a recording is cut to, or filled up to with silence at its end.
    pub clip_samples: usize,
    /// Whether a recording is divided by its largest value first.
    pub peak_normalized: bool,
    /// Of a frame: a periodic Hann window.
    pub window_samples: usize,
    /// From frame to frame; the first one begins at 0, and only whole ones count.
    pub hop_samples: usize,
    /// Of the Fourier transform: a power of two, not below the window, which zeros follow.
    pub fft_samples: usize,
    /// What is summed in bands.
    pub spectrum: Spectrum,
    /// Bands, evenly apart on the mel scale `2595 log10(1 + f / 700)`.
    pub mels: usize,
    /// Where the lowest band begins.
    pub min_hz: f64,
    /// Where the highest band ends.
    pub max_hz: f64,
    /// On which scale the sides of a band are straight.
    pub slope: Slope,
    /// Added to a band's sum before the natural logarithm.
    pub log_offset: f64,
    /// Coefficients that are kept of the cosine transform; 0: the bands themselves.
    pub coefficients: usize,
    /// Scale of the cosine transform.
    pub dct: Dct,
    /// Where the frames lie in a sample.
    pub frames: Frames,
}

/// What is summed in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spectrum {
    /// `|X|`
    Magnitude,
    /// `|X|²`
    Power,
}

/// On which scale the sides of a band are straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slope {
    /// Frequency, as librosa's and torchaudio's.
    Hz,
    /// Mel, as TensorFlow's, which also leaves the constant part out.
    Mel,
}

/// Scale of the cosine transform (type II).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dct {
    /// Orthonormal: `sqrt(2 / n)`, the first coefficient `sqrt(1 / n)`.
    Orthonormal,
    /// All coefficients `sqrt(2 / n)`, as HTK's and TensorFlow's.
    Htk,
}

/// Where the frames lie in a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// `[1, frames, features]`: a picture.
    Rows,
    /// `[features, frames]`: a series of as many channels.
    Steps,
}

/// Bounds of all lengths: a minute at 48 kHz and more.
const MOST_SAMPLES: usize = 1 << 22;
const MOST_FFT: usize = 1 << 16;
const MOST_MELS: usize = 1024;

impl AudioReading {
    /// That of MLPerf Tiny's keyword spotting (`benchmark/training/keyword_spotting`): 49 frames of 10 MFCC of one second
    /// at 16 kHz.
    pub fn mlperf_tiny() -> Self {
        Self {
            sample_rate_hz: 16_000,
            clip_samples: 16_000,
            peak_normalized: true,
            window_samples: 480,
            hop_samples: 320,
            fft_samples: 512,
            spectrum: Spectrum::Magnitude,
            mels: 40,
            min_hz: 20.0,
            max_hz: 4000.0,
            slope: Slope::Mel,
            log_offset: 1e-6,
            coefficients: 10,
            dct: Dct::Htk,
            frames: Frames::Rows,
        }
    }

    /// Frames of a recording.
    pub fn frame_count(&self) -> usize {
        1 + self.clip_samples.saturating_sub(self.window_samples) / self.hop_samples.max(1)
    }

    /// Numbers of a frame.
    pub fn feature_count(&self) -> usize {
        if self.coefficients == 0 { self.mels } else { self.coefficients }
    }

    /// Shape and layout of a sample.
    pub fn sample_shape(&self) -> (Vec<usize>, &'static str) {
        match self.frames {
            Frames::Rows => (vec![1, self.frame_count(), self.feature_count()], "CHW"),
            Frames::Steps => (vec![self.feature_count(), self.frame_count()], "CT"),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let half = self.sample_rate_hz as f64 / 2.0;
        let counts = [
            ("sample_rate_hz", self.sample_rate_hz, 1, 1 << 20),
            ("clip_samples", self.clip_samples, 1, MOST_SAMPLES),
            ("window_samples", self.window_samples, 1, self.clip_samples),
            ("hop_samples", self.hop_samples, 1, MOST_SAMPLES),
            ("fft_samples", self.fft_samples, self.window_samples, MOST_FFT),
            ("mels", self.mels, 1, MOST_MELS),
            ("coefficients", self.coefficients, 0, self.mels),
        ];
        for (key, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                return refuse(key, format_args!("{least} to {most}"), value);
            }
        }
        if !self.fft_samples.is_power_of_two() {
            return refuse("fft_samples", "a power of two", self.fft_samples);
        }
        if !(self.min_hz >= 0.0 && self.min_hz < self.max_hz) {
            return refuse("min_hz", format_args!("0 to below max_hz, {}", self.max_hz), self.min_hz);
        }
        if self.max_hz.is_nan() || self.max_hz > half {
            return refuse("max_hz", format_args!("at most {half}, half of sample_rate_hz"), self.max_hz);
        }
        if !(self.log_offset > 0.0 && self.log_offset.is_finite()) {
            return refuse("log_offset", "a finite number above 0, since silence has no logarithm", self.log_offset);
        }
        Ok(())
    }
}

fn mel(hz: f64) -> f64 {
    2595.0 * libm::log10(1.0 + hz / 700.0)
}

fn hz(mel: f64) -> f64 {
    700.0 * (libm::pow(10.0, mel / 2595.0) - 1.0)
}

/// The tables of a front end, and its buffers.
pub(super) struct FrontEnd {
    reading: AudioReading,
    window: Vec<f64>,
    fft: Fft,
    /// Of each band: its first bin, and the weights from there on.
    bands: Vec<(usize, Vec<f64>)>,
    /// `coefficients` rows of `mels` factors.
    dct: Vec<f64>,
    re: Vec<f64>,
    im: Vec<f64>,
    logs: Vec<f64>,
    frame: Vec<f32>,
}

impl FrontEnd {
    /// For a reading that was checked.
    pub(super) fn new(reading: &AudioReading) -> Self {
        let window = (0..reading.window_samples).map(|i| {
            let turn = i as f64 / reading.window_samples as f64;
            0.5 - 0.5 * libm::cos(2.0 * PI * turn)
        });
        let n = reading.mels as f64;
        let dct = (0..reading.coefficients).flat_map(|k| {
            let scale = if k == 0 && reading.dct == Dct::Orthonormal { 1.0 / n } else { 2.0 / n };
            let angle = move |m: usize| PI * k as f64 * (m as f64 + 0.5) / n;
            (0..reading.mels).map(move |m| scale.sqrt() * libm::cos(angle(m)))
        });
        Self {
            window: window.collect(),
            fft: Fft::new(reading.fft_samples),
            bands: bands(reading),
            dct: dct.collect(),
            re: Vec::new(),
            im: Vec::new(),
            logs: Vec::new(),
            frame: Vec::new(),
            reading: reading.clone(),
        }
    }

    /// Features of a recording of any length, its values -1 to 1, in the order of [`AudioReading::sample_shape`].
    pub(super) fn run(&mut self, recording: &[f32], values: &mut Vec<f32>) {
        let (frames, features) = (self.reading.frame_count(), self.reading.feature_count());
        let recording = &recording[..recording.len().min(self.reading.clip_samples)];
        let peak =
            if self.reading.peak_normalized { recording.iter().fold(0.0, |peak: f32, &v| peak.max(v)) } else { 1.0 };
        let gain = if peak > 0.0 { 1.0 / f64::from(peak) } else { 1.0 };
        values.clear();
        values.resize(frames * features, 0.0);
        for i in 0..frames {
            let start = (i * self.reading.hop_samples).min(recording.len());
            self.features(&recording[start..], gain);
            for (k, &value) in self.frame.iter().enumerate() {
                let place = if self.reading.frames == Frames::Rows { i * features + k } else { k * frames + i };
                values[place] = value;
            }
        }
    }

    /// Features of the frame at the start of `samples`, silence behind it, into `frame`.
    fn features(&mut self, samples: &[f32], gain: f64) {
        let Self { reading, window, fft, bands, dct, re, im, logs, frame } = self;
        re.clear();
        re.extend(samples.iter().zip(&*window).map(|(&sample, weight)| f64::from(sample) * gain * weight));
        re.resize(reading.fft_samples, 0.0);
        im.clear();
        im.resize(reading.fft_samples, 0.0);
        fft.run(re, im);
        let bins = reading.fft_samples / 2 + 1;
        for (re, im) in re.iter_mut().zip(&*im).take(bins) {
            let power = *re * *re + im * im;
            *re = if reading.spectrum == Spectrum::Power { power } else { power.sqrt() };
        }
        logs.clear();
        logs.extend(bands.iter().map(|(first, weights)| {
            let sum: f64 = re[*first..].iter().zip(weights).map(|(value, weight)| value * weight).sum();
            libm::log(sum + reading.log_offset)
        }));
        frame.clear();
        match reading.coefficients {
            0 => frame.extend(logs.iter().map(|&log| log as f32)),
            _ => frame.extend(
                dct.chunks_exact(reading.mels)
                    .map(|row| row.iter().zip(&*logs).map(|(factor, log)| factor * log).sum::<f64>() as f32),
            ),
        }
    }
}

/// Triangles whose corners are evenly apart in mel; each begins and ends at the middle of its neighbors.
fn bands(reading: &AudioReading) -> Vec<(usize, Vec<f64>)> {
    let (low, high) = (mel(reading.min_hz), mel(reading.max_hz));
    let step = (high - low) / (reading.mels as f64 + 1.0);
    let scale: fn(f64) -> f64 = if reading.slope == Slope::Mel { |hz| mel(hz) } else { |hz| hz };
    let corner = |i: usize| scale(hz(low + step * i as f64));
    let bins = reading.fft_samples / 2 + 1;
    let places: Vec<f64> =
        (0..bins).map(|bin| scale(bin as f64 * reading.sample_rate_hz as f64 / reading.fft_samples as f64)).collect();
    let constant = usize::from(reading.slope == Slope::Mel);
    (0..reading.mels)
        .map(|band| {
            let (left, middle, right) = (corner(band), corner(band + 1), corner(band + 2));
            let weight =
                |place: f64| ((place - left) / (middle - left)).min((right - place) / (right - middle)).max(0.0);
            let first = (constant..bins).find(|&bin| weight(places[bin]) > 0.0).unwrap_or(bins);
            let weights = places[first..].iter().map(|&place| weight(place));
            (first, weights.take_while(|&weight| weight > 0.0).collect())
        })
        .collect()
}

/// A complex Fourier transform of a power of two: decimation in time, in place.
struct Fft {
    /// `cos` and `-sin` of each part of half a turn.
    turns: Vec<(f64, f64)>,
}

impl Fft {
    fn new(n: usize) -> Self {
        let angle = |k: usize| 2.0 * PI * k as f64 / n as f64;
        Self { turns: (0..n / 2).map(|k| (libm::cos(angle(k)), -libm::sin(angle(k)))).collect() }
    }

    fn run(&self, re: &mut [f64], im: &mut [f64]) {
        let n = re.len();
        let shift = usize::BITS - n.trailing_zeros();
        for i in 0..n {
            let j = i.reverse_bits().checked_shr(shift).unwrap_or(0);
            if i < j {
                re.swap(i, j);
                im.swap(i, j);
            }
        }
        let mut half = 1;
        while half < n {
            for block in (0..n).step_by(2 * half) {
                for k in 0..half {
                    let (cos, sin) = self.turns[k * (n / 2 / half)];
                    let (a, b) = (block + k, block + k + half);
                    let (x, y) = (re[b] * cos - im[b] * sin, re[b] * sin + im[b] * cos);
                    (re[b], im[b]) = (re[a] - x, im[a] - y);
                    (re[a], im[a]) = (re[a] + x, im[a] + y);
                }
            }
            half *= 2;
        }
    }
}
