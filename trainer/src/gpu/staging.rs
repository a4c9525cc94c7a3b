//! Copies to a GPU that nobody waits for: through memory of the host that the GPU reads by itself.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::{CudaStream, DriverError, result as driver, sys};

/// Copies that may be on their way at once.
const SLOTS: usize = 4;

/// Bytes that the driver takes in at once by itself.
const SMALL: usize = 64 << 10;

/// Slots that are taken in turns.
#[derive(Default)]
pub struct Staging {
    slots: [Slot; SLOTS],
    next: usize,
}

/// Locked memory of the host.
struct Slot {
    place: *mut c_void,
    bytes: usize,
    /// When the copy that was queued last is done.
    copied: sys::CUevent,
}

impl Default for Slot {
    fn default() -> Self {
        Self { place: null_mut(), bytes: 0, copied: null_mut() }
    }
}

// SAFETY: used with the state of its device locked.
unsafe impl Send for Slot {}

impl Staging {
    /// Queues a copy of the host's bytes, which may change when this returns.
    ///
    /// # Safety
    ///
    /// Both are of so many bytes; the context of the stream is current.
    pub unsafe fn upload(
        &mut self,
        to: u64,
        from: *const u8,
        bytes: usize,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        // SAFETY: as the caller says.
        let from = unsafe { std::slice::from_raw_parts(from, bytes) };
        if bytes <= SMALL {
            // SAFETY: as the caller says. Memory that is not locked is read before the call returns.
            return unsafe { driver::memcpy_htod_async(to, from, stream.cu_stream()) };
        }
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        // SAFETY: the event of this slot, and its memory, which no copy reads any more once that has come; so many bytes of each.
        unsafe {
            if slot.copied.is_null() {
                slot.copied = driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            } else {
                driver::event::synchronize(slot.copied)?;
            }
            if slot.bytes < bytes {
                if !slot.place.is_null() {
                    driver::free_host(std::mem::replace(&mut slot.place, null_mut()))?;
                    slot.bytes = 0;
                }
                slot.place = driver::malloc_host(bytes, 0)?;
                slot.bytes = bytes;
            }
            std::ptr::copy_nonoverlapping(from.as_ptr(), slot.place.cast(), bytes);
            let staged = std::slice::from_raw_parts(slot.place.cast::<u8>(), bytes);
            driver::memcpy_htod_async(to, staged, stream.cu_stream())?;
            driver::event::record(slot.copied, stream.cu_stream())
        }
    }

    /// Gives all memory back. What fails here failed before, or the process ends.
    pub fn free(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            // SAFETY: made in `upload`, used no more once the last copy is done.
            unsafe {
                if !slot.copied.is_null() {
                    driver::event::synchronize(slot.copied).ok();
                    driver::event::destroy(slot.copied).ok();
                }
                if !slot.place.is_null() {
                    driver::free_host(slot.place).ok();
                }
            }
        }
    }
}
