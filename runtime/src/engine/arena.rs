//! One block of memory for all that a plan computes, with places given by lifetime.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::vec::Vec;
use core::ptr::NonNull;

use crate::error::{Exit, Refusal, Result};
use crate::graph::{ElementType, Tensor};
use crate::ops::frame::{Binding, start};

/// Every place begins at a multiple of this.
pub const ALIGNMENT: usize = 64;

/// What needs a place: so many bytes from the step that writes it to the last step that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Size.
    pub bytes: usize,
    /// First step that needs it.
    pub first: usize,
    /// Last step that needs it.
    pub last: usize,
}

/// Gives each request an offset so that no two that are alive at the same step overlap: largest first, each at the
/// lowest place that is free for its lifetime. Returns the offsets and the bytes in all; `None` if they overflow.
pub fn place(requests: &[Request]) -> Option<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (core::cmp::Reverse(requests[i].bytes), i));
    let mut offsets = alloc::vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(requests.len());
    let mut total = 0;
    for i in order {
        let wanted = requests[i];
        let size = wanted.bytes.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let mut offset = 0_usize;
        // `placed` is kept sorted by offset: walk up past every neighbour in time that is in the way.
        for &j in &placed {
            let other = requests[j];
            let meets = wanted.first <= other.last && other.first <= wanted.last;
            if meets && offsets[j] < offset.checked_add(size)? {
                offset = offset.max(offsets[j] + other.bytes.max(1).next_multiple_of(ALIGNMENT));
            }
        }
        offsets[i] = offset;
        total = total.max(offset.checked_add(size)?);
        let at = placed.partition_point(|&j| offsets[j] <= offset);
        placed.insert(at, i);
    }
    Some((offsets, total))
}

/// Bytes of a tensor; `None` if no memory can hold them.
pub fn bytes(element: ElementType, shape: &[usize]) -> Option<usize> {
    let bytes = shape.iter().try_fold(element.bytes(), |bytes, &n| bytes.checked_mul(n));
    bytes.filter(|&bytes| isize::try_from(bytes).is_ok())
}

/// Zeroed, aligned memory that never moves.
pub struct Arena {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an arena owns its memory; what is shared of it is governed by the borrows of the engine that owns it.
unsafe impl Send for Arena {}

impl Arena {
    /// Allocates `bytes`; refused (this machine lacks the memory) where that fails.
    pub fn new(bytes: usize) -> Result<Self> {
        let lacking = || {
            let found = alloc::format!("a plan of {bytes} bytes");
            Refusal::new("arena", "a plan that fits this machine's memory", found, "use a smaller model or batch")
                .with_exit(Exit::Lacking)
        };
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT).map_err(|_| lacking())?;
        // SAFETY: the size is at least ALIGNMENT, so not 0.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(lacking)?;
        Ok(Self { data, layout })
    }

    /// Binds a value at an offset; panics if it does not lie inside.
    pub fn bind(&self, element: ElementType, shape: &[usize], offset: usize) -> Binding {
        let bytes = bytes(element, shape).expect("a place was found for it");
        assert!(offset.is_multiple_of(ALIGNMENT) && bytes <= self.layout.size() - offset, "{offset} + {bytes}");
        // SAFETY: offset + bytes lies inside the allocation (asserted), is aligned for every element type, and zeroed
        // memory is initialised for all of them; operators write booleans as booleans.
        unsafe { Binding::new(element, shape, self.data.add(offset)) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

/// Binds a constant; the tensor must stay where its elements are for as long as the binding is used.
pub fn bind_constant(tensor: &Tensor) -> Binding {
    // SAFETY: a live slice of as many elements of this type; the engine keeps its constants, unmoved and unwritten.
    unsafe { Binding::new(tensor.element(), tensor.shape(), start(tensor.data().view())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_overlaps_what_is_alive_together_and_reuses_the_rest() {
        let mut state = 7_u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let requests: Vec<Request> = (0..30)
                .map(|_| {
                    let first = random(20) as usize;
                    Request { bytes: random(1000) as usize, first, last: first + random(5) as usize }
                })
                .collect();
            let (offsets, total) = place(&requests).expect("small");
            let sum: usize = requests.iter().map(|r| r.bytes.max(1).next_multiple_of(ALIGNMENT)).sum();
            assert!(total < sum, "no reuse: {total} of {sum}");
            for i in 0..requests.len() {
                for j in 0..i {
                    let (a, b) = (requests[i], requests[j]);
                    let apart_in_time = a.last < b.first || b.last < a.first;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(apart_in_time || apart, "{a:?} at {} overlaps {b:?} at {}", offsets[i], offsets[j]);
                }
            }
        }
    }

    #[test]
    fn places_a_chain_in_two_buffers() {
        let chain: Vec<Request> = (0..10).map(|i| Request { bytes: 640, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).expect("small").1, 1280);
    }
}
