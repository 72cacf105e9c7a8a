//! Random numbers from a seed: SplitMix64 of `rand_xoshiro`, with what tests draw.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Numbers from a seed. The same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Rng(SplitMix64);

impl Rng {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::from_seed(seed.to_le_bytes()))
    }

    /// A generator of its own, which depends on the numbers drawn so far only by its seed.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` up to, not including, `high`; `low` if that leaves none.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number().checked_rem(high.saturating_sub(low)).unwrap_or(0)
    }

    /// As [`between`](Self::between), but with about equally many numbers of each power of two.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let bits =
            self.between(low.max(1).ilog2().into(), u64::from(high.max(2).saturating_sub(1).ilog2()) + 1);
        self.between(low.max(1 << bits), high.min(2 << bits)).max(low)
    }

    /// True with a chance in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.between(0, 1_000_000) < u64::from(per_million)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Log-normal with this median (Box and Muller).
    pub fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Above 0: a logarithm of it exists.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        median * (spread * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }

    /// Poisson with this mean (Knuth).
    pub fn poisson(&mut self, mean: f64) -> f64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0.0);
        while product > limit {
            product *= self.unit();
            count += 1.0;
        }
        count
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() as u64) as usize]
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }

    /// This number of bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_limits() {
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            assert!((3..10).contains(&rng.between(3, 10)));
            assert!((1..1000).contains(&rng.spread(1, 1000)));
            assert!((0.0..1.0).contains(&rng.unit()));
            assert_eq!(rng.between(5, 5), 5);
        }
        assert!(!rng.chance(0) && rng.chance(1_000_000));
    }

    #[test]
    fn half_of_the_log_normal_numbers_lie_below_the_median() {
        let mut rng = Rng::new(1);
        let below = (0..20_000).filter(|_| rng.log_normal(4000.0, 1.4) < 4000.0).count();
        assert!((9_600..10_400).contains(&below), "{below}");
    }

    /// Seeds are written down in tests and documents.
    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.number(), 6_457_827_717_110_365_317);
        assert_eq!(rng.bytes(9)[..8], 3_203_168_211_198_807_973_u64.to_le_bytes());
    }
}
