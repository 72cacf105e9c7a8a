//! Estimates the path's round trip without queues.

use std::time::{Duration, Instant};

/// The least round trip seen, and when it was last seen to hold.
#[derive(Debug, Clone)]
pub(super) struct BaseRtt {
    rtt: Duration,
    confirmed_at: Instant,
}

impl BaseRtt {
    pub(super) fn new(now: Instant, rtt: Duration) -> Self {
        Self { rtt, confirmed_at: now }
    }

    pub(super) fn get(&self) -> Duration {
        self.rtt
    }

    /// Takes a sample: a lesser one replaces, one about as small confirms.
    pub(super) fn observe(&mut self, now: Instant, rtt: Duration) {
        if rtt <= self.rtt {
            *self = Self::new(now, rtt);
        } else if rtt <= self.rtt + self.rtt / CONFIRM_SHARE + CONFIRM_SLACK {
            self.confirmed_at = now;
        }
    }

    /// How long it has not been seen.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.confirmed_at)
    }
}

/// A 64th: less than the queue that we keep ourselves, which must not pass for none.
const CONFIRM_SHARE: u32 = 64;

/// Timers and batches blur any RTT by this much.
const CONFIRM_SLACK: Duration = Duration::from_micros(500);
