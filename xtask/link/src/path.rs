//! What a link is like.

use std::time::Duration;

use crate::Rng;

/// A path in one direction. Builders, so that a test names only what matters to it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Path {
    /// What it carries.
    pub rate_mbit: f64,
    /// The round trip without a queue; one way takes half of it.
    pub rtt_ms: f64,
    /// What waits for the link at most.
    pub queue_bytes: f64,
    /// The share of packets that is lost at random.
    pub loss: f64,
    /// Drops what exceeds a rate, if there is one.
    pub policer: Option<Policer>,
    /// Of all that is random.
    pub seed: u64,
    wifi_jitter_ms: f64,
    wander_ms: f64,
    /// From when to when nothing moves.
    freezes: Vec<(Duration, Duration)>,
}

/// A token bucket that drops what exceeds it.
#[derive(Debug, Clone, Copy)]
pub struct Policer {
    /// The rate.
    pub bytes_per_sec: f64,
    /// What passes at once.
    pub burst_bytes: f64,
}

impl Path {
    /// With a queue of one bandwidth-delay product.
    pub fn new(rate_mbit: f64, rtt_ms: f64) -> Self {
        let path = Self {
            rate_mbit,
            rtt_ms,
            queue_bytes: 0.0,
            loss: 0.0,
            policer: None,
            seed: 1,
            wifi_jitter_ms: 0.0,
            wander_ms: 0.0,
            freezes: Vec::new(),
        };
        path.queue(1.0)
    }

    /// With other chances.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With this share of packets lost.
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// With a queue of so many bandwidth-delay products.
    pub fn queue(self, products: f64) -> Self {
        let queue_bytes = products * self.bdp();
        self.queue_bytes(queue_bytes)
    }

    /// With a queue that takes so long to drain.
    pub fn queue_ms(self, ms: f64) -> Self {
        let queue_bytes = ms / 1e3 * self.bytes_per_sec();
        self.queue_bytes(queue_bytes)
    }

    /// With a queue of so many bytes, and at least ten packets.
    pub fn queue_bytes(self, queue_bytes: f64) -> Self {
        Self { queue_bytes: queue_bytes.max(MIN_QUEUE_BYTES), ..self }
    }

    /// With a policer.
    pub fn policed(self, rate_mbit: f64, burst_bytes: f64) -> Self {
        let bytes_per_sec = rate_mbit * 125_000.0;
        Self { policer: Some(Policer { bytes_per_sec, burst_bytes }), ..self }
    }

    /// With the delays of a Wi-Fi network: draft-huitema-ccwg-c4-test, "Handling of High Jitter Environments".
    pub fn wifi_jitter(self, average_ms: f64) -> Self {
        Self { wifi_jitter_ms: average_ms, ..self }
    }

    /// With an additional delay of up to so much, another one every 20 ms.
    pub fn wandering(self, most_ms: f64) -> Self {
        Self { wander_ms: most_ms, ..self }
    }

    /// Nothing moves for so long every so often, each random by half. For 200 s.
    pub fn freezing(mut self, every_ms: f64, for_ms: f64) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x5EED);
        let mut at_ms = 0.0;
        while at_ms < FREEZES_END_MS {
            at_ms += every_ms * (0.5 + rng.unit());
            let until_ms = at_ms + for_ms * (0.5 + rng.unit());
            self = self.frozen(at_ms, until_ms);
            at_ms = until_ms;
        }
        self
    }

    /// Nothing moves between these times. Later ones come later.
    pub fn frozen(mut self, from_ms: f64, until_ms: f64) -> Self {
        let at = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        self.freezes.push((at(from_ms), at(until_ms)));
        self
    }

    /// The share of the time in which the link moves.
    pub fn moving_share(&self, secs: f64) -> f64 {
        let end = Duration::from_secs_f64(secs);
        let frozen = self.freezes.iter().map(|&(from, until)| until.min(end).saturating_sub(from));
        1.0 - frozen.sum::<Duration>().as_secs_f64() / secs
    }

    /// The rate.
    pub fn bytes_per_sec(&self) -> f64 {
        self.rate_mbit * 125_000.0
    }

    /// The bandwidth-delay product, in bytes.
    pub fn bdp(&self) -> f64 {
        self.bytes_per_sec() * self.rtt_ms / 1e3
    }

    /// Half a round trip.
    pub fn one_way(&self) -> Duration {
        Duration::from_secs_f64(self.rtt_ms / 2e3)
    }

    /// When what would happen at `at` can happen.
    pub fn thaws_at(&self, at: Duration) -> Duration {
        let next = self.freezes.partition_point(|&(from, _)| from <= at);
        let frozen_until = next.checked_sub(1).map(|last| self.freezes[last].1);
        frozen_until.map_or(at, |until| until.max(at))
    }

    /// How much longer than half a round trip a packet that leaves at `at` is on its way.
    pub(crate) fn jitter(&self, rng: &mut Rng, at: Duration) -> Duration {
        let mut ms = 0.0;
        if self.wifi_jitter_ms > 0.0 {
            let deferrals = rng.poisson(1.0);
            let share_repeated = ((self.wifi_jitter_ms - 1.0) / 90.0).clamp(0.0, 1.0);
            let repeats = if rng.unit() < share_repeated { rng.poisson(12.0) } else { 0.0 };
            let avoided = if deferrals >= 1.0 { rng.unit() } else { 0.0 };
            ms += deferrals + repeats * 7.5 - avoided;
        }
        if self.wander_ms > 0.0 {
            let period = at.as_millis() as u64 / 20;
            ms += Rng::new(self.seed.wrapping_mul(1_000_003) + period).unit() * self.wander_ms;
        }
        Duration::from_secs_f64(ms / 1e3)
    }
}

/// Ten packets.
const MIN_QUEUE_BYTES: f64 = 14_520.0;

/// Longer than any scenario.
const FREEZES_END_MS: f64 = 200_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezes_last_as_long_as_asked_for_at_random_intervals() {
        let path = Path::new(1.0, 1.0).freezing(500.0, 20.0);
        let intervals: Vec<_> = path.freezes.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
        assert!(intervals.iter().all(|gap| (250..=750).contains(&gap.as_millis())), "{intervals:?}");
        assert!((0.95..0.98).contains(&path.moving_share(100.0)), "{}", path.moving_share(100.0));
        let (from, until) = path.freezes[3];
        assert_eq!(path.thaws_at(from), until);
        assert_eq!(path.thaws_at(until), until);
    }
}
