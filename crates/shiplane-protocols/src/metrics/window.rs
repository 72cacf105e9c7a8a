//! Bytes of the last ten seconds. Time is an argument.

use std::time::Duration;

/// A ring of slots, each the bytes of a tenth of a second.
#[derive(Debug)]
pub(super) struct Window {
    slots: [u64; SLOTS],
    /// The number of the latest slot, counted from the origin.
    newest: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: [0; SLOTS], newest: 0 }
    }
}

impl Window {
    /// `bytes` have moved evenly between `start` and `end`, which is now.
    pub(super) fn add(&mut self, start: Duration, end: Duration, bytes: u64) {
        self.advance(end);
        let first = slot_of(start).max(self.oldest());
        // Of the bytes moved until a slot's end, those until its beginning are in earlier slots.
        let mut before = moved_until(slot_start(first).max(start), start, end, bytes);
        for slot in first..=self.newest {
            let until = if slot == self.newest {
                bytes
            } else {
                moved_until(slot_start(slot + 1), start, end, bytes)
            };
            self.slots[index(slot)] += until - before;
            before = until;
        }
    }

    /// The rate over the window, or over all the time there has been if that is less.
    pub(super) fn bytes_per_second(&mut self, now: Duration) -> u64 {
        self.advance(now);
        let span = now.saturating_sub(slot_start(self.oldest())).max(SLOT);
        let bytes: u128 = self.slots.iter().copied().map(u128::from).sum();
        u64::try_from(bytes * Duration::from_secs(1).as_nanos() / span.as_nanos()).unwrap_or(u64::MAX)
    }

    fn advance(&mut self, now: Duration) {
        let newest = slot_of(now).max(self.newest);
        for slot in (self.newest + 1..=newest).rev().take(SLOTS) {
            self.slots[index(slot)] = 0;
        }
        self.newest = newest;
    }

    fn oldest(&self) -> u64 {
        (self.newest + 1).saturating_sub(SLOTS as u64)
    }
}

/// How many of `bytes` had moved by `time`.
fn moved_until(time: Duration, start: Duration, end: Duration, bytes: u64) -> u64 {
    let (passed, whole) = (time.saturating_sub(start).as_nanos(), end.saturating_sub(start).as_nanos());
    let moved = (u128::from(bytes) * passed).checked_div(whole).unwrap_or(0);
    u64::try_from(moved).map_or(bytes, |moved| moved.min(bytes))
}

fn slot_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX)
}

fn slot_start(slot: u64) -> Duration {
    Duration::from_nanos(slot.saturating_mul(SLOT.as_nanos() as u64))
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// A hundred tenths: the ten seconds over which a person wants to see a rate.
const SLOTS: usize = 100;

const SLOT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn transfers_side_by_side_add_up() {
        let mut window = Window::default();
        for _ in 0..4 {
            window.add(secs(0.0), secs(5.0), 10_000_000);
        }
        assert_eq!(window.bytes_per_second(secs(5.0)), 8_000_000);
    }

    #[test]
    fn a_transfer_of_no_time_counts_in_full() {
        let mut window = Window::default();
        window.add(secs(2.0), secs(2.0), 1000);
        assert_eq!(window.bytes_per_second(secs(2.0)), 500);
    }

    #[test]
    fn of_a_long_transfer_only_the_last_seconds_count() {
        let mut window = Window::default();
        window.add(secs(0.0), secs(100.0), 100_000_000);
        let rate = window.bytes_per_second(secs(100.0));
        assert!((950_000..=1_050_000).contains(&rate), "{rate}");
    }

    #[test]
    fn bytes_older_than_the_window_are_forgotten() {
        let mut window = Window::default();
        window.add(secs(0.0), secs(1.0), 1000);
        assert!(window.bytes_per_second(secs(5.0)) > 0);
        assert_eq!(window.bytes_per_second(secs(11.5)), 0);
        assert_eq!(window.bytes_per_second(secs(1e6)), 0);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_invented(
            transfers in prop::collection::vec((0.0..9.0_f64, 0.0..9.0_f64, 0..1_u64 << 40), 1..20),
        ) {
            let mut window = Window::default();
            let mut total = 0;
            for (a, b, bytes) in &transfers {
                window.add(secs(a.min(*b)), secs(a.max(*b)), *bytes);
                total += bytes;
            }
            prop_assert_eq!(window.slots.iter().sum::<u64>(), total);
        }
    }
}
