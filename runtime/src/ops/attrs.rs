//! Attributes of a node on their way between a file and an operator's typed fields.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::OpError;
use crate::graph::{ElementType, Tensor};

/// One attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Attr {
    Int(i64),
    Float(f32),
    String(String),
    Tensor(Tensor),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
}

/// The attributes of one node, by name. Reading takes an attribute out, so that what is left over is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(pub Vec<(String, Attr)>);

impl Attrs {
    /// No attribute.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, attr: Attr) -> Self {
        self.0.push((name.to_string(), attr));
        self
    }

    /// With one more integer.
    #[must_use]
    pub fn with_int(self, name: &str, value: i64) -> Self {
        self.with(name, Attr::Int(value))
    }

    /// With one more list of sizes.
    #[must_use]
    pub fn with_sizes(self, name: &str, values: &[usize]) -> Self {
        self.with(name, Attr::Ints(values.iter().map(|&v| v as i64).collect()))
    }

    /// Takes an attribute out.
    pub fn take(&mut self, name: &str) -> Option<Attr> {
        let i = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(i).1)
    }

    /// Takes an integer.
    pub fn int(&mut self, name: &str) -> Result<Option<i64>, OpError> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Int(v)) => Ok(Some(v)),
            Some(other) => Err(wrong(name, "an integer", &other)),
        }
    }

    /// Takes an integer, or its default.
    pub fn int_or(&mut self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// Takes an integer that means yes (not 0) or no.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, OpError> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    /// Takes a float, or its default.
    pub fn float_or(&mut self, name: &str, default: f32) -> Result<f32, OpError> {
        match self.take(name) {
            None => Ok(default),
            Some(Attr::Float(v)) => Ok(v),
            Some(other) => Err(wrong(name, "a float", &other)),
        }
    }

    /// Takes a list of integers.
    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, OpError> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Ints(v)) => Ok(Some(v)),
            Some(other) => Err(wrong(name, "a list of integers", &other)),
        }
    }

    /// Takes a list of sizes, each of at least `least`; empty if it is not there.
    pub fn sizes(&mut self, name: &str, least: usize) -> Result<Vec<usize>, OpError> {
        (self.ints(name)?.unwrap_or_default().into_iter())
            .map(|v| {
                (usize::try_from(v).ok().filter(|&n| n >= least && n <= 1 << 31))
                    .ok_or_else(|| OpError::new(alloc::format!("{name} of {least} to 2^31"), v))
            })
            .collect()
    }

    /// Takes the `group` of a convolution, 1 if it is not there.
    pub fn group(&mut self) -> Result<usize, OpError> {
        let group = self.int_or("group", 1)?;
        let valid = usize::try_from(group).ok().filter(|g| (1..=1 << 31).contains(g));
        valid.ok_or_else(|| OpError::new("a group of 1 to 2^31", group))
    }

    /// Takes a string, or its default.
    pub fn string_or(&mut self, name: &str, default: &str) -> Result<String, OpError> {
        match self.take(name) {
            None => Ok(default.to_string()),
            Some(Attr::String(v)) => Ok(v),
            Some(other) => Err(wrong(name, "a string", &other)),
        }
    }

    /// An error if an attribute was not taken.
    pub fn finish(&self) -> Result<(), OpError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(OpError::new("only known attributes", alloc::format!("`{name}`"))),
        }
    }
}

fn wrong(name: &str, expected: &str, found: &Attr) -> OpError {
    OpError::new(alloc::format!("{expected} as attribute `{name}`"), alloc::format!("{found:?}"))
}

/// An axis that may count from the end; an error outside `-rank..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let rank_i = rank as i64;
    let from_start = if axis < 0 { axis.saturating_add(rank_i) } else { axis };
    if (0..rank_i).contains(&from_start) {
        Ok(from_start as usize)
    } else {
        Err(OpError::new(alloc::format!("an axis within rank {rank}"), axis))
    }
}

/// `TensorProto.DataType` of an element type.
pub fn type_code(element: ElementType) -> i64 {
    match element {
        ElementType::F32 => 1,
        ElementType::U8 => 2,
        ElementType::I8 => 3,
        ElementType::I32 => 6,
        ElementType::I64 => 7,
        ElementType::Bool => 9,
    }
}

/// The element type of a `TensorProto.DataType`, if it is one of ours.
pub fn element_type(code: i64) -> Option<ElementType> {
    let all =
        [ElementType::F32, ElementType::U8, ElementType::I8, ElementType::I32, ElementType::I64, ElementType::Bool];
    all.into_iter().find(|&element| type_code(element) == code)
}
