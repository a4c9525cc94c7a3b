//! Recordings: `split/class/*.wav` as [`super::labelled`] finds them, turned into features as [`AudioReading`] says (that of
//! MLPerf Tiny's keyword spotting where nothing else is said). Files are RIFF WAVE of one channel: whole numbers of 8, 16,
//! 24 or 32 bits, or floats of 32.

use std::path::Path;

use super::audio::{AudioReading, FrontEnd};
use super::labelled::{Decode, Kind, Labelled, Place};
use super::{Dataset, Description, Reading, Sample};
use crate::error::{Refusal, Result};

const KIND: Kind = Kind { endings: &["wav"], class_in_name: true };

/// Opens a folder or tar and reads all recordings once.
pub(super) fn open(path: &Path, reading: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let audio = match reading {
        Some(Reading::Audio(audio)) => audio.clone(),
        _ => AudioReading::mlperf_tiny(),
    };
    let place = Place::open(path, &KIND, |_| Ok(()))?;
    let (shape, layout) = audio.sample_shape();
    let description = Description {
        shape,
        layout: layout.into(),
        classes: Vec::new(),
        raw_max: None,
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: Some(Reading::Audio(audio.clone())),
    };
    let made = audio.clone();
    let decode = move || -> Box<dyn Decode> { Box::new(Recordings::new(&made)) };
    Ok(Box::new(Labelled::open(place, description, Box::new(decode))?))
}

struct Recordings {
    front_end: FrontEnd,
    audio: AudioReading,
    recording: Vec<f32>,
}

impl Recordings {
    fn new(audio: &AudioReading) -> Self {
        Self { front_end: FrontEnd::new(audio), audio: audio.clone(), recording: Vec::new() }
    }
}

impl Decode for Recordings {
    fn decode(&mut self, bytes: &[u8], sample: &mut Sample) -> Result<()> {
        let rate = decode(bytes, self.audio.clip_samples, &mut self.recording)?;
        if rate != self.audio.sample_rate_hz {
            let expected = format!("{} Hz", self.audio.sample_rate_hz);
            return Err(Refusal::new("", expected, format!("{rate} Hz"), "resample it, or set sample_rate_hz"));
        }
        self.front_end.run(&self.recording, &mut sample.values);
        Ok(())
    }
}

/// The first `most` samples of a WAVE file, -1 to 1, into `recording`; its sample rate in Hz.
fn decode(bytes: &[u8], most: usize, recording: &mut Vec<f32>) -> Result<usize> {
    let refuse = |expected: &str, found: String| Refusal::new("", expected, found, "save it as 16-bit PCM, mono");
    let number = |bytes: &[u8], at: usize, n: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + n)?;
        Some(bytes.iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte)))
    };
    if !bytes.starts_with(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(refuse("a WAVE file", "other bytes".into()));
    }
    let (mut format, mut at) = (None, 12);
    // A chunk may say that it is longer than the file: recorders that are cut off leave such ones.
    while let (Some(name), Some(size)) = (bytes.get(at..at + 4), number(bytes, at + 4, 4)) {
        let body = &bytes[at + 8..];
        let body = &body[..size.min(body.len())];
        match name {
            b"fmt " => format = Some(body),
            b"data" => {
                let fields = |at, n| format.and_then(|format| number(format, at, n));
                let (Some(mut tag), Some(channels), Some(rate), Some(bits)) =
                    (fields(0, 2), fields(2, 2), fields(4, 4), fields(14, 2))
                else {
                    return Err(refuse("a chunk `fmt ` of 16 bytes before `data`", "none".into()));
                };
                // The extensible form says what it is in its last field.
                if tag == 0xfffe {
                    tag = fields(24, 2).unwrap_or(tag);
                }
                if channels != 1 {
                    return Err(refuse("1 channel", channels.to_string()));
                }
                let sample: fn(&[u8]) -> f32 = match (tag, bits) {
                    (1, 8) => |b| (f32::from(b[0]) - 128.0) / 128.0,
                    (1, 16) => |b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0,
                    (1, 24) => |b| i32::from_le_bytes([0, b[0], b[1], b[2]]) as f32 / 2_147_483_648.0,
                    (1, 32) => |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2_147_483_648.0,
                    (3, 32) => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                    _ => {
                        return Err(refuse(
                            "PCM of 8 to 32 bits or floats of 32",
                            format!("format {tag}, {bits} bits"),
                        ));
                    }
                };
                recording.clear();
                recording.extend(body.chunks_exact(bits / 8).take(most).map(sample));
                return match recording.iter().find(|value| !value.is_finite()) {
                    Some(value) => Err(refuse("finite numbers", value.to_string())),
                    None if recording.is_empty() => Err(refuse("at least one sample", "none".into())),
                    None => Ok(rate),
                };
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = at + 8 + body.len() + body.len() % 2;
    }
    Err(refuse("a chunk `data`", "none".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(format: &[u8], data: &[u8]) -> Vec<u8> {
        let chunk = |name: &[u8], body: &[u8]| [name, &(body.len() as u32).to_le_bytes(), body].concat();
        // A chunk of odd length, with its filler, comes before the others.
        let odd = [chunk(b"LIST", b"abc"), vec![0]].concat();
        [b"RIFF\0\0\0\0WAVE", &odd[..], &chunk(b"fmt ", format), &chunk(b"data", data)].concat()
    }

    fn format(tag: u16, channels: u16, bits: u16) -> Vec<u8> {
        let words = [tag, channels, 8000, 0, 0, 0, 2, bits];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn every_kind_of_sample_is_read() {
        let extensible = [format(0xfffe, 1, 16), vec![22, 0, 16, 0, 4, 0, 0, 0, 1, 0], vec![0; 14]].concat();
        #[rustfmt::skip]
        let cases = [
            (format(1, 1, 8),  vec![0, 128, 192],                         [-1.0, 0.0, 0.5]),
            (format(1, 1, 16), vec![0, 128, 0, 0, 0, 64],                 [-1.0, 0.0, 0.5]),
            (format(1, 1, 24), vec![0, 0, 128, 0, 0, 0, 0, 0, 64],        [-1.0, 0.0, 0.5]),
            (format(1, 1, 32), vec![0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 64], [-1.0, 0.0, 0.5]),
            (format(3, 1, 32), [-1.0_f32, 0.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect(), [-1.0, 0.0, 0.5]),
            (extensible,       vec![0, 128, 0, 0, 0, 64],                 [-1.0, 0.0, 0.5]),
        ];
        for (format, data, expected) in cases {
            let mut recording = Vec::new();
            assert_eq!(decode(&wave(&format, &data), 9, &mut recording), Ok(8000), "{format:?}");
            assert_eq!(recording, expected, "{format:?}");
            assert_eq!(decode(&wave(&format, &data), 2, &mut recording), Ok(8000));
            assert_eq!(recording, expected[..2], "cut");
        }
    }

    #[test]
    fn what_is_no_recording_is_refused_and_never_panics() {
        let good = wave(&format(1, 1, 16), &[1, 2, 3, 4]);
        #[rustfmt::skip]
        let cases = [
            (b"RIFX".to_vec(),                                 "expected a WAVE file"),
            (wave(&format(1, 2, 16), &[1, 2, 3, 4]),           "expected 1 channel, found 2"),
            (wave(&format(7, 1, 8), &[1]),                     "found format 7, 8 bits"),
            (wave(&format(1, 1, 16), &[]),                     "expected at least one sample"),
            (wave(&format(3, 1, 32), &[0, 0, 192, 127]),       "expected finite numbers"),
            (wave(&[1, 0], &[1, 2]),                           "expected a chunk `fmt ` of 16 bytes"),
            (good[..20].to_vec(),                              "expected a chunk `data`"),
        ];
        let mut recording = Vec::new();
        for (bytes, expected) in cases {
            let refused = decode(&bytes, 9, &mut recording).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&bytes, 9, &mut recording);
            let _ = decode(&bytes[..bit / 8], 9, &mut recording);
        }
    }
}
