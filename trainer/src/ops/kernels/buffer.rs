//! Memory that vectors read whole lines of.

use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use kd_runtime::Result;

use crate::exec::Real;
use crate::gpu::Gpu;
use crate::gpu::memory::Allocation;
use crate::gpu::ops::maps;
use crate::ops::kernels::pointwise;

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
#[derive(Default)]
pub struct Buffer<T>(Data<T>);

enum Data<T> {
    /// Of the host: those from this place on.
    Host(Vec<T>, usize),
    /// Of a GPU, with a mirror that the host reads and writes.
    Gpu { array: Arc<Allocation>, len: usize },
}

impl<T> Default for Data<T> {
    fn default() -> Self {
        Self::Host(Vec::new(), 0)
    }
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

    /// Zeros in memory of the host.
    pub fn new(len: usize) -> Self {
        let align = Self::align(len);
        let data = vec![T::ZERO; Self::room(len)];
        let from = data.as_ptr().align_offset(align).min(data.len() - len);
        ask_for_large_pages(data[from..].as_ptr(), len);
        let mut data = data;
        data.truncate(from + len);
        Self(Data::Host(data, from))
    }

    /// Zeros in memory of a GPU. Refused where there is not enough.
    pub fn on(gpu: &Gpu, len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self::default());
        }
        Ok(Self(Data::Gpu { array: Allocation::new(gpu, len * size_of::<T>())?, len }))
    }

    /// A copy in memory of a GPU. Refused where there is not enough.
    pub fn moved(gpu: &Gpu, from: &[T]) -> Result<Self> {
        let mut to = Self::on(gpu, from.len())?;
        to.put(from);
        Ok(to)
    }

    /// Zeros in the memory that this one lies in.
    pub fn beside(&self, len: usize) -> Result<Self> {
        match self.gpu() {
            Some(gpu) => Self::on(gpu, len),
            None => Ok(zeros(len).into()),
        }
    }

    /// Zeros in memory of a GPU, or else of the host.
    pub fn in_memory(gpu: Option<&Gpu>, len: usize) -> Result<Self> {
        gpu.map_or_else(|| Ok(Self::new(len)), |gpu| Self::on(gpu, len))
    }
}

impl<T> Buffer<T> {
    /// The GPU whose memory it lies in.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.0 {
            Data::Host(..) => None,
            Data::Gpu { array, .. } => Some(array.gpu()),
        }
    }

    /// How many elements; none of them is looked at.
    pub fn len(&self) -> usize {
        self.raw().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements, where kernels of its GPU read them: whatever the host sees there is not to be used by it.
    pub fn raw(&self) -> &[T] {
        match &self.0 {
            Data::Host(data, from) => &data[*from..],
            // SAFETY: so many elements, all of them zeros or written since.
            Data::Gpu { array, len } => unsafe { std::slice::from_raw_parts(array.mirror().cast(), *len) },
        }
    }

    /// Elements, where kernels of its GPU write them.
    pub fn raw_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Data::Host(data, from) => &mut data[*from..],
            // SAFETY: as above, and nobody else has them.
            Data::Gpu { array, len } => unsafe { std::slice::from_raw_parts_mut(array.mirror().cast(), *len) },
        }
    }

    /// The first elements: of what lies on a GPU no others are copied.
    pub fn first(&self, len: usize) -> &[T] {
        if let Data::Gpu { array, .. } = &self.0 {
            array.fetch(len * size_of::<T>());
        }
        &self.raw()[..len]
    }
}

impl<T: Real> Buffer<T> {
    /// Overwrites the first elements: what lies on a GPU is sent there, and not copied back before.
    pub fn put(&mut self, from: &[T]) {
        match &mut self.0 {
            Data::Host(data, at) => data[*at..][..from.len()].copy_from_slice(from),
            Data::Gpu { array, .. } => {
                // SAFETY: floats are bytes.
                let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)) };
                array.put(bytes);
            }
        }
    }
}

/// Of all elements, where they lie.
impl<T: Real> Buffer<T> {
    /// Zeros.
    pub fn zero(&mut self) {
        match self.gpu().cloned() {
            Some(gpu) => maps::fill(&gpu, self.raw_mut(), T::ZERO),
            None => self.raw_mut().fill(T::ZERO),
        }
    }

    /// `self = keep · self + take · from`, of as many elements; with keep 0 whatever was there is gone.
    pub fn blend(&mut self, keep: T, take: T, from: &Self) {
        self.blend_first(from.len(), keep, take, from);
    }

    /// The same of the first elements.
    pub fn blend_first(&mut self, len: usize, keep: T, take: T, from: &Self) {
        match self.gpu().cloned() {
            Some(gpu) => maps::blend(&gpu, &mut self.raw_mut()[..len], &from.raw()[..len], [keep, take]),
            None => pointwise::update_with(&mut self.raw_mut()[..len], &from[..len], move |own, x| {
                (if keep == T::ZERO { keep } else { keep * own }) + take * x
            }),
        }
    }

    /// `self = self / by`.
    pub fn divide(&mut self, by: T) {
        match self.gpu().cloned() {
            Some(gpu) => maps::scale(&gpu, self.raw_mut(), T::ONE / by),
            None => pointwise::update(self.raw_mut(), move |own| own / by),
        }
    }

    /// A copy of what lies in the same memory.
    pub fn copy_from(&mut self, from: &Self) {
        match self.gpu().cloned() {
            Some(gpu) => maps::copy(&gpu, self.raw_mut(), from.raw(), false),
            None => self.raw_mut().copy_from_slice(from),
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.first(self.len())
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if let Data::Gpu { array, len } = &self.0 {
            array.fetch(*len * size_of::<T>());
            array.own();
        }
        self.raw_mut()
    }
}

impl<T: Debug> Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

/// In memory of the host.
impl<T: Clone> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl<'a, T> IntoIterator for &'a Buffer<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Buffer<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// As it lies.
impl<T> From<Vec<T>> for Buffer<T> {
    fn from(data: Vec<T>) -> Self {
        Self(Data::Host(data, 0))
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
        assert_eq!(Buffer::from(vec![1.0, 2.0])[..], [1.0, 2.0]);
    }
}
