//! Random numbers by counter: element `i` of place `p` in step `s` has its number whatever was drawn before, so that
//! dropout depends neither on threads nor on where a run was resumed.

/// A well mixed 64-bit number from another (the finalizer of SplitMix64; Steele, Lea, Flood 2014).
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Uniform numbers are multiples of one over it.
const GRID: f32 = 16_777_216.0;

/// The stream of one place (a node) in one step.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of `place` in the step of this seed.
    pub fn new(seed: u64, place: u64) -> Self {
        Self {
            key: mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
                ^ mix(place.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ 0x632b_e59b),
        }
    }

    /// What its numbers are made of, for those who make them elsewhere.
    pub fn key(self) -> u64 {
        self.key
    }

    /// 64 bits, number `i`.
    #[inline]
    pub fn bits(self, i: u64) -> u64 {
        mix(self.key.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Number `i`, uniform in [0, 1) on a grid of 2⁻²⁴ (exact in f32).
    #[inline]
    pub fn uniform(self, i: usize) -> f32 {
        (self.bits(i as u64) >> 40) as f32 * (1.0 / GRID)
    }

    /// The least [`Stream::bits`] of a uniform number of at least `ratio` (from 0 to below 1): to compare integers takes the
    /// compiler a fraction of what it takes to make floats first.
    pub fn least(ratio: f32) -> u64 {
        // Exact: a power of two, and nothing is lost in f64.
        (((f64::from(ratio) * f64::from(GRID)).ceil()) as u64) << 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_bits_is_comparing_numbers() {
        let a = Stream::new(5, 3);
        let grid = [0.0, f32::MIN_POSITIVE, 0.2, 0.5, 0.5_f32.next_up(), 0.999, 1.0_f32.next_down()];
        for ratio in grid.into_iter().chain((0..50).map(|i| a.uniform(i))) {
            let least = Stream::least(ratio);
            assert!((0..2000).all(|i| (a.bits(i) >= least) == (a.uniform(i as usize) >= ratio)), "{ratio}");
        }
    }

    #[test]
    fn numbers_are_uniform_and_streams_differ() {
        let a = Stream::new(1, 0);
        let n = 100_000;
        let mean = (0..n).map(|i| f64::from(a.uniform(i))).sum::<f64>() / n as f64;
        let below = (0..n).filter(|&i| a.uniform(i) < 0.1).count();
        // Five standard deviations: 5 * sqrt(1/12/n) and 5 * sqrt(0.09 * n).
        assert!((mean - 0.5).abs() < 0.0046, "{mean}");
        assert!((9526..=10474).contains(&below), "{below}");
        let equal = |b: Stream| (0..n).filter(|&i| a.uniform(i) == b.uniform(i)).count();
        assert!(equal(Stream::new(2, 0)) < 5 && equal(Stream::new(1, 1)) < 5);
        assert_eq!(equal(Stream::new(1, 0)), n);
    }
}
