//! Random streams keyed by (seed, purpose, key).
//!
//! Every random draw of the project comes from a [`Stream`]. A stream belongs to one thing (the
//! start point of the attack on one sample, the scene at one index, the order of one epoch) and
//! is named by what it is for, never shared and never continued from somewhere else. So a result
//! depends neither on batch size nor on neighbours, threads, shards or on how often the program
//! was interrupted, and nothing but the seed has to be stored for an exact resume.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sha2::{Digest, Sha256};

/// A ChaCha8 stream of random numbers, keyed by (seed, purpose, key).
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `key` for `purpose` under the user's `seed`.
    ///
    /// `key` is the sample key, or the little-endian bytes of a counter.
    pub fn keyed(seed: u64, purpose: &str, key: impl AsRef<[u8]>) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update((purpose.len() as u64).to_le_bytes());
        hash.update(purpose.as_bytes());
        hash.update(key.as_ref());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// The stream of a counter, such as a step, an epoch or an index.
    pub fn counted(seed: u64, purpose: &str, counter: u64) -> Self {
        Self::keyed(seed, purpose, counter.to_le_bytes())
    }

    /// Uniform 32 bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Uniform in `[low, high)`.
    pub fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n`; 0 for `n = 0`. The bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box-Muller, cosine branch, evaluated in f64).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.uniform())).cos()) as f32
    }

    /// A uniformly random order of `0..n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_each_part_of_the_key_and_repeat() {
        let first = |seed, purpose: &str, key: &str| Stream::keyed(seed, purpose, key).bits();
        assert_eq!(first(1, "a", "x"), first(1, "a", "x"));
        let all = [first(1, "a", "x"), first(2, "a", "x"), first(1, "b", "x"), first(1, "a", "y")];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| b != a));
        }
        // The length of the purpose is part of the key: ("ab", "c") is not ("a", "bc").
        assert_ne!(first(1, "ab", "c"), first(1, "a", "bc"));
    }

    #[test]
    fn moments_are_those_of_the_named_distributions() {
        let mut stream = Stream::counted(7, "test", 0);
        let n = 20_000;
        let draws: Vec<f32> = (0..n).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        let mut seen = stream.permutation(100);
        assert_ne!(seen, (0..100).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!((0..1000).all(|_| stream.below(3) < 3));
    }
}
