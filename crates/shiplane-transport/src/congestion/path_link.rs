//! The bottleneck of the [model](super::path_model) and its faults.

use std::time::Duration;

/// The path that all flows share.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) rate_mbit: f64,
    pub(super) rtt_ms: f64,
    pub(super) queue_bytes: f64,
    /// The share of packets that is lost at random.
    pub(super) loss: f64,
    pub(super) policer: Option<Policer>,
    pub(super) seed: u64,
    /// The average jitter of a Wi-Fi network, see [`Self::jitter_ms`].
    wifi_jitter_ms: f64,
    /// The longest of another delay every so often.
    wander_ms: f64,
    /// From when to when nothing moves in either direction.
    freezes: Vec<(Duration, Duration)>,
}

/// A token bucket that drops what exceeds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policer {
    pub(super) bytes_per_sec: f64,
    pub(super) burst_bytes: f64,
}

impl Link {
    /// With a queue of one bandwidth-delay product.
    pub(super) fn new(rate_mbit: f64, rtt_ms: f64) -> Self {
        let link = Self {
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
        link.queue(1.0)
    }

    pub(super) fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub(super) fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// In bandwidth-delay products.
    pub(super) fn queue(self, products: f64) -> Self {
        let queue_bytes = (products * self.bdp()).max(MIN_QUEUE_BYTES);
        Self { queue_bytes, ..self }
    }

    pub(super) fn queue_ms(self, ms: f64) -> Self {
        let queue_bytes = (ms / 1e3 * self.bytes_per_sec()).max(MIN_QUEUE_BYTES);
        Self { queue_bytes, ..self }
    }

    pub(super) fn policed(self, rate_mbit: f64, burst_bytes: f64) -> Self {
        let bytes_per_sec = rate_mbit * 125_000.0;
        Self { policer: Some(Policer { bytes_per_sec, burst_bytes }), ..self }
    }

    pub(super) fn wifi_jitter(self, average_ms: f64) -> Self {
        Self { wifi_jitter_ms: average_ms, ..self }
    }

    /// An additional delay of up to so much, another one every 20 ms.
    pub(super) fn wandering(self, most_ms: f64) -> Self {
        Self { wander_ms: most_ms, ..self }
    }

    /// The additional delay of this moment.
    pub(super) fn wandered_ms(&self, at: Duration) -> f64 {
        let period = at.as_millis() as u64 / 20;
        Random::new(self.seed.wrapping_mul(1_000_003) + period).nth(3) * self.wander_ms
    }

    /// Nothing moves for so long every so often, each random by half.
    pub(super) fn freezing(mut self, every_ms: f64, for_ms: f64) -> Self {
        let mut random = Random::new(self.seed ^ 0x5EED);
        let mut at_ms = 0.0;
        while at_ms < FREEZES_END_MS {
            at_ms += every_ms * (0.5 + random.chance());
            let until_ms = at_ms + for_ms * (0.5 + random.chance());
            self = self.frozen(at_ms, until_ms);
            at_ms = until_ms;
        }
        self
    }

    /// Nothing moves between these times. Later ones come later.
    pub(super) fn frozen(mut self, from_ms: f64, until_ms: f64) -> Self {
        let at = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        self.freezes.push((at(from_ms), at(until_ms)));
        self
    }

    /// The share of the time in which the link moves.
    pub(super) fn moving_share(&self, secs: f64) -> f64 {
        let end = Duration::from_secs_f64(secs);
        let frozen = self.freezes.iter().map(|&(from, until)| until.min(end).saturating_sub(from));
        1.0 - frozen.sum::<Duration>().as_secs_f64() / secs
    }

    pub(super) fn bytes_per_sec(&self) -> f64 {
        self.rate_mbit * 125_000.0
    }

    pub(super) fn bdp(&self) -> f64 {
        self.bytes_per_sec() * self.rtt_ms / 1e3
    }

    /// When what would happen at `at` can happen.
    pub(super) fn thaws_at(&self, at: Duration) -> Duration {
        let next = self.freezes.partition_point(|&(from, _)| from <= at);
        let frozen_until = next.checked_sub(1).map(|last| self.freezes[last].1);
        frozen_until.map_or(at, |until| until.max(at))
    }

    /// draft-huitema-ccwg-c4-test, "Handling of High Jitter Environments".
    pub(super) fn jitter_ms(&self, random: &mut Random) -> f64 {
        if self.wifi_jitter_ms == 0.0 {
            return 0.0;
        }
        let deferrals = random.poisson(1.0);
        let share_repeated = ((self.wifi_jitter_ms - 1.0) / 90.0).clamp(0.0, 1.0);
        let repeats = if random.chance() < share_repeated { random.poisson(12.0) } else { 0.0 };
        let avoided = if deferrals >= 1.0 { random.chance() } else { 0.0 };
        deferrals + repeats * 7.5 - avoided
    }
}

/// xorshift.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Uniform in 0..1.
    pub(super) fn chance(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn nth(mut self, n: u32) -> f64 {
        for _ in 1..n {
            self.chance();
        }
        self.chance()
    }

    /// Knuth's method.
    fn poisson(&mut self, mean: f64) -> f64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.chance(), 0.0);
        while product > limit {
            product *= self.chance();
            count += 1.0;
        }
        count
    }
}

/// Ten packets.
const MIN_QUEUE_BYTES: f64 = 14_520.0;

/// Longer than any scenario.
const FREEZES_END_MS: f64 = 200_000.0;
