//! TensorBoard event files: a record for each epoch of a network, in a folder of its own.
//!
//! A file is records of `length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data`, little-endian; data
//! are `Event` messages of TensorFlow's `event.proto`, of which scalars need five fields. A start of a run begins new
//! files: TensorBoard joins them, and drops of the older ones the epochs that a kill undid.
//!
//! An own writer, since no crate for these files is kept up: tensorboard-rs, tfrecord and syntaxdot-summary were last released
//! in 2022 and 2023 and add 10 to 32 crates (`docs/architecture.md`).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fit::Epoch;

/// An event file that is being written.
pub struct Events {
    file: File,
}

impl Events {
    /// Makes a file under a new name in a folder, which is made if it is not there, for the epochs from `first` (from 1) on.
    pub fn create(folder: &Path, first: u64) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (now, process) = (since_1970(), std::process::id());
        let mut number = 0;
        let file = loop {
            let path = folder.join(format!("events.out.tfevents.{:010}.kd-train.{process}.{number}", now.as_secs()));
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                opened => break opened?,
            }
        };
        let mut events = Self { file };
        let mut event = Vec::new();
        double(&mut event, 1, now.as_secs_f64());
        bytes(&mut event, 3, b"brain.Event:2");
        events.file.write_all(&[record(&event), record(&start(now.as_secs_f64(), first))].concat())?;
        Ok(events)
    }

    /// Writes the scalars of an epoch, all of them or, where a kill comes first, a record that readers drop.
    pub fn write(&mut self, epoch: &Epoch, samples_per_second: f64) -> Result<()> {
        let scalars = scalars(epoch, samples_per_second);
        self.file.write_all(&record(&event(since_1970().as_secs_f64(), epoch.epoch as u64, &scalars)))
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What is shown of an epoch, by tag.
fn scalars(epoch: &Epoch, samples_per_second: f64) -> Vec<(String, f64)> {
    let terms = epoch.terms.iter().map(|(name, value)| (format!("term/{name}"), *value));
    let gradients = epoch.gradients.iter().map(|(name, norm)| (format!("gradient_norm/{name}"), *norm));
    let always = [
        ("loss/train", Some(epoch.loss)),
        ("loss/validation", epoch.validation_loss),
        ("accuracy/train", Some(epoch.train_accuracy)),
        ("accuracy/validation", epoch.validation_accuracy),
        ("learning_rate", Some(epoch.lr)),
        ("samples_per_second", Some(samples_per_second)),
        ("data_wait_share", Some(epoch.data_wait_share)),
    ];
    let always = always.into_iter().filter_map(|(tag, value)| Some((tag.to_string(), value?)));
    always.chain(terms).chain(gradients).collect()
}

/// An `Event` with a `Summary` of scalars.
fn event(wall_time_s: f64, step: u64, scalars: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut one = Vec::new();
        bytes(&mut one, 1, tag.as_bytes());
        // Field 2, four bytes: `simple_value`.
        one.push(2 << 3 | 5);
        one.extend_from_slice(&(*value as f32).to_le_bytes());
        bytes(&mut summary, 1, &one);
    }
    let mut event = Vec::new();
    double(&mut event, 1, wall_time_s);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

/// An `Event` with a `SessionLog` of a start: what files before hold of this step and later ones is void.
fn start(wall_time_s: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, wall_time_s);
    event.push(2 << 3);
    varint(&mut event, step);
    // Field 1, `status`: `START`.
    bytes(&mut event, 7, &[1 << 3, 1]);
    event
}

/// A field of eight bytes.
fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of a length and so many bytes.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Data between its length and its checks.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// The CRC-32C of bytes, turned so that a record of records does not look like one.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli), bit by bit: an epoch is a few hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_those_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        let cases: [(&[u8], u32); 4] = [
            (&[0; 32], 0x8a91_36aa),
            (&[255; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
        ];
        for (data, expected) in cases {
            assert_eq!(crc32c(data), expected, "{data:?}");
        }
    }
    #[test]
    fn a_record_is_byte_for_byte_what_tensorboard_writes() {
        // By RecordWriter of tensorboard 2.21.0 of the Event with wall_time 1.5, step 300 and these scalars.
        let expected = "31000000000000009d8383e909000000000000f83f10ac022a230a110a0a6c6f73732f747261696e150000803e\
                        0a0e0a077465726d2f636515000040c0bcd303b7";
        let scalars = [("loss/train".to_string(), 0.25), ("term/ce".to_string(), -3.0)];
        let found: String = record(&event(1.5, 300, &scalars)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected);
        // The fields of event.proto: wall_time, step, session_log { status: START }.
        let found: String = start(1.5, 300).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, "09000000000000f83f10ac023a020801");
    }

    #[test]
    fn every_start_has_a_file_of_its_own_with_whole_records() {
        let folder = std::env::temp_dir().join(format!("kd-tensorboard-{}", std::process::id()));
        let epoch = Epoch {
            epoch: 1,
            loss: 0.7,
            terms: vec![("ce".into(), 0.7)],
            train_accuracy: 0.5,
            validation_accuracy: None,
            validation_loss: None,
            lr_factor: 1.0,
            data_wait_share: 0.0,
            lr: 0.1,
            gradients: vec![("ce".into(), 2.0)],
            stale_steps: Vec::new(),
        };
        let names: Vec<String> = scalars(&epoch, 9.0).into_iter().map(|(tag, _)| tag).collect();
        #[rustfmt::skip]
        let expected = [
            "loss/train", "accuracy/train", "learning_rate", "samples_per_second", "data_wait_share", "term/ce",
            "gradient_norm/ce",
        ];
        assert_eq!(names, expected);
        for starts in 1..=2 {
            let mut events = Events::create(&folder, 1).expect("a file");
            events.write(&epoch, 9.0).expect("an epoch");
            events.write(&epoch, 9.0).expect("another");
            let files: Vec<_> =
                fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
            assert_eq!(files.len(), starts);
            for file in files {
                let bytes = fs::read(file).expect("bytes");
                let (mut at, mut records) = (0, 0);
                while at < bytes.len() {
                    let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize;
                    let data = &bytes[at + 12..at + 12 + length];
                    assert_eq!(record(data), bytes[at..at + 16 + length]);
                    (at, records) = (at + 16 + length, records + 1);
                }
                assert_eq!(records, 4, "the version, the start and two epochs");
            }
        }
        fs::remove_dir_all(&folder).expect("removed");
    }
}
