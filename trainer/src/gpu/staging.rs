//! Copies to a GPU that nobody waits for: through locked memory of the host, which the GPU reads by itself.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::{CudaStream, DriverError, result as driver, sys};

/// Copies that may be on their way at once.
const SLOTS: usize = 16;

/// Bytes of a copy; more are several.
const MOST_BYTES: usize = 4 << 20;

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
    /// Queues a copy of the host's bytes, which may change when this returns. Where no memory can be locked it waits.
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
        for (i, piece) in from.chunks(MOST_BYTES).enumerate() {
            let to = to + (i * MOST_BYTES) as u64;
            let slot = &mut self.slots[self.next];
            self.next = (self.next + 1) % SLOTS;
            // SAFETY: as the caller says; memory and event are the slot's.
            unsafe {
                slot.wait()?;
                if slot.make_room(piece.len()).is_ok() {
                    std::ptr::copy_nonoverlapping(piece.as_ptr(), slot.place.cast(), piece.len());
                    let staged = std::slice::from_raw_parts(slot.place.cast::<u8>(), piece.len());
                    driver::memcpy_htod_async(to, staged, stream.cu_stream())?;
                    driver::event::record(slot.copied, stream.cu_stream())?;
                } else {
                    driver::memcpy_htod_async(to, piece, stream.cu_stream())?;
                    stream.synchronize()?;
                }
            }
        }
        Ok(())
    }

    /// Gives all memory back. What fails here failed before, or the process ends.
    pub fn free(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            // SAFETY: made in `upload`, used no more once the last copy is done.
            unsafe {
                slot.wait().ok();
                if !slot.copied.is_null() {
                    driver::event::destroy(slot.copied).ok();
                }
                if !slot.place.is_null() {
                    driver::free_host(slot.place).ok();
                }
            }
        }
    }
}

impl Slot {
    /// Waits until nothing reads it.
    ///
    /// # Safety
    ///
    /// The context of its event is current.
    unsafe fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: an event of this slot.
        if self.copied.is_null() { Ok(()) } else { unsafe { driver::event::synchronize(self.copied) } }
    }

    /// Sees that there is an event, and locked memory for so many bytes.
    ///
    /// # Safety
    ///
    /// Nothing reads the slot; the context is current.
    unsafe fn make_room(&mut self, bytes: usize) -> Result<(), DriverError> {
        // SAFETY: as the caller says.
        unsafe {
            if self.copied.is_null() {
                self.copied = driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            }
            if self.bytes < bytes {
                let old = std::mem::replace(&mut self.place, null_mut());
                self.bytes = 0;
                if !old.is_null() {
                    driver::free_host(old)?;
                }
                self.place = driver::malloc_host(bytes, 0)?;
                self.bytes = bytes;
            }
        }
        Ok(())
    }
}
