//! The loops that training spends its time in, over a tile of registers: products over pixels, sums of outer products
//! over pixels, and both channel by channel. Convolutions of every kind, their gradients and matrix products are lists
//! of pixels and runs for these.

// Loops over registers have constant ends and are unrolled whole; an index keeps them from becoming memory.
#![expect(clippy::needless_range_loop, reason = "registers are arrays here")]

use super::vector::Vector;

/// A pixel of one tensor beside one of another: places of their first channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pixel {
    /// In the tensor that is read.
    pub x: u32,
    /// In the other one.
    pub y: u32,
}

/// What a sum starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<T> {
    /// 0.
    Zero,
    /// What is there.
    There,
    /// A vector that every pixel gets: the bias of the panel's columns.
    Bias(*const T),
}

/// `y[p.y + j] = start + Σ_r Σ_i x[p.x + runs[r] + i] * panel[(r * len + i) * width + j]` for each pixel p and column j.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, T> {
    /// What is read.
    pub x: *const T,
    /// What is written; no pixel's columns overlap another's.
    pub y: *mut T,
    /// At least one.
    pub pixels: &'a [Pixel],
    /// Beginnings of the runs relative to a pixel.
    pub runs: &'a [u32],
    /// Elements of a run.
    pub len: usize,
    /// Weights, packed to the width of the row; columns beyond `columns` hold 0.
    pub panel: *const T,
    /// Columns to be written, at most the width.
    pub columns: usize,
    /// What the sums start from.
    pub start: Start<T>,
}

/// `d[i * pitch + j] (+)= Σ_p x[p.x + i] * y[p.y + j]` for `i < rows`, `j < columns`.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a, T> {
    /// One tensor.
    pub x: *const T,
    /// The other.
    pub y: *const T,
    /// Summed over.
    pub pixels: &'a [Pixel],
    /// The sums.
    pub d: *mut T,
    /// Distance of their rows.
    pub pitch: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

/// `y[p.y + c] = start + Σ_t x[p.x + taps[t] + c] * w[t * pitch + c]` for `c < channels`.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a, T> {
    /// What is read.
    pub x: *const T,
    /// What is written.
    pub y: *mut T,
    /// At least one.
    pub pixels: &'a [Pixel],
    /// Places of the taps relative to a pixel.
    pub taps: &'a [u32],
    /// Weights, a row of channels for each tap.
    pub w: *const T,
    /// Distance of their rows.
    pub pitch: usize,
    /// Channels.
    pub channels: usize,
    /// What the sums start from.
    pub start: Start<T>,
}

/// `d[t * pitch + c] (+)= Σ_p x[p.x + taps[t] + c] * y[p.y + c]`.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseOuter<'a, T> {
    /// One tensor.
    pub x: *const T,
    /// The other.
    pub y: *const T,
    /// Summed over.
    pub pixels: &'a [Pixel],
    /// Places of the taps relative to a pixel.
    pub taps: &'a [u32],
    /// The sums.
    pub d: *mut T,
    /// Distance of their rows.
    pub pitch: usize,
    /// Channels.
    pub channels: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

/// [`Product`] in tiles of P pixels and Q vectors.
///
/// # Safety
/// The instruction set of V is there; all places that the sums name are valid.
#[inline(always)]
pub unsafe fn product<V: Vector, const P: usize, const HALF: usize, const Q: usize>(call: &Product<'_, V::Scalar>) {
    for pixels in call.pixels.chunks(P) {
        // A short tile computes its last pixel several times: the same value is written again.
        // SAFETY: by this function's contract.
        unsafe {
            if pixels.len() > HALF {
                product_tile::<V, P, Q>(call, pixels);
            } else {
                product_tile::<V, HALF, Q>(call, pixels);
            }
        }
    }
}

#[inline(always)]
unsafe fn product_tile<V: Vector, const P: usize, const Q: usize>(call: &Product<'_, V::Scalar>, pixels: &[Pixel]) {
    // SAFETY: by the contract of `product`; places whose mask is empty, which may lie outside, are neither read nor written.
    unsafe {
        let last = pixels.len() - 1;
        let mut masks = [V::mask(0); Q];
        for q in 0..Q {
            masks[q] = V::mask(call.columns.saturating_sub(q * V::LANES));
        }
        let whole = call.columns == Q * V::LANES;
        let mut sums = [[V::zero(); Q]; P];
        let mut places = [Pixel::default(); P];
        for p in 0..P {
            places[p] = pixels[p.min(last)];
        }
        match call.start {
            Start::Zero => {}
            Start::There => {
                for p in 0..P {
                    for q in 0..Q {
                        let y = call.y.wrapping_add(places[p].y as usize + q * V::LANES);
                        sums[p][q] = if whole { V::load(y) } else { V::load_part(y, masks[q]) };
                    }
                }
            }
            Start::Bias(bias) => {
                for q in 0..Q {
                    let b = bias.wrapping_add(q * V::LANES);
                    let b = if whole { V::load(b) } else { V::load_part(b, masks[q]) };
                    for p in 0..P {
                        sums[p][q] = b;
                    }
                }
            }
        }
        let mut w = call.panel;
        for &run in call.runs {
            let mut x = [call.x; P];
            for p in 0..P {
                x[p] = call.x.add(places[p].x as usize + run as usize);
            }
            for i in 0..call.len {
                let mut weights = [V::zero(); Q];
                for q in 0..Q {
                    weights[q] = V::load(w.add(q * V::LANES));
                }
                for p in 0..P {
                    let x = V::splat(x[p].add(i));
                    for q in 0..Q {
                        sums[p][q] = sums[p][q].add_product(x, weights[q]);
                    }
                }
                w = w.add(Q * V::LANES);
            }
        }
        for p in 0..P {
            for q in 0..Q {
                let y = call.y.wrapping_add(places[p].y as usize + q * V::LANES);
                if whole {
                    sums[p][q].store(y);
                } else {
                    sums[p][q].store_part(y, masks[q]);
                }
            }
        }
    }
}

/// [`Outer`] in tiles of at most `R1` (then `R2`, `R3`, `R4`, 1) rows and Q vectors.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub unsafe fn outer<V: Vector, const R1: usize, const R2: usize, const R3: usize, const R4: usize, const Q: usize>(
    call: &Outer<'_, V::Scalar>,
) {
    let mut j = 0;
    while j < call.columns {
        let mut i = 0;
        while i < call.rows {
            let left = call.rows - i;
            // SAFETY: by this function's contract; tile by tile inside rows and columns.
            unsafe {
                i += if left >= R1 {
                    outer_tile::<V, R1, Q>(call, i, j)
                } else if left >= R2 {
                    outer_tile::<V, R2, Q>(call, i, j)
                } else if left >= R3 {
                    outer_tile::<V, R3, Q>(call, i, j)
                } else if left >= R4 {
                    outer_tile::<V, R4, Q>(call, i, j)
                } else {
                    outer_tile::<V, 1, Q>(call, i, j)
                };
            }
        }
        j += Q * V::LANES;
    }
}

#[inline(always)]
unsafe fn outer_tile<V: Vector, const R: usize, const Q: usize>(
    call: &Outer<'_, V::Scalar>,
    i: usize,
    j: usize,
) -> usize {
    // SAFETY: by the contract of `outer`; places whose mask is empty, which may lie outside, are neither read nor written.
    unsafe {
        let columns = call.columns - j;
        let mut masks = [V::mask(0); Q];
        for q in 0..Q {
            masks[q] = V::mask(columns.saturating_sub(q * V::LANES));
        }
        let whole = columns >= Q * V::LANES;
        let (x, y) = (call.x.add(i), call.y.add(j));
        let d = call.d.add(i * call.pitch + j);
        let mut sums = [[V::zero(); Q]; R];
        if call.add {
            for r in 0..R {
                for q in 0..Q {
                    let d = d.wrapping_add(r * call.pitch + q * V::LANES);
                    sums[r][q] = if whole { V::load(d) } else { V::load_part(d, masks[q]) };
                }
            }
        }
        if whole {
            for pixel in call.pixels {
                let (x, y) = (x.add(pixel.x as usize), y.add(pixel.y as usize));
                let mut right = [V::zero(); Q];
                for q in 0..Q {
                    right[q] = V::load(y.add(q * V::LANES));
                }
                for r in 0..R {
                    let left = V::splat(x.add(r));
                    for q in 0..Q {
                        sums[r][q] = sums[r][q].add_product(left, right[q]);
                    }
                }
            }
        } else {
            for pixel in call.pixels {
                let (x, y) = (x.add(pixel.x as usize), y.add(pixel.y as usize));
                let mut right = [V::zero(); Q];
                for q in 0..Q {
                    right[q] = V::load_part(y.wrapping_add(q * V::LANES), masks[q]);
                }
                for r in 0..R {
                    let left = V::splat(x.add(r));
                    for q in 0..Q {
                        sums[r][q] = sums[r][q].add_product(left, right[q]);
                    }
                }
            }
        }
        for r in 0..R {
            for q in 0..Q {
                let d = d.wrapping_add(r * call.pitch + q * V::LANES);
                if whole {
                    sums[r][q].store(d);
                } else {
                    sums[r][q].store_part(d, masks[q]);
                }
            }
        }
    }
    R
}

/// [`Depthwise`], four pixels and one vector of channels at a time.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub unsafe fn depthwise<V: Vector>(call: &Depthwise<'_, V::Scalar>) {
    // SAFETY: by this function's contract; lanes beyond the channels are masked.
    unsafe {
        let mut c = 0;
        while c < call.channels {
            let mask = V::mask(call.channels - c);
            if call.channels - c >= V::LANES {
                depthwise_channels::<V, false>(call, c, mask);
            } else {
                depthwise_channels::<V, true>(call, c, mask);
            }
            c += V::LANES;
        }
    }
}

/// A vector from memory, whole or in part.
#[inline(always)]
unsafe fn load<V: Vector, const PART: bool>(p: *const V::Scalar, mask: V::Mask) -> V {
    // SAFETY: the caller's pointer is valid for the lanes of the mask, or all.
    unsafe { if PART { V::load_part(p, mask) } else { V::load(p) } }
}

#[inline(always)]
unsafe fn depthwise_channels<V: Vector, const PART: bool>(call: &Depthwise<'_, V::Scalar>, c: usize, mask: V::Mask) {
    // SAFETY: by the contract of `depthwise`.
    unsafe {
        for pixels in call.pixels.chunks(4) {
            let last = pixels.len() - 1;
            let mut places = [Pixel::default(); 4];
            for p in 0..4 {
                places[p] = pixels[p.min(last)];
            }
            let mut sums = [V::zero(); 4];
            match call.start {
                Start::Zero => {}
                Start::There => {
                    for p in 0..4 {
                        sums[p] = load::<V, PART>(call.y.add(places[p].y as usize + c), mask);
                    }
                }
                Start::Bias(bias) => sums = [load::<V, PART>(bias.add(c), mask); 4],
            }
            for (t, &tap) in call.taps.iter().enumerate() {
                let w = load::<V, PART>(call.w.add(t * call.pitch + c), mask);
                for p in 0..4 {
                    let x = load::<V, PART>(call.x.add(places[p].x as usize + tap as usize + c), mask);
                    sums[p] = sums[p].add_product(x, w);
                }
            }
            for p in 0..4 {
                let y = call.y.add(places[p].y as usize + c);
                if PART {
                    sums[p].store_part(y, mask);
                } else {
                    sums[p].store(y);
                }
            }
        }
    }
}

/// [`DepthwiseOuter`], up to nine taps and one vector of channels at a time.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub unsafe fn depthwise_outer<V: Vector>(call: &DepthwiseOuter<'_, V::Scalar>) {
    let mut t = 0;
    while t < call.taps.len() {
        let left = call.taps.len() - t;
        // SAFETY: by this function's contract.
        unsafe {
            t += if left >= 9 {
                depthwise_taps::<V, 9>(call, t)
            } else if left >= 3 {
                depthwise_taps::<V, 3>(call, t)
            } else {
                depthwise_taps::<V, 1>(call, t)
            };
        }
    }
}

#[inline(always)]
unsafe fn depthwise_taps<V: Vector, const T: usize>(call: &DepthwiseOuter<'_, V::Scalar>, t: usize) -> usize {
    // SAFETY: by the contract of `depthwise_outer`; lanes beyond the channels are masked.
    unsafe {
        let mut taps = [0; T];
        for k in 0..T {
            taps[k] = call.taps[t + k] as usize;
        }
        let mut c = 0;
        while c < call.channels {
            let mask = V::mask(call.channels - c);
            let part = call.channels - c < V::LANES;
            let d = call.d.add(t * call.pitch + c);
            let mut sums = [V::zero(); T];
            if call.add {
                for k in 0..T {
                    sums[k] = V::load_part(d.add(k * call.pitch), mask);
                }
            }
            for pixel in call.pixels {
                let (x, y) = (call.x.add(pixel.x as usize + c), call.y.add(pixel.y as usize + c));
                let right = if part { V::load_part(y, mask) } else { V::load(y) };
                for k in 0..T {
                    let x = x.add(taps[k]);
                    let left = if part { V::load_part(x, mask) } else { V::load(x) };
                    sums[k] = sums[k].add_product(left, right);
                }
            }
            for k in 0..T {
                sums[k].store_part(d.add(k * call.pitch), mask);
            }
            c += V::LANES;
        }
    }
    T
}
