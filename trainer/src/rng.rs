//! Seeded random numbers. Every use has its own stream, named by a purpose and two numbers (epoch, sample, …), so that
//! nothing depends on how much another use drew, and a resumed run needs no saved generator.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// First values of the parameters.
    Initialize = 1,
    /// Which training samples are kept for validation.
    Validation = 2,
    /// Which training samples make a subset.
    Subset = 3,
    /// The order of an epoch.
    Shuffle = 4,
    /// The augmentation of one sample in one epoch.
    Augment = 5,
    /// Dropout masks of one step.
    Dropout = 6,
    /// The augmentation of the sample that another one is mixed with.
    Partner = 7,
    /// Which training samples a replica learns from.
    Shard = 9,
    /// Which training samples keep their label.
    Labelled = 10,
}

/// A stream of random numbers.
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of `seed` for a purpose; `a` and `b` tell its streams apart.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0_u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in `0..n`, without bias; `n` of at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let bits = self.bits();
            if bits < limit {
                return bits % n;
            }
        }
    }

    /// Normal with mean 0 and deviation 1: Marsaglia's polar method, one of the pair.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = x * x + y * y;
            if s > 0.0 && s < 1.0 {
                return x * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let first = |seed, purpose, a, b| Rng::new(seed, purpose, a, b).bits();
        let base = first(1, Purpose::Shuffle, 2, 3);
        assert_eq!(base, first(1, Purpose::Shuffle, 2, 3));
        for other in [
            first(2, Purpose::Shuffle, 2, 3),
            first(1, Purpose::Augment, 2, 3),
            first(1, Purpose::Shuffle, 3, 3),
            first(1, Purpose::Shuffle, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn normal_has_the_moments_of_a_normal() {
        let mut rng = Rng::new(7, Purpose::Initialize, 0, 0);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            squares += x * x;
        }
        // Five standard errors: 1/sqrt(n) of the mean, sqrt(2/n) of the variance.
        assert!((sum / f64::from(n)).abs() < 5.0 / f64::from(n).sqrt());
        assert!((squares / f64::from(n) - 1.0).abs() < 5.0 * (2.0 / f64::from(n)).sqrt());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(1, Purpose::Shuffle, 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
