//! Which tile runs on this machine: a table of rows per float type, chosen by the CPU's features (once) and the number
//! of columns. `KD_CPU=scalar|avx2|avx512|neon` names another set, so that every row can be tested on one machine.

use std::cmp::Reverse;
use std::sync::OnceLock;

use kd_runtime::error::{Exit, Shown};
use kd_runtime::{Refusal, Result};

use super::tile::{self, Depthwise, DepthwiseOuter, Outer, Product, Start};
#[allow(unused_imports)]
use super::vector::Vector;
use super::winograd::{self, Tiles};
use crate::exec::Real;

/// Functions for one instruction set and panel width.
pub struct Row<T: 'static> {
    /// `gemm_f32/ISA_PIXELSxCOLUMNS`.
    pub name: &'static str,
    /// Columns of a panel.
    pub width: usize,
    /// Rows of its tallest tile of outer products.
    pub outer_rows: usize,
    /// Time of a column beside those of other rows, in hundredths: wide tiles load less for each product.
    cost: usize,
    isa: Isa,
    product: unsafe fn(&Product<'_, T>),
    outer: unsafe fn(&Outer<'_, T>),
    depthwise: unsafe fn(&Depthwise<'_, T>),
    depthwise_outer: unsafe fn(&DepthwiseOuter<'_, T>),
    gather: unsafe fn(&Tiles<'_, T>),
    scatter: unsafe fn(&Tiles<'_, T>, Start<T>),
    spread: unsafe fn(&Tiles<'_, T>),
}

/// Instruction sets, slower ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Instruction sets of this machine by the names that `KD_CPU` gives them, slower ones first.
fn sets() -> Vec<(&'static str, Isa)> {
    let mut sets = vec![("scalar", Isa::Scalar)];
    #[cfg(target_arch = "aarch64")]
    sets.push(("neon", Isa::Neon));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        sets.push(("avx2", Isa::Avx2));
        if is_x86_feature_detected!("avx512f") {
            sets.push(("avx512", Isa::Avx512));
        }
    }
    sets
}

/// The names of this machine's instruction sets, slower ones first.
pub fn there() -> Vec<&'static str> {
    sets().into_iter().map(|(name, _)| name).collect()
}

/// The instruction set that `KD_CPU` names, else the best that this machine has. Refuses one that it has not.
fn asked() -> Result<Isa> {
    let sets = sets();
    let best = sets.last().map_or(Isa::Scalar, |(_, isa)| *isa);
    let asked = std::env::var("KD_CPU").unwrap_or_default();
    if asked.is_empty() {
        return Ok(best);
    }
    sets.iter().find(|(name, _)| *name == asked).map(|(_, isa)| *isa).ok_or_else(|| {
        let expected = format!("an instruction set of this machine ({})", there().join(", "));
        let found = format!("`{}`", Shown(&asked));
        Refusal::new("KD_CPU", expected, found, "name one of them, or leave it unset").with_exit(Exit::Lacking)
    })
}

/// Refuses a `KD_CPU` that this machine has not.
pub fn check() -> Result<()> {
    asked().map(|_| ())
}

/// What all tiles of this process are for; scalar where [`check`] refuses.
fn isa() -> Isa {
    static FOUND: OnceLock<Isa> = OnceLock::new();
    *FOUND.get_or_init(|| asked().unwrap_or(Isa::Scalar))
}

/// The instruction set of this process by its name.
pub fn chosen() -> &'static str {
    let isa = isa();
    sets().into_iter().find(|(_, known)| *known == isa).map_or("scalar", |(name, _)| name)
}

macro_rules! row {
    ($const:ident, $name:literal, $isa:ident, $T:ty, $V:ty, [$($feature:literal)?],
     cost $cost:literal, $P:literal/$HALF:literal x $Q:literal, $R1:literal $R2:literal $R3:literal $R4:literal) => {
        const $const: Row<$T> = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn product(call: &Product<'_, $T>) {
                // SAFETY: this function's own features are those of the vector type; the rest is the caller's contract.
                unsafe { tile::product::<$V, $P, $HALF, $Q>(call) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn outer(call: &Outer<'_, $T>) {
                // SAFETY: as above.
                unsafe { tile::outer::<$V, $R1, $R2, $R3, $R4, $Q>(call) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn depthwise(call: &Depthwise<'_, $T>) {
                // SAFETY: as above.
                unsafe { tile::depthwise::<$V>(call) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn depthwise_outer(call: &DepthwiseOuter<'_, $T>) {
                // SAFETY: as above.
                unsafe { tile::depthwise_outer::<$V>(call) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn gather(call: &Tiles<'_, $T>) {
                // SAFETY: as above.
                unsafe { if call.points.pairs == 2 { winograd::gather::<$V, 2, 6>(call) } else { winograd::gather::<$V, 3, 8>(call) } }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn scatter(call: &Tiles<'_, $T>, start: Start<$T>) {
                // SAFETY: as above.
                unsafe { if call.points.pairs == 2 { winograd::scatter::<$V, 2, 6, 4>(call, start) } else { winograd::scatter::<$V, 3, 8, 4>(call, start) } }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn spread(call: &Tiles<'_, $T>) {
                // SAFETY: as above.
                unsafe { if call.points.pairs == 2 { winograd::spread::<$V, 2, 6, 4>(call) } else { winograd::spread::<$V, 3, 8, 4>(call) } }
            }
            Row {
                name: $name,
                width: $Q * <$V as Vector>::LANES,
                outer_rows: $R1,
                cost: $cost,
                isa: Isa::$isa,
                product,
                outer,
                depthwise,
                depthwise_outer,
                gather,
                scatter,
                spread,
            }
        };
    };
}

row!(SCALAR_F64, "gemm_f64/scalar_4x4", Scalar, f64, f64, [], cost 100, 4/2 x 4, 4 2 1 1);
row!(SCALAR_F32, "gemm_f32/scalar_4x4", Scalar, f32, f32, [], cost 100, 4/2 x 4, 4 2 1 1);
#[cfg(target_arch = "x86_64")]
row!(AVX2_8, "gemm_f32/avx2_12x8", Avx2, f32, std::arch::x86_64::__m256, ["avx2,fma"], cost 130, 12/6 x 1, 12 6 3 2);
#[cfg(target_arch = "x86_64")]
row!(AVX2_16, "gemm_f32/avx2_6x16", Avx2, f32, std::arch::x86_64::__m256, ["avx2,fma"], cost 112, 6/3 x 2, 6 4 3 2);
#[cfg(target_arch = "x86_64")]
row!(AVX512_16, "gemm_f32/avx512_14x16", Avx512, f32, std::arch::x86_64::__m512, ["avx512f,avx2,fma"], cost 108, 14/7 x 1, 24 16 8 3);
#[cfg(target_arch = "x86_64")]
row!(AVX512_32, "gemm_f32/avx512_12x32", Avx512, f32, std::arch::x86_64::__m512, ["avx512f,avx2,fma"], cost 100, 12/6 x 2, 12 8 4 3);
#[cfg(target_arch = "aarch64")]
row!(NEON_8, "gemm_f32/neon_8x8", Neon, f32, std::arch::aarch64::float32x4_t, [], cost 100, 8/4 x 2, 8 4 3 2);

/// All rows for f32; the scalar one defines the results up to rounding.
pub static F32: &[Row<f32>] = &[
    SCALAR_F32,
    #[cfg(target_arch = "aarch64")]
    NEON_8,
    #[cfg(target_arch = "x86_64")]
    AVX2_8,
    #[cfg(target_arch = "x86_64")]
    AVX2_16,
    #[cfg(target_arch = "x86_64")]
    AVX512_16,
    #[cfg(target_arch = "x86_64")]
    AVX512_32,
];

/// The row for f64, which only tests compute in.
pub static F64: &[Row<f64>] = &[SCALAR_F64];

/// The row for so many columns: of the best instruction sets the one that takes the least time, columns that it wastes
/// included.
pub fn choose<T: Real>(columns: usize) -> &'static Row<T> {
    let best = isa();
    let rows = T::rows();
    let fast = rows.iter().any(|row| row.isa > Isa::Scalar && row.isa <= best);
    let usable = rows.iter().filter(|row| row.isa <= best && (row.isa > Isa::Scalar || !fast));
    let cost = |row: &&Row<T>| (columns.next_multiple_of(row.width) * row.cost, Reverse(row.width), Reverse(row.isa));
    usable.min_by_key(cost).expect("a scalar row is in every table")
}

impl<T: Real> Row<T> {
    /// Runs a product.
    ///
    /// # Safety
    /// All places that it names are valid; see [`Product`].
    pub unsafe fn product(&self, call: &Product<'_, T>) {
        debug_assert!(call.columns <= self.width);
        if !call.pixels.is_empty() {
            // SAFETY: a row is only reached through `choose`, which checked the features.
            unsafe { (self.product)(call) }
        }
    }

    /// Runs a sum of outer products.
    ///
    /// # Safety
    /// All places that it names are valid; see [`Outer`].
    pub unsafe fn outer(&self, call: &Outer<'_, T>) {
        // SAFETY: as above.
        unsafe { (self.outer)(call) }
    }

    /// Runs a depthwise product.
    ///
    /// # Safety
    /// All places that it names are valid; see [`Depthwise`].
    pub unsafe fn depthwise(&self, call: &Depthwise<'_, T>) {
        if !call.pixels.is_empty() {
            // SAFETY: as above.
            unsafe { (self.depthwise)(call) }
        }
    }

    /// Runs a sum of depthwise outer products.
    ///
    /// # Safety
    /// All places that it names are valid; see [`DepthwiseOuter`].
    pub unsafe fn depthwise_outer(&self, call: &DepthwiseOuter<'_, T>) {
        // SAFETY: as above.
        unsafe { (self.depthwise_outer)(call) }
    }
}

impl<T: Real> Row<T> {
    /// Runs [`winograd::gather`].
    ///
    /// # Safety
    /// All places that it names are valid; see [`Tiles`].
    pub unsafe fn gather(&self, call: &Tiles<'_, T>) {
        // SAFETY: a row is only reached through `choose`, which checked the features.
        unsafe { (self.gather)(call) }
    }

    /// Runs [`winograd::scatter`].
    ///
    /// # Safety
    /// All places that it names are valid; see [`Tiles`].
    pub unsafe fn scatter(&self, call: &Tiles<'_, T>, start: Start<T>) {
        // SAFETY: as above.
        unsafe { (self.scatter)(call, start) }
    }

    /// Runs [`winograd::spread`].
    ///
    /// # Safety
    /// All places that it names are valid; see [`Tiles`].
    pub unsafe fn spread(&self, call: &Tiles<'_, T>) {
        // SAFETY: as above.
        unsafe { (self.spread)(call) }
    }
}

/// Runs a loop that the compiler turns into this machine's vectors: `f` must be inlined whole.
#[inline]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        if isa() >= Isa::Avx2 {
            // SAFETY: `isa` found AVX2 and FMA.
            return unsafe { avx2(f) };
        }
    }
    f()
}
