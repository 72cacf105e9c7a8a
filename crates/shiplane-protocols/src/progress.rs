//! Progress of a transfer: bytes done, total and rate.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use shiplane_transport::internals::ProgressFn;
use tokio::time::Instant;

use crate::lock;

/// The progress of a transfer. Each value is larger than the one before. The last one of a successful transfer is
/// complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Payload bytes moved so far. They are not verified yet.
    pub moved_bytes: u64,
    /// Payload bytes of the whole transfer.
    pub total_bytes: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

impl Progress {
    /// The average rate so far; `None` before any time has passed.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<u64> {
        let nanos = self.elapsed.as_nanos();
        (u128::from(self.moved_bytes) * NANOS_PER_SECOND).checked_div(nanos)?.try_into().ok()
    }

    /// The time left at that rate; `None` while there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left_bytes = self.total_bytes.saturating_sub(self.moved_bytes);
        let nanos = self.elapsed.as_nanos() * u128::from(left_bytes);
        let nanos = nanos.checked_div(self.moved_bytes.into())?;
        Some(Duration::from_nanos(nanos.try_into().ok()?))
    }
}

/// Creates a progress function that calls `watch` for one transfer of `total_bytes`. Give it to
/// [`LaneOptions::progress`](shiplane_transport::LaneOptions).
///
/// Several chunks may share clones of it if their sizes add up to the total. `watch` is called once per buffer, one call at
/// a time, on the thread that moves the data, so it must be quick. It is not called for an empty transfer.
///
/// ```
/// use shiplane_protocols::{Progress, progress};
/// use shiplane_transport::LaneOptions;
/// let watch = |at: Progress| eprintln!("{} of {}", at.moved_bytes, at.total_bytes);
/// let options = LaneOptions::default().progress(progress(10_000_000, watch));
/// ```
#[must_use]
pub fn progress(total_bytes: u64, watch: impl FnMut(Progress) + Send + 'static) -> ProgressFn {
    HighWater::new(total_bytes, watch).attempt()
}

/// The highest progress of any attempt, so that progress does not fall when one is retried.
pub(crate) struct HighWater {
    total_bytes: u64,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    highest_bytes: u64,
    watch: Box<dyn FnMut(Progress) + Send>,
}

impl HighWater {
    pub(crate) fn new(total_bytes: u64, watch: impl FnMut(Progress) + Send + 'static) -> Arc<Self> {
        let state = State { highest_bytes: 0, watch: Box::new(watch) };
        Arc::new(Self { total_bytes, start: Instant::now(), state: state.into() })
    }

    /// For one attempt, which begins at nothing.
    pub(crate) fn attempt(self: &Arc<Self>) -> ProgressFn {
        let (high_water, moved_bytes) = (Arc::clone(self), Mutex::new(0));
        Arc::new(move |step_bytes| {
            // Held while the watcher is called: calls from several threads must not overtake each other.
            let mut moved_bytes = lock(&moved_bytes);
            *moved_bytes += step_bytes;
            high_water.reach(*moved_bytes);
        })
    }

    fn reach(&self, moved_bytes: u64) {
        let mut state = lock(&self.state);
        if moved_bytes > state.highest_bytes {
            state.highest_bytes = moved_bytes;
            let (total_bytes, elapsed) = (self.total_bytes, self.start.elapsed());
            (state.watch)(Progress { moved_bytes, total_bytes, elapsed });
        }
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_is_heard_once_it_has_come_further() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let high_water = HighWater::new(100, move |at| log.lock().unwrap().push(at.moved_bytes));
        let first = high_water.attempt();
        first(40);
        first(20);
        let second = high_water.attempt();
        for _ in 0..5 {
            second(20);
        }
        second(0);
        assert_eq!(*seen.lock().unwrap(), [40, 60, 80, 100]);
    }

    #[test]
    fn rate_and_rest_follow_from_time_and_bytes() {
        let at = |moved_bytes, secs| Progress {
            moved_bytes,
            total_bytes: 100,
            elapsed: Duration::from_secs(secs),
        };
        assert_eq!(at(50, 5).bytes_per_second(), Some(10));
        assert_eq!(at(50, 5).remaining(), Some(Duration::from_secs(5)));
        assert_eq!(at(50, 0).bytes_per_second(), None);
        assert_eq!(at(0, 5).remaining(), None);
        assert_eq!(at(100, 5).remaining(), Some(Duration::ZERO));
    }
}
