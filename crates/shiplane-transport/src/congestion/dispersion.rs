//! Measures the capacity of the bottleneck from the dispersion of bursts.

use std::time::{Duration, Instant};

/// The rate at which bursts are acknowledged. A burst leaves at once (quinn's pacer lets ten packets or more go
/// together), waits in the bottleneck's queue as a whole, and is spread by it to what one packet takes after the
/// other: so this is the bottleneck's rate, whatever else uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct Dispersion {
    burst: Option<Burst>,
    /// The rates of the last bursts, and how many there have been.
    rates: [f64; BURSTS],
    count: usize,
    measured_at: Option<Instant>,
}

/// Packets that left together.
#[derive(Debug, Clone)]
struct Burst {
    sent_at: Instant,
    first_acked_at: Instant,
    last_acked_at: Instant,
    /// Acknowledged after the first.
    bytes: u64,
}

impl Dispersion {
    /// Of one acknowledgement: when its newest packet was sent, and how much it is of.
    pub(super) fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64, mtu: u16) {
        if let Some(burst) = &mut self.burst {
            if burst.sent_at == sent_at {
                burst.bytes += bytes;
                burst.last_acked_at = now;
                return;
            }
            if burst.bytes >= LEAST_SEGMENTS * u64::from(mtu) {
                let spread = burst.last_acked_at.saturating_duration_since(burst.first_acked_at);
                let rate = burst.bytes as f64 / spread.max(SHORTEST_SPREAD).as_secs_f64();
                self.rates[self.count % BURSTS] = rate;
                self.count += 1;
                self.measured_at = Some(now);
            }
        }
        self.burst = Some(Burst { sent_at, first_acked_at: now, last_acked_at: now, bytes: 0 });
    }

    /// What each of the bursts so far has shown at least, once there are [`AGREEING`] of them.
    pub(super) fn least_rate(&self) -> Option<f64> {
        let rates = &self.rates[..self.count.min(BURSTS)];
        (rates.len() >= AGREEING).then(|| rates.iter().copied().fold(f64::INFINITY, f64::min))
    }

    /// Bytes a second, if a burst has shown it lately.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        if now.saturating_duration_since(self.measured_at?) > FRESH {
            return None;
        }
        self.last_rate()
    }

    /// The same, however long ago that was: a small window has no bursts.
    pub(super) fn last_rate(&self) -> Option<f64> {
        // Some are held up, and some are brought together, on their way: the middle one.
        let mut rates = self.rates;
        let rates = &mut rates[..self.count.min(BURSTS)];
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }
}

/// A path may have changed since.
const FRESH: Duration = Duration::from_secs(5);

/// Of fewer after the first one, timers say too little.
const LEAST_SEGMENTS: u64 = 5;

/// 100 µs: timers and batches blur any moment by about as much. Ten packets in less are a gigabit a second or more.
const SHORTEST_SPREAD: Duration = Duration::from_micros(100);

const BURSTS: usize = 7;

/// One alone may have been brought together on its way.
const AGREEING: usize = 2;
