//! Memory that vectors read whole lines of.

use std::ops::{Deref, DerefMut};

use crate::exec::Real;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Bytes of a large page: where Linux gives one, a tile's rows lie in few pages, not in one each.
const LARGE_PAGE: usize = 2 << 20;

/// Asks for large pages for memory that nobody has touched yet. Only a hint.
fn ask_for_large_pages<T>(place: *const T, len: usize) {
    #[cfg(target_os = "linux")]
    {
        let (begin, end) = (place as usize, place as usize + len * size_of::<T>());
        let (begin, end) = (begin.next_multiple_of(LARGE_PAGE), end / LARGE_PAGE * LARGE_PAGE);
        if begin < end {
            // SAFETY: whole pages inside memory that the caller owns; the advice changes none of it.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE) };
        }
    }
    let _ = (place, len);
}

/// Zeros, in large pages where there are some.
pub fn zeros<T: Real>(len: usize) -> Vec<T> {
    let zeros = vec![T::ZERO; len];
    ask_for_large_pages(zeros.as_ptr(), len);
    zeros
}

/// Elements in a row, in large pages where there are some.
pub fn collect<T: Real>(elements: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut all = Vec::with_capacity(elements.len());
    ask_for_large_pages(all.as_ptr(), elements.len());
    all.extend(elements);
    all
}

/// Elements that begin at a cache line (many of them at a large page): a vector that lies across two costs twice.
#[derive(Debug, Default)]
pub struct Buffer<T> {
    data: Vec<T>,
    from: usize,
}

impl<T: Real> Buffer<T> {
    /// Bytes that the first of so many elements is moved to a multiple of.
    fn align(len: usize) -> usize {
        if len * size_of::<T>() >= LARGE_PAGE { LARGE_PAGE } else { LINE }
    }

    /// Elements that a buffer of so many takes.
    pub fn room(len: usize) -> usize {
        len + Self::align(len) / size_of::<T>()
    }

    /// Zeros.
    pub fn new(len: usize) -> Self {
        let align = Self::align(len);
        let data = vec![T::ZERO; Self::room(len)];
        let from = data.as_ptr().align_offset(align).min(data.len() - len);
        ask_for_large_pages(data[from..].as_ptr(), len);
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
