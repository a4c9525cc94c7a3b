//! Asking for memory before it is needed: batches do not fit in the cache, and one core waits for most of what it reads if
//! it asks only then.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the elements from `from` on, as far as there are any.
#[inline(always)]
pub fn prefetch<T>(data: &[T], from: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let (from, to) = (from.min(data.len()), (from + len).min(data.len()));
        for at in (from..to).step_by(LINE / size_of::<T>()) {
            // SAFETY: a hint: it reads nothing, and the place lies inside the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(data.as_ptr().add(at).cast()) };
        }
    }
    let _ = (data, from, len, LINE);
}

/// Asks for the next block of images while the present one is worked on, a part for each of so many calls.
pub struct Next<'a, T> {
    data: &'a [T],
    at: usize,
    part: usize,
}

impl<'a, T> Next<'a, T> {
    /// Of the elements from `from` on.
    pub fn new(data: &'a [T], from: usize, len: usize, calls: usize) -> Self {
        let data = data.get(from..(from + len).min(data.len())).unwrap_or(&[]);
        Self { data, at: 0, part: data.len().div_ceil(calls.max(1)) }
    }

    /// Asks for the next part.
    #[inline]
    pub fn ask(&mut self) {
        prefetch(self.data, self.at, self.part);
        self.at += self.part;
    }
}
