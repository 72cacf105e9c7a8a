//! Pseudo-random bytes and numbers: fast, reproducible, not secret.

/// A xorshift generator (Marsaglia 2003, the 64-bit triple 13, 7, 17).
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// The same seed gives the same noise. The state must not be zero, so zero becomes one.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 up to, not including, `end`; near enough even for a data set.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Fills `buffer`.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }

    /// A log-normal number with this median, by the method of Box and Muller.
    pub(crate) fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        median * (spread * normal).exp()
    }

    /// Above 0, at most 1: a logarithm of it exists.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_sizes_lie_below_the_median() {
        let mut noise = Noise::seeded(1);
        let draws = 20_000;
        let below = (0..draws).filter(|_| noise.log_normal(4000.0, 1.4) < 4000.0).count();
        let share = below as f64 / f64::from(draws);
        assert!((0.48..0.52).contains(&share), "{share}");
    }

    #[test]
    fn bytes_use_all_values_and_no_word_repeats() {
        let mut buffer = vec![0; 1 << 16];
        Noise::seeded(2).fill(&mut buffer);
        let values: std::collections::BTreeSet<u8> = buffer.iter().copied().collect();
        assert_eq!(values.len(), 256);
        let words: std::collections::BTreeSet<&[u8]> = buffer.chunks(8).collect();
        assert_eq!(words.len(), buffer.len() / 8);
    }

    #[test]
    fn a_length_that_is_no_multiple_of_a_word_is_filled_to_its_end() {
        let mut long = [0; 16];
        let mut short = [0; 13];
        Noise::seeded(3).fill(&mut long);
        Noise::seeded(3).fill(&mut short);
        assert_eq!(short, long[..13]);
    }
}
