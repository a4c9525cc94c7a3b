//! numpy's array format, one entry of a zip archive, from its start to its end.

use std::path::Path;

use super::stream::{Stream, quoted};
use super::zip::Entry;
use crate::error::{Refusal, Result};

/// Longest header that is read; numpy itself stops at 10,000 characters.
const HEADER_BYTES: usize = 1 << 16;

/// Types of elements that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    I64,
    F16,
    F32,
    F64,
}

/// numpy's names of them, with their bytes.
const ELEMENTS: [(&str, Element, usize); 11] = [
    ("|b1", Element::Bool, 1),
    ("|u1", Element::U8, 1),
    ("|i1", Element::I8, 1),
    ("<u2", Element::U16, 2),
    ("<i2", Element::I16, 2),
    ("<u4", Element::U32, 4),
    ("<i4", Element::I32, 4),
    ("<i8", Element::I64, 8),
    ("<f2", Element::F16, 2),
    ("<f4", Element::F32, 4),
    ("<f8", Element::F64, 8),
];

/// An array as a stream of elements in C order.
pub(super) struct Array {
    stream: Stream,
    element: Element,
    size: usize,
    shape: Vec<usize>,
    /// Elements that are left, as the header says.
    left: usize,
    /// Elements that were read.
    read: usize,
    bytes: Vec<u8>,
}

impl Array {
    /// Reads the header.
    pub(super) fn open(path: &Path, entry: &Entry) -> Result<Self> {
        let mut stream = entry.open(path)?;
        let at = stream.at().to_string();
        let refuse = |expected: &str, found: String| Refusal::new(&at, expected, found, "save it again with np.savez");
        let mut magic = [0; 8];
        let read = stream.fill(&mut magic)?;
        if read < magic.len() || !magic.starts_with(b"\x93NUMPY") {
            return Err(refuse("a numpy array", "other bytes".into()));
        }
        let mut length = [0; 4];
        let bytes = if magic[6] == 1 { &mut length[..2] } else { &mut length[..] };
        let whole = stream.fill(bytes)? == bytes.len();
        let n = u32::from_le_bytes(length) as usize;
        if !whole || !(1..=3).contains(&magic[6]) || n > HEADER_BYTES {
            return Err(refuse("a header of version 1 to 3", format!("version {}, {n} bytes", magic[6])));
        }
        let mut text = vec![0; n];
        if stream.fill(&mut text)? < n {
            return Err(refuse("a whole header", "one that ends too early".into()));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let Some((descr, fortran, shape)) = header(&text) else {
            return Err(refuse("a header with descr, fortran_order and shape", quoted(text.trim())));
        };
        let Some(&(_, element, size)) = ELEMENTS.iter().find(|(name, ..)| *name == descr) else {
            let names: Vec<&str> = ELEMENTS.iter().map(|(name, ..)| *name).collect();
            return Err(refuse(&format!("elements of one of {}", names.join(" ")), quoted(&descr)));
        };
        if fortran {
            return Err(refuse("an array in C order", "fortran_order".into()));
        }
        let elements = crate::graph::tensor::count(&shape).filter(|_| !shape.is_empty());
        let Some(left) = elements else {
            return Err(refuse("an array of at least one dimension", format!("{shape:?}")));
        };
        Ok(Self { stream, element, size, shape, left, read: 0, bytes: Vec::new() })
    }

    /// Its dimensions.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its elements.
    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// How messages name it.
    pub(super) fn at(&self) -> &str {
        self.stream.at()
    }

    /// Bytes of the next elements. The buffer grows with what is there, not with what was claimed.
    fn fill(&mut self, elements: usize) -> Result<()> {
        let wanted = elements.saturating_mul(self.size);
        self.bytes.clear();
        while self.bytes.len() < wanted {
            let before = self.bytes.len();
            self.bytes.resize(wanted.min(before + (1 << 20)), 0);
            let read = self.stream.fill(&mut self.bytes[before..])?;
            if before + read < self.bytes.len() {
                let expected = format!("{} elements, as the header says", self.left + self.read);
                let found = self.read + (before + read) / self.size;
                return Err(Refusal::new(self.at(), expected, found, "copy or save it again"));
            }
        }
        self.left -= elements;
        self.read += elements;
        Ok(())
    }

    /// The next `n` elements as floats into `values`; refuses what is not finite.
    pub(super) fn next_values(&mut self, n: usize, values: &mut Vec<f32>) -> Result<()> {
        self.fill(n.min(self.left))?;
        values.clear();
        let element = self.element;
        values.extend(self.bytes.chunks_exact(self.size).map(|bytes| float(element, bytes)));
        match values.iter().position(|value| !value.is_finite()) {
            Some(i) => {
                let at = format!("{}: element {}", self.at(), self.read - values.len() + i);
                Err(Refusal::new(at, "a finite number", values[i], "fill in missing values"))
            }
            None => Ok(()),
        }
    }

    /// The next element as a label; `None` after the last one, when nothing may follow.
    pub(super) fn next_label(&mut self) -> Result<Option<i64>> {
        let float = match self.element {
            Element::F16 => Some("float16"),
            Element::F32 => Some("float32"),
            Element::F64 => Some("float64"),
            _ => None,
        };
        if let Some(found) = float {
            let action = "save labels with .astype(np.int64)";
            return Err(Refusal::new(self.at(), "labels that are whole numbers", found, action));
        }
        if self.left == 0 {
            self.finish()?;
            return Ok(None);
        }
        self.fill(1)?;
        Ok(Some(integer(self.element, &self.bytes)))
    }

    /// Refuses bytes after the last element.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self.stream.skip_rest()? {
            0 if self.left == 0 => Ok(()),
            n => {
                let found = format!("{} elements left and {n} bytes after those read", self.left);
                Err(Refusal::new(self.at(), "an array as long as its header says", found, "copy or save it again"))
            }
        }
    }
}

/// A little-endian element as a float. Missing bytes count as zeros; there are none.
fn float(element: Element, bytes: &[u8]) -> f32 {
    match element {
        Element::F16 => half(word(bytes) as u16),
        Element::F32 => f32::from_bits(word(bytes) as u32),
        Element::F64 => f64::from_bits(word(bytes)) as f32,
        _ => integer(element, bytes) as f32,
    }
}

fn integer(element: Element, bytes: &[u8]) -> i64 {
    let word = word(bytes);
    match element {
        Element::I8 => i64::from(word as i8),
        Element::I16 => i64::from(word as i16),
        Element::I32 => i64::from(word as i32),
        _ => word as i64,
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * (-24.0_f32).exp2(),
        31 if bits & 1023 == 0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * (f32::from(exponent) - 25.0).exp2(),
    };
    if sign == 1 { -size } else { size }
}

/// `descr`, `fortran_order` and `shape` of a header, which is a Python dictionary.
fn header(text: &str) -> Option<(String, bool, Vec<usize>)> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
    let fortran = value("fortran_order")?.starts_with("True");
    let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok());
    Some((descr.to_string(), fortran, dims.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_those_of_the_standard() {
        // numpy.uint16 bits .view(numpy.float16).
        #[rustfmt::skip]
        let cases = [(0x0000, 0.0), (0x8001, -5.960_464_5e-8), (0x03ff, 6.097_555e-5), (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0xfc00, f32::NEG_INFINITY)];
        for (bits, expected) in cases {
            assert_eq!(half(bits), expected, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn headers_are_read_whatever_their_order_and_blanks() {
        let one = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 49, 10), }   \n";
        assert_eq!(header(one), Some(("<f4".into(), false, vec![3, 49, 10])));
        assert_eq!(header("{'shape':(5,),'fortran_order':True,'descr':'|u1'}"), Some(("|u1".into(), true, vec![5])));
        for bad in [
            "",
            "{}",
            "{'descr': [('a','<f4')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        ] {
            assert_eq!(header(bad), None, "{bad}");
        }
    }
}
