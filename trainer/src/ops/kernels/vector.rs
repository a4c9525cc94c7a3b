//! Vectors of floats, one type per instruction set: what the bodies in [`tile`](super::tile) are written over.
//!
//! A body is generic over [`Vector`] and inlined into a function with `#[target_feature]`; see [`rows`](super::rows).

#![expect(clippy::missing_safety_doc, reason = "the trait says it for all")]

use crate::exec::Real;

/// A vector register.
///
/// # Safety
/// Every function needs the instruction set of its type; pointers are valid for [`Vector::LANES`] scalars, those of
/// `_part` functions for the lanes of the mask.
pub trait Vector: Copy {
    /// Its elements.
    type Scalar: Real;
    /// Which lanes take part.
    type Mask: Copy;
    /// Elements.
    const LANES: usize;
    /// All lanes 0.
    unsafe fn zero() -> Self;
    /// All lanes `*p`.
    unsafe fn splat(p: *const Self::Scalar) -> Self;
    /// From memory.
    unsafe fn load(p: *const Self::Scalar) -> Self;
    /// To memory.
    unsafe fn store(self, p: *mut Self::Scalar);
    /// The first `n` lanes (all from [`Vector::LANES`] on).
    unsafe fn mask(n: usize) -> Self::Mask;
    /// The mask's lanes from memory, the others 0.
    unsafe fn load_part(p: *const Self::Scalar, mask: Self::Mask) -> Self;
    /// The mask's lanes to memory.
    unsafe fn store_part(self, p: *mut Self::Scalar, mask: Self::Mask);
    /// `self + a * b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}

/// One float: defines the results of the other types up to rounding.
macro_rules! scalar {
    ($ty:ty) => {
        impl Vector for $ty {
            type Scalar = $ty;
            type Mask = bool;
            const LANES: usize = 1;
            #[inline(always)]
            unsafe fn zero() -> Self {
                0.0
            }
            #[inline(always)]
            unsafe fn splat(p: *const $ty) -> Self {
                // SAFETY: valid by the contract.
                unsafe { *p }
            }
            #[inline(always)]
            unsafe fn load(p: *const $ty) -> Self {
                // SAFETY: valid by the contract.
                unsafe { *p }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $ty) {
                // SAFETY: valid by the contract.
                unsafe { *p = self }
            }
            #[inline(always)]
            unsafe fn mask(n: usize) -> bool {
                n > 0
            }
            #[inline(always)]
            unsafe fn load_part(p: *const $ty, mask: bool) -> Self {
                // SAFETY: valid by the contract where the mask holds.
                if mask { unsafe { *p } } else { 0.0 }
            }
            #[inline(always)]
            unsafe fn store_part(self, p: *mut $ty, mask: bool) {
                if mask {
                    // SAFETY: valid by the contract.
                    unsafe { *p = self }
                }
            }
            #[inline(always)]
            unsafe fn add_product(self, a: Self, b: Self) -> Self {
                self + a * b
            }
        }
    };
}
scalar!(f32);
scalar!(f64);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    /// Ones before zeros: a window of it is a mask of the first lanes.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// AVX2 with FMA.
    impl Vector for __m256 {
        type Scalar = f32;
        type Mask = __m256i;
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller has AVX2.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller has AVX2 and a valid pointer.
            unsafe { _mm256_broadcast_ss(&*p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller has AVX2 and a valid pointer.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller has AVX2 and a valid pointer.
            unsafe { _mm256_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn mask(n: usize) -> __m256i {
            // SAFETY: the caller has AVX2; the window lies in MASKS since n is at most 8.
            unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n.min(8)).cast()) }
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, mask: __m256i) -> Self {
            // SAFETY: the caller has AVX2; lanes that are off are not read.
            unsafe { _mm256_maskload_ps(p, mask) }
        }
        #[inline(always)]
        unsafe fn store_part(self, p: *mut f32, mask: __m256i) {
            // SAFETY: the caller has AVX2; lanes that are off are not written.
            unsafe { _mm256_maskstore_ps(p, mask, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has FMA.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
    }

    /// AVX-512 F.
    impl Vector for __m512 {
        type Scalar = f32;
        type Mask = __mmask16;
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller has AVX-512.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller has AVX-512 and a valid pointer.
            unsafe { _mm512_set1_ps(*p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller has AVX-512 and a valid pointer.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller has AVX-512 and a valid pointer.
            unsafe { _mm512_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn mask(n: usize) -> __mmask16 {
            if n >= 16 { !0 } else { (1 << n) - 1 }
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, mask: __mmask16) -> Self {
            // SAFETY: the caller has AVX-512; lanes that are off are not read.
            unsafe { _mm512_maskz_loadu_ps(mask, p) }
        }
        #[inline(always)]
        unsafe fn store_part(self, p: *mut f32, mask: __mmask16) {
            // SAFETY: the caller has AVX-512; lanes that are off are not written.
            unsafe { _mm512_mask_storeu_ps(p, mask, self) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Vector;

    /// NEON, which every aarch64 has.
    impl Vector for float32x4_t {
        type Scalar = f32;
        type Mask = usize;
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: NEON is part of aarch64.
            unsafe { vdupq_n_f32(0.0) }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the pointer is valid.
            unsafe { vld1q_dup_f32(p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the pointer is valid.
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the pointer is valid.
            unsafe { vst1q_f32(p, self) }
        }
        #[inline(always)]
        unsafe fn mask(n: usize) -> usize {
            n.min(4)
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, n: usize) -> Self {
            let mut lanes = [0.0; 4];
            for (i, lane) in lanes.iter_mut().enumerate() {
                if i < n {
                    // SAFETY: the first n lanes are valid.
                    *lane = unsafe { *p.add(i) };
                }
            }
            // SAFETY: four floats of our own.
            unsafe { vld1q_f32(lanes.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store_part(self, p: *mut f32, n: usize) {
            let mut lanes = [0.0; 4];
            // SAFETY: four floats of our own.
            unsafe { vst1q_f32(lanes.as_mut_ptr(), self) };
            for (i, lane) in lanes.iter().enumerate() {
                if i < n {
                    // SAFETY: the first n lanes are valid.
                    unsafe { *p.add(i) = *lane };
                }
            }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: NEON is part of aarch64.
            unsafe { vfmaq_f32(self, a, b) }
        }
    }
}
