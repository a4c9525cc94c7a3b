//! Protobuf's wire format, as much as ONNX needs: a reader over borrowed bytes and a writer.
//!
//! The reader trusts nothing: a length is compared with the bytes that are left before anything is taken, nothing is
//! allocated, groups are refused, and no function calls itself: a message inside a message is handed out as bytes, and
//! how deep anyone looks is fixed by the messages that we know.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{Refusal, Result};

const DAMAGED: &str = "get the file again: it is damaged, truncated or no ONNX model";

/// A stretch of the file, and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Offset of the first one in the file.
    pub at: usize,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Integers, enums, booleans.
    Varint(u64),
    /// Doubles.
    Fixed64(u64),
    /// Text, bytes, messages, packed numbers.
    Bytes(Bytes<'a>),
    /// Floats.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Offset in the file of its tag.
    pub at: usize,
    /// What it holds.
    pub value: Value<'a>,
}

/// The fields of a message, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: Bytes<'a>,
}

/// A refusal at an offset of the file.
pub fn damaged(at: usize, expected: impl fmt::Display, found: impl fmt::Display) -> Refusal {
    Refusal::new(format!("byte {at}"), expected, found, DAMAGED)
}

impl<'a> Bytes<'a> {
    /// A whole file.
    pub fn whole(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Read as a message.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self }
    }

    /// Read as text.
    pub fn text(self) -> Result<&'a str> {
        core::str::from_utf8(self.data)
            .map_err(|e| damaged(self.at.saturating_add(e.valid_up_to()), "UTF-8 text", "other bytes"))
    }

    /// Takes `n` bytes off the front; `None` if there are fewer.
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.data.split_at_checked(n)?;
        *self = Self { data: rest, at: self.at.saturating_add(n) };
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (at, left) = (self.at, self.data.len());
        let taken = self.take(N).and_then(|bytes| bytes.try_into().ok());
        taken.ok_or_else(|| damaged(at, format!("{N} more bytes"), left))
    }

    /// Takes a varint off the front: at most ten bytes, at most 64 bits.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        let start = *self;
        for (i, &byte) in start.data.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * i);
            if byte < 0x80 {
                self.take(i + 1);
                return Ok(value);
            }
        }
        let found = if start.data.len() < 10 { "the end of the message inside one" } else { "a longer one" };
        Err(damaged(start.at, "a varint of at most 64 bits", found))
    }
}

impl<'a> Fields<'a> {
    /// The next field; `None` at the end of the message.
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>> {
        let rest = &mut self.rest;
        if rest.data.is_empty() {
            return Ok(None);
        }
        let at = rest.at;
        let tag = rest.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| damaged(at, "a field number of 1 to 2^29 - 1", tag >> 3))?;
        let value = match tag & 7 {
            0 => Value::Varint(rest.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(rest.array()?)),
            2 => {
                let claimed = rest.varint()?;
                let (at, left) = (rest.at, rest.data.len());
                let taken = usize::try_from(claimed).ok().and_then(|n| rest.take(n));
                let data = taken.ok_or_else(|| {
                    damaged(at, format!("a length of at most {left} (the bytes that are left)"), claimed)
                })?;
                Value::Bytes(Bytes { data, at })
            }
            5 => Value::Fixed32(u32::from_le_bytes(rest.array()?)),
            other => return Err(damaged(at, "wire type 0, 1, 2 or 5", other)),
        };
        Ok(Some(Field { number, at, value }))
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, expected: &str) -> Refusal {
        let found = match self.value {
            Value::Varint(_) => "a varint",
            Value::Fixed64(_) => "8 bytes",
            Value::Bytes(_) => "a length and bytes",
            Value::Fixed32(_) => "4 bytes",
        };
        damaged(self.at, format!("{expected} in field {}", self.number), found)
    }

    /// A message or a string of bytes.
    pub fn bytes(&self) -> Result<Bytes<'a>> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong("a length and bytes")),
        }
    }

    /// Text.
    pub fn text(&self) -> Result<&'a str> {
        self.bytes()?.text()
    }

    /// An integer (int64, int32, enum).
    pub fn int(&self) -> Result<i64> {
        match self.value {
            Value::Varint(v) => Ok(v.cast_signed()),
            _ => Err(self.wrong("a varint")),
        }
    }

    /// A float.
    pub fn float(&self) -> Result<f32> {
        match self.value {
            Value::Fixed32(v) => Ok(f32::from_bits(v)),
            _ => Err(self.wrong("4 bytes")),
        }
    }

    /// How many integers a repeated field holds here: packed, or one.
    pub fn count_ints(&self) -> Result<usize> {
        match self.value {
            Value::Varint(_) => Ok(1),
            Value::Bytes(packed) => Ok(packed.data.iter().filter(|&&byte| byte < 0x80).count()),
            _ => Err(self.wrong("packed varints")),
        }
    }

    /// Hands each integer of a repeated field to `f`: packed, or one.
    pub fn each_int(&self, mut f: impl FnMut(i64) -> Result<()>) -> Result<()> {
        match self.value {
            Value::Varint(v) => f(v.cast_signed()),
            Value::Bytes(mut packed) => {
                while !packed.data.is_empty() {
                    f(packed.varint()?.cast_signed())?;
                }
                Ok(())
            }
            _ => Err(self.wrong("packed varints")),
        }
    }

    /// The floats of a repeated field: packed, or one.
    pub fn each_float(&self, mut f: impl FnMut(f32) -> Result<()>) -> Result<()> {
        match self.value {
            Value::Fixed32(v) => f(f32::from_bits(v)),
            Value::Bytes(packed) if packed.data.len().is_multiple_of(4) => {
                packed.data.as_chunks().0.iter().try_for_each(|&v| f(f32::from_le_bytes(v)))
            }
            _ => Err(self.wrong("packed floats")),
        }
    }

    /// The doubles of a repeated field: packed, or one.
    pub fn each_double(&self, mut f: impl FnMut(f64) -> Result<()>) -> Result<()> {
        match self.value {
            Value::Fixed64(v) => f(f64::from_bits(v)),
            Value::Bytes(packed) if packed.data.len().is_multiple_of(8) => {
                packed.data.as_chunks().0.iter().try_for_each(|&v| f(f64::from_le_bytes(v)))
            }
            _ => Err(self.wrong("packed doubles")),
        }
    }

    /// How many numbers of `size` bytes a repeated field holds here.
    pub fn count_fixed(&self, size: usize) -> Result<usize> {
        match self.value {
            Value::Bytes(packed) if packed.data.len().is_multiple_of(size) => Ok(packed.data.len() / size),
            Value::Fixed32(_) if size == 4 => Ok(1),
            Value::Fixed64(_) if size == 8 => Ok(1),
            _ => Err(self.wrong("packed numbers")),
        }
    }
}

/// Writes fields one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn tag(&mut self, number: u32, wire_type: u64) {
        self.varint(u64::from(number) << 3 | wire_type);
    }

    /// An integer (int64, int32, enum).
    pub fn int(&mut self, number: u32, value: i64) {
        self.tag(number, 0);
        self.varint(value.cast_unsigned());
    }

    /// A float.
    pub fn float(&mut self, number: u32, value: f32) {
        self.tag(number, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes or text.
    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.tag(number, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message.
    pub fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.bytes);
    }
}
