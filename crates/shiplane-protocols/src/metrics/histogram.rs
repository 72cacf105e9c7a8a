//! A histogram of durations, by powers of two of a millisecond.

use std::time::Duration;

/// How many transfers took how long, in buckets that double from 1 ms to over two hours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DurationHistogram {
    counts: [u64; BUCKETS],
}

impl DurationHistogram {
    pub(super) fn record(&mut self, duration: Duration) {
        let bucket = (0..BUCKETS - 1).find(|bucket| duration <= upper_bound(*bucket)).unwrap_or(BUCKETS - 1);
        self.counts[bucket] += 1;
    }

    /// Each bucket's upper bound, `None` for the last, with the number of transfers in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .map(|(bucket, count)| ((bucket < BUCKETS - 1).then(|| upper_bound(bucket)), *count))
    }

    /// How many in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A duration that this part of the transfers (0 to 1) did not exceed, at most twice the least such
    /// one; `None` if there are none, or it lies beyond the last bound.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let needed = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= needed
        })?;
        (reached < BUCKETS - 1).then(|| upper_bound(reached))
    }
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_millis(1 << bucket)
}

/// 1 ms · 2^23 is over two hours; one more for what is longer.
const BUCKETS: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_bounds_within_a_factor_of_two() {
        let mut histogram = DurationHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for ms in 1..=100 {
            histogram.record(Duration::from_millis(ms));
        }
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_millis(64)));
        assert_eq!(histogram.quantile(0.0), Some(Duration::from_millis(1)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_millis(128)));
        histogram.record(Duration::from_secs(1_000_000));
        assert_eq!(histogram.quantile(1.0), None);
        assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), 101);
    }

    #[test]
    fn a_duration_of_nothing_has_a_bucket() {
        let mut histogram = DurationHistogram::default();
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.buckets().next(), Some((Some(Duration::from_millis(1)), 1)));
    }
}
