//! What a kernel is told: the same for all, so that one function launches each of them.

use std::ffi::c_void;

use crate::exec::Real;

/// Pointers, whole numbers and floats, each in the order in which they were added; `P(i)`, `N(i)` and `F(i)` of a source.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    pointers: [*const c_void; 8],
    numbers: [i64; 32],
    floats: [f32; 8],
    /// How many of each; a bit for each pointer that is written through.
    used: [u32; 4],
}

impl Args {
    /// None yet.
    pub fn none() -> Self {
        Self { pointers: [std::ptr::null(); 8], numbers: [0; 32], floats: [0.0; 8], used: [0; 4] }
    }

    /// Memory that is read; null where there is none (an input that is left out).
    pub fn read<T: Real>(self, x: &[T]) -> Self {
        self.pointer(if x.is_empty() { std::ptr::null() } else { x.as_ptr().cast() })
    }

    /// Memory that is written, and perhaps read.
    pub fn write<T: Real>(mut self, x: &mut [T]) -> Self {
        self.used[3] |= 1 << self.used[0];
        self.pointer(if x.is_empty() { std::ptr::null() } else { x.as_mut_ptr().cast_const().cast() })
    }

    fn pointer(mut self, place: *const c_void) -> Self {
        self.pointers[self.used[0] as usize] = place;
        self.used[0] += 1;
        self
    }

    /// A whole number.
    pub fn number(mut self, n: usize) -> Self {
        self.numbers[self.used[1] as usize] = n as i64;
        self.used[1] += 1;
        self
    }

    /// A stride, which may lead backwards.
    pub fn signed(mut self, n: isize) -> Self {
        self.numbers[self.used[1] as usize] = n as i64;
        self.used[1] += 1;
        self
    }

    /// Several.
    pub fn numbers(self, all: &[usize]) -> Self {
        all.iter().fold(self, |args, &n| args.number(n))
    }

    /// Whether something is so: 1 or 0.
    pub fn flag(self, is: bool) -> Self {
        self.number(usize::from(is))
    }

    /// A float.
    pub fn float(mut self, x: f32) -> Self {
        self.floats[self.used[2] as usize] = x;
        self.used[2] += 1;
        self
    }

    /// With other pointers for these.
    pub fn map(&self, f: impl Fn(*const c_void) -> *const c_void) -> Self {
        Self { pointers: self.pointers.map(f), ..*self }
    }

    /// The pointers that are written through.
    pub fn written(&self) -> impl Iterator<Item = *const c_void> + '_ {
        (0..self.pointers.len()).filter(|i| self.used[3] >> i & 1 == 1).map(|i| self.pointers[i])
    }
}
