//! Randomness from the seed, for the simulation and for requests to the system.
//!
//! The standard library keys its hash maps with `getrandom`, and through them tokio the order in which `select!`
//! looks at its branches; connection ids come from there, too. So this program has a `getrandom` of its own,
//! which answers from the seed on the threads of a simulation. What asks the kernel by another way (ring: keys,
//! transfer ids) stays random; it decides contents of packets, not their sizes nor their times.

use std::cell::Cell;

/// Numbers from a seed: SplitMix64, which is small, fast and good enough to make trouble with.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other numbers, which depend on those before only by the seed.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` on and below `high`; `low`, if there is none.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number().checked_rem(high.saturating_sub(low)).unwrap_or(0)
    }

    /// The same, with as many small numbers as large ones: of each power of two about equally many.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let bits =
            self.between(low.max(1).ilog2().into(), u64::from(high.max(2).saturating_sub(1).ilog2()) + 1);
        self.between(low.max(1 << bits), high.min(2 << bits)).max(low)
    }

    /// True so many times of a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.between(0, 1_000_000) < u64::from(per_million)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.between(0, from.len() as u64)).unwrap_or(0)]
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// From now on what this thread asks of the system's randomness comes from this seed.
pub(crate) fn seed_thread(seed: u64) {
    STATE.with(|state| state.set(Some(seed)));
}

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// In place of the C library's.
#[expect(unsafe_code, reason = "it has to have that name, and it is given a pointer")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: whoever calls `getrandom` owns that many bytes there.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    fill(buffer);
    len.cast_signed()
}

fn fill(buffer: &mut [u8]) {
    let seeded = STATE.try_with(Cell::get).ok().flatten();
    if let Some(seed) = seeded {
        let mut rng = Rng(seed);
        buffer.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.number().to_le_bytes()[..part.len()]));
        let _ = STATE.try_with(|state| state.set(Some(rng.0)));
        return;
    }
    let mut filled = 0;
    while filled < buffer.len() {
        // Straight from the kernel, not through the function above.
        filled += rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())
            .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn what_is_asked_of_the_system_comes_from_the_seed() {
        let hash_of = |seed| {
            let asking = std::thread::spawn(move || {
                seed_thread(seed);
                RandomState::new().hash_one(1)
            });
            asking.join().unwrap()
        };
        assert_eq!(hash_of(1), hash_of(1));
        assert_ne!(hash_of(1), hash_of(2));
    }

    #[test]
    fn numbers_stay_within_their_limits() {
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            assert!((3..10).contains(&rng.between(3, 10)));
            assert!((1..1000).contains(&rng.spread(1, 1000)));
            assert_eq!(rng.between(5, 5), 5);
        }
        assert!(!rng.chance(0) && rng.chance(1_000_000));
    }
}
