//! The rate of a transfer, averaged over the last few seconds.

use std::time::{Duration, Instant};

/// Bytes a second. Time is an argument, so that tests need no waiting.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_second: f64,
    sampled_at: Instant,
    sampled_bytes: u64,
    has_sample: bool,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bytes_per_second: 0.0, sampled_at: now, sampled_bytes: 0, has_sample: false }
    }

    /// Counts the bytes that have moved in all.
    pub(crate) fn moved(&mut self, bytes: u64, now: Instant) {
        let elapsed = now.duration_since(self.sampled_at);
        if bytes == 0 {
            // The time before the first byte does not count.
            self.sampled_at = now;
        } else if elapsed >= RATE_INTERVAL {
            let sample = bytes.saturating_sub(self.sampled_bytes) as f64 / elapsed.as_secs_f64();
            let weight =
                if self.has_sample { 1.0 - (-elapsed.as_secs_f64() / RATE_SECONDS).exp() } else { 1.0 };
            self.bytes_per_second += (sample - self.bytes_per_second) * weight;
            (self.sampled_at, self.sampled_bytes, self.has_sample) = (now, bytes, true);
        }
    }

    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.round() as u64
    }
}

/// Shorter intervals show bursts rather than a rate.
const RATE_INTERVAL: Duration = Duration::from_millis(200);

/// Two seconds' worth: steady, and soon right when the path changes.
const RATE_SECONDS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_arriving_bytes_and_begins_with_the_first() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let after = |ms| start + Duration::from_millis(ms);
        rate.moved(0, after(5000));
        assert_eq!(rate.bytes_per_second(), 0);
        for second in 1..=10 {
            rate.moved(second * 1000, after(5000 + second * 1000));
        }
        assert_eq!(rate.bytes_per_second(), 1000);
        rate.moved(10_000, after(30_000));
        assert!(rate.bytes_per_second() < 100);
    }
}
