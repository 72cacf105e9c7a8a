//! A hash of everything that happened, equal for equal seeds.

use std::sync::Arc;

use parking_lot::Mutex;

/// A digest of everything that was noted, in order. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Mutex<u64>>);

impl Trace {
    /// Adds what has happened.
    pub fn note(&self, what: &[u64]) {
        let mut digest = self.0.lock();
        for number in what {
            *digest = (*digest ^ number).wrapping_mul(FACTOR).rotate_left(29);
        }
    }

    /// So far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        *self.0.lock()
    }
}

/// An odd number with its bits well spread.
const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;
