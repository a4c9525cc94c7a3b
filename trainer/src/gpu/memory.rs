//! Memory of a GPU with a mirror of the host: each side sees what the other wrote last, copied when it is wanted.
//!
//! An array is known by the address of its mirror. Slices of mirrors are what kernels are told ([`Args`](super::Args)): the
//! addresses are translated when a kernel is launched, and what the host has written is sent before. The host gets what kernels
//! have written when it looks ([`Allocation::fetch`]), as much as it looks at.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kd_runtime::Result;

use super::Gpu;

/// Bytes that mirrors begin at a multiple of. With more, the allocator would write the zeros itself, and touch all pages.
const ALIGN: usize = 16;

/// An array on both sides.
pub struct Allocation {
    gpu: Gpu,
    mirror: *mut u8,
    device: u64,
    bytes: usize,
    /// Bytes of the mirror, from the first, that are what the GPU has.
    current: AtomicUsize,
    /// Whether the host has written what the GPU has not; then all of the mirror is current.
    is_ahead: AtomicBool,
    /// What [`Allocation::version`] gives.
    version: AtomicUsize,
    fetching: Mutex<()>,
}

// SAFETY: the memory is owned; who writes it has a mutable reference to what owns this, or fetches.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

/// A number that no array has had.
fn new_version() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGN).expect("a size that was allocated on a GPU")
}

impl Allocation {
    /// Zeros, at least one byte. Refused where the GPU has not enough memory.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Arc<Self>> {
        let device = gpu.engine().allocate(bytes)?;
        // SAFETY: more than no bytes. Pages that the host never looks at take no memory.
        let mirror = unsafe { alloc_zeroed(layout(bytes)) };
        if mirror.is_null() {
            handle_alloc_error(layout(bytes));
        }
        let (current, is_ahead) = (AtomicUsize::new(bytes), AtomicBool::new(false));
        let (version, fetching) = (AtomicUsize::new(new_version()), Mutex::new(()));
        let allocation =
            Arc::new(Self { gpu: gpu.clone(), mirror, device, bytes, current, is_ahead, version, fetching });
        gpu.arrays().insert(mirror as usize, Arc::downgrade(&allocation));
        Ok(allocation)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where the mirror is.
    pub fn mirror(&self) -> *mut u8 {
        self.mirror
    }

    /// Whether an address is inside of the mirror.
    pub(super) fn has(&self, place: usize) -> bool {
        place - (self.mirror as usize) < self.bytes
    }

    /// Makes so many bytes of the mirror, from the first, what the GPU has. Waits for kernels that write them. What failed
    /// there is told by [`Gpu::wait`].
    pub fn fetch(&self, bytes: usize) {
        if self.current.load(Ordering::Acquire) < bytes {
            let _alone = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            let from = self.current.load(Ordering::Acquire);
            if from < bytes {
                // SAFETY: both have so many bytes. Nobody has a reference to these of the mirror: since a kernel wrote the array,
                // for which it was borrowed mutably, nobody has asked for them.
                unsafe {
                    self.gpu.engine().download(self.mirror.add(from), self.device + from as u64, bytes - from);
                }
                self.current.store(bytes, Ordering::Release);
            }
        }
    }

    /// Says that the host is about to write the mirror, which [`Allocation::fetch`] has made current. Its owner is borrowed
    /// mutably.
    pub fn own(&self) {
        self.change();
        self.is_ahead.store(true, Ordering::Release);
    }

    fn change(&self) {
        self.version.store(new_version(), Ordering::Release);
    }

    /// A number of what is in the array: another one once somebody writes it, and of each array another.
    pub(super) fn version(&self) -> usize {
        self.version.load(Ordering::Acquire)
    }

    /// Overwrites bytes from the first on. Its owner is borrowed mutably.
    pub fn put(&self, from: &[u8]) {
        assert!(from.len() <= self.bytes, "no more than there is room for");
        self.change();
        if self.is_ahead.load(Ordering::Acquire) {
            // SAFETY: so many bytes of the mirror, whose owner is borrowed mutably.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.mirror, from.len()) };
        } else {
            // SAFETY: so many bytes of both.
            unsafe { self.gpu.engine().upload(self.device, from.as_ptr(), from.len()) };
            self.current.store(0, Ordering::Release);
        }
    }

    /// Sends what the host has written, and says what a kernel is told for an address of the mirror.
    pub(super) fn sent(&self, place: usize) -> *const c_void {
        if self.is_ahead.swap(false, Ordering::AcqRel) {
            // SAFETY: so many bytes of both.
            unsafe { self.gpu.engine().upload(self.device, self.mirror, self.bytes) };
        }
        (self.device + (place - self.mirror as usize) as u64) as *const c_void
    }

    /// Says that a kernel writes the array.
    pub(super) fn written(&self) {
        self.change();
        self.current.store(0, Ordering::Release);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.gpu.arrays().remove(&(self.mirror as usize));
        // SAFETY: both were allocated in `new`, of so many bytes, and nobody has a reference any more.
        unsafe {
            self.gpu.engine().free(self.device, self.bytes);
            dealloc(self.mirror, layout(self.bytes));
        }
    }
}
