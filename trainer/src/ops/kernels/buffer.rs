//! Memory that vectors read whole lines of.

use std::ops::{Deref, DerefMut};

use crate::exec::Real;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Elements that begin at a cache line: a vector that lies across two costs twice.
#[derive(Debug, Default)]
pub struct Buffer<T> {
    data: Vec<T>,
    from: usize,
}

impl<T: Real> Buffer<T> {
    /// Zeros.
    pub fn new(len: usize) -> Self {
        let spare = LINE / size_of::<T>();
        let data = vec![T::ZERO; len + spare];
        let from = data.as_ptr().align_offset(LINE).min(spare);
        let mut data = data;
        data.truncate(from + len);
        Self { data, from }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[self.from..]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.from..]
    }
}

/// As it lies.
impl<T> From<Vec<T>> for Buffer<T> {
    fn from(data: Vec<T>) -> Self {
        Self { data, from: 0 }
    }
}

/// The same memory again, if it was a `Vec`; else what lies before its first line goes too.
impl<T> From<Buffer<T>> for Vec<T> {
    fn from(mut buffer: Buffer<T>) -> Self {
        buffer.data.drain(..buffer.from);
        buffer.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_line_and_has_its_length() {
        for len in [0, 1, 15, 16, 1000, 100_000] {
            let buffer = Buffer::<f32>::new(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % LINE), (len, 0));
        }
        let floats: Vec<f32> = Buffer::from(vec![1.0, 2.0]).into();
        assert_eq!(floats, [1.0, 2.0]);
    }
}
