//! A tensor of the file becomes one of ours: typed fields and raw bytes; f16, bf16 and f64 become f32.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::messages::{TensorProto, element_type, field::tensor as f, type_name};
use super::wire::Bytes;
use crate::error::{Refusal, Result};
use crate::graph::infer::MOST_ELEMENTS;
use crate::graph::tensor::count;
use crate::graph::{Data, ElementType, Tensor};

const REPAIR: &str = "repair the model or export it again";

/// A tensor that was read.
#[derive(Debug)]
pub struct Read {
    /// The tensor.
    pub tensor: Tensor,
    /// The element type in the file, where it had to be converted to f32.
    pub converted: Option<&'static str>,
}

/// Reads a serialized `TensorProto`: its name and the tensor.
pub fn read_tensor(bytes: &[u8]) -> Result<(String, Tensor)> {
    let proto = TensorProto::read(Bytes::whole(bytes))?;
    let read = decode(&proto, &format!("tensor `{}`", proto.name))?;
    Ok((proto.name.to_string(), read.tensor))
}

/// How the elements of a type are kept in a file.
#[derive(Clone, Copy)]
enum Stored {
    F32,
    F64,
    F16,
    Bf16,
    I64,
    /// The rest, all of which may lie in `int32_data`.
    Ours(ElementType),
}

impl Stored {
    fn of(code: i64) -> Option<Self> {
        Some(match code {
            10 => Self::F16,
            11 => Self::F64,
            16 => Self::Bf16,
            _ => match element_type(code)? {
                ElementType::F32 => Self::F32,
                ElementType::I64 => Self::I64,
                other => Self::Ours(other),
            },
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Ours(element) => element.bytes(),
        }
    }

    /// The typed field that holds it.
    fn field(self) -> u32 {
        match self {
            Self::F32 => f::FLOAT_DATA,
            Self::F64 => f::DOUBLE_DATA,
            Self::I64 => f::INT64_DATA,
            Self::F16 | Self::Bf16 | Self::Ours(_) => f::INT32_DATA,
        }
    }
}

/// Decodes the elements. `place` names the tensor in a refusal. Nothing is allocated before the number of elements
/// that the dimensions claim has been compared with what the file holds.
pub fn decode(proto: &TensorProto<'_>, place: &str) -> Result<Read> {
    let refuse = |expected: &str, found: &str, action: &str| Err(Refusal::new(place, expected, found, action));
    if let Some(location) = proto.external {
        let found = format!("external data in `{location}`");
        return refuse("elements inside the model file", &found, "save the model as one file");
    }
    if proto.is_segment {
        return refuse("a whole tensor", "a segment of one", REPAIR);
    }
    let Some(stored) = Stored::of(proto.data_type) else {
        let known = "elements of f32, u8, i8, i32, i64, bool, f16, bf16 or f64";
        return refuse(known, type_name(proto.data_type), "convert the model to one of these types");
    };
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let claimed = shape.as_deref().and_then(count).filter(|&n| n <= MOST_ELEMENTS);
    let (Some(shape), Some(claimed)) = (shape, claimed) else {
        let found = format!("{:?}", proto.dims);
        return refuse("dimensions of at least 0 whose product is at most 2^31", &found, REPAIR);
    };
    let held = held(proto, stored, place)?;
    if held != claimed {
        let expected = format!("{claimed} elements for shape {shape:?}");
        return refuse(&expected, &held.to_string(), REPAIR);
    }
    let data = match proto.raw_data {
        Some(raw) => from_raw(stored, raw.data, place)?,
        None => from_fields(proto, stored, claimed, place)?,
    };
    let converted = match stored {
        Stored::F16 | Stored::Bf16 | Stored::F64 => Some(type_name(proto.data_type)),
        _ => None,
    };
    let Some(tensor) = Tensor::new(shape, data) else {
        return refuse("as many elements as the shape says", "another number", REPAIR);
    };
    Ok(Read { tensor, converted })
}

/// How many elements the file holds for a tensor.
fn held(proto: &TensorProto<'_>, stored: Stored, place: &str) -> Result<usize> {
    if let Some(raw) = proto.raw_data {
        let (n, bytes) = (raw.data.len(), stored.bytes());
        if !n.is_multiple_of(bytes) {
            let expected = format!("a multiple of {bytes} bytes of {}", type_name(proto.data_type));
            return Err(Refusal::new(place, expected, n, REPAIR));
        }
        return Ok(n / bytes);
    }
    let mut held = 0_usize;
    proto.each(stored.field(), |field| {
        let here = match stored {
            Stored::F32 => field.count_fixed(4)?,
            Stored::F64 => field.count_fixed(8)?,
            _ => field.count_ints()?,
        };
        held = held.saturating_add(here);
        Ok(())
    })?;
    Ok(held)
}

fn from_raw(stored: Stored, raw: &[u8], place: &str) -> Result<Data> {
    let halves = || raw.as_chunks().0.iter().map(|&v| u16::from_le_bytes(v));
    Ok(match stored {
        Stored::F32 => Data::F32(raw.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v)).collect()),
        Stored::I64 => Data::I64(raw.as_chunks().0.iter().map(|&v| i64::from_le_bytes(v)).collect()),
        Stored::F16 => Data::F32(halves().map(f16_to_f32).collect()),
        Stored::Bf16 => Data::F32(halves().map(bf16_to_f32).collect()),
        Stored::F64 => {
            let values = raw.as_chunks().0.iter().map(|&v| f64_to_f32(f64::from_le_bytes(v), place));
            Data::F32(values.collect::<Result<_>>()?)
        }
        Stored::Ours(ElementType::U8) => Data::U8(raw.to_vec()),
        Stored::Ours(ElementType::I8) => Data::I8(raw.iter().map(|v| v.cast_signed()).collect()),
        Stored::Ours(ElementType::Bool) => {
            Data::Bool(raw.iter().map(|&v| to_bool(i64::from(v), place)).collect::<Result<_>>()?)
        }
        Stored::Ours(_) => Data::I32(raw.as_chunks().0.iter().map(|&v| i32::from_le_bytes(v)).collect()),
    })
}

fn from_fields(proto: &TensorProto<'_>, stored: Stored, n: usize, place: &str) -> Result<Data> {
    let number = stored.field();
    Ok(match stored {
        Stored::F32 => {
            let mut values = Vec::with_capacity(n);
            proto.each(number, |field| {
                field.each_float(|v| {
                    values.push(v);
                    Ok(())
                })
            })?;
            Data::F32(values)
        }
        Stored::F64 => {
            let mut values = Vec::with_capacity(n);
            proto.each(number, |field| {
                field.each_double(|v| {
                    values.push(f64_to_f32(v, place)?);
                    Ok(())
                })
            })?;
            Data::F32(values)
        }
        Stored::I64 => Data::I64(ints(proto, number, n, Ok)?),
        Stored::F16 => Data::F32(ints(proto, number, n, |v| Ok(f16_to_f32(within("f16 bits", v, place)?)))?),
        Stored::Bf16 => Data::F32(ints(proto, number, n, |v| Ok(bf16_to_f32(within("bf16 bits", v, place)?)))?),
        Stored::Ours(ElementType::U8) => Data::U8(ints(proto, number, n, |v| within("u8", v, place))?),
        Stored::Ours(ElementType::I8) => Data::I8(ints(proto, number, n, |v| within("i8", v, place))?),
        Stored::Ours(ElementType::Bool) => Data::Bool(ints(proto, number, n, |v| to_bool(v, place))?),
        Stored::Ours(_) => Data::I32(ints(proto, number, n, |v| within("i32", v, place))?),
    })
}

fn ints<T>(proto: &TensorProto<'_>, number: u32, n: usize, convert: impl Fn(i64) -> Result<T>) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(n);
    proto.each(number, |field| {
        field.each_int(|v| {
            values.push(convert(v)?);
            Ok(())
        })
    })?;
    Ok(values)
}

fn within<T: TryFrom<i64>>(what: &str, value: i64, place: &str) -> Result<T> {
    T::try_from(value).map_err(|_| Refusal::new(place, format!("elements within {what}"), value, REPAIR))
}

fn to_bool(value: i64, place: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::new(place, "booleans that are 0 or 1", value, REPAIR)),
    }
}

/// Rounds to f32. What is finite stays finite, or is refused.
fn f64_to_f32(value: f64, place: &str) -> Result<f32> {
    let rounded = value as f32;
    if value.is_finite() && !rounded.is_finite() {
        let action = "scale the weights so that they fit f32";
        return Err(Refusal::new(place, "f64 elements within the range of f32", value, action));
    }
    Ok(rounded)
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE half precision, exactly.
fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match (exponent, fraction) {
        // 2^-24 each: exact in f32.
        (0, _) => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        (31, _) => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_exact() {
        #[rustfmt::skip]
        let cases: [(u16, f32); 9] = [
            (0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8), (0x03ff, 6.097_555e-5), (0x3555, 0.333_251_95), (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, expected) in cases {
            assert_eq!(f16_to_f32(bits), expected, "{bits:#x}");
        }
        assert!(f16_to_f32(0x8000).is_sign_negative());
        assert!(f16_to_f32(0x7e00).is_nan());
        assert_eq!(bf16_to_f32(0x3f80), 1.0);
    }

    #[test]
    fn finite_f64_beyond_f32_is_refused_and_infinity_is_not() {
        assert!(f64_to_f32(1e39, "w").is_err());
        assert_eq!(f64_to_f32(f64::INFINITY, "w"), Ok(f32::INFINITY));
        assert_eq!(f64_to_f32(1e-60, "w"), Ok(0.0));
    }
}
