//! One direction of the link: a bottleneck with a drop-tail queue, a delay and random loss.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the link is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(super) rtt_ms: f64,
    /// In the direction of the data.
    pub(super) rate_mbit: f64,
    /// In the other direction.
    pub(super) back_mbit: f64,
    /// In each direction.
    pub(super) loss_percent: f64,
    pub(super) freeze: Option<Freeze>,
    /// A token bucket at the sender, in addition to the rate.
    pub(super) bucket_kbit: Option<u32>,
}

/// The whole link stops now and then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freeze {
    pub(super) len_ms: u64,
    /// The mean of the intervals; each is random within half of it.
    pub(super) every_ms: u64,
}

impl Conditions {
    pub(super) const fn new(rtt_ms: f64, rate_mbit: f64, loss_percent: f64) -> Self {
        Self { rtt_ms, rate_mbit, back_mbit: rate_mbit, loss_percent, freeze: None, bucket_kbit: None }
    }

    /// A link of which the sender's own interface lets so much through.
    pub(crate) fn behind_bucket(kbit: u32) -> Self {
        Self { bucket_kbit: Some(kbit), ..Self::new(20.0, 1000.0, 0.0) }
    }

    /// The same link as the other direction sees it.
    pub(super) fn reversed(self) -> Self {
        Self { rate_mbit: self.back_mbit, back_mbit: self.rate_mbit, ..self }
    }

    /// The bandwidth-delay product.
    pub(super) fn product_bytes(&self) -> f64 {
        self.bytes_per_second() * self.rtt_ms / 1e3
    }

    fn bytes_per_second(&self) -> f64 {
        self.rate_mbit * 125_000.0
    }
}

/// Counts what a direction carries.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    data_packets: AtomicU64,
    data_bytes: AtomicU64,
    carried_bytes: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Packets that the sender put on the link, acknowledgements excluded, dropped ones included.
    pub(super) data_packets: u64,
    /// Their bytes, IP headers included.
    pub(super) data_bytes: u64,
    /// Bytes of all packets that arrived.
    pub(crate) carried_bytes: u64,
}

impl Traffic {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            data_packets: self.data_packets.load(Ordering::Relaxed),
            data_bytes: self.data_bytes.load(Ordering::Relaxed),
            carried_bytes: self.carried_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Takes packets at one end and says when each leaves the other. Time is an argument.
#[derive(Debug)]
pub(super) struct Pipe {
    conditions: Conditions,
    /// When the bottleneck has sent all that it holds.
    busy_until: Instant,
    in_flight: VecDeque<(Instant, Vec<u8>)>,
    random: Random,
    traffic: Arc<Traffic>,
}

impl Pipe {
    pub(super) fn new(conditions: Conditions, seed: u64, now: Instant) -> Self {
        let (random, traffic) = (Random::seeded(seed), Arc::default());
        Self { conditions, busy_until: now, in_flight: VecDeque::new(), random, traffic }
    }

    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Queues or drops a packet.
    pub(super) fn enter(&mut self, now: Instant, packet: &[u8]) {
        if packet.len() >= MIN_DATA_PACKET_BYTES {
            self.traffic.data_packets.fetch_add(1, Ordering::Relaxed);
            self.traffic.data_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        let is_lost = self.random.chance() * 100.0 < self.conditions.loss_percent;
        let rate = self.conditions.bytes_per_second();
        let queued_bytes = self.busy_until.saturating_duration_since(now).as_secs_f64() * rate;
        let room_bytes = (self.conditions.product_bytes() * QUEUE_PRODUCTS).max(MIN_QUEUE_BYTES);
        if is_lost || queued_bytes + packet.len() as f64 > room_bytes {
            return;
        }
        self.busy_until = self.busy_until.max(now) + Duration::from_secs_f64(packet.len() as f64 / rate);
        let delay = Duration::from_secs_f64(self.conditions.rtt_ms / 2e3);
        self.in_flight.push_back((self.busy_until + delay, packet.to_vec()));
    }

    /// When the next packet leaves.
    pub(super) fn next_leaves(&self) -> Option<Instant> {
        self.in_flight.front().map(|&(at, _)| at)
    }

    /// The next packet whose time has come.
    pub(super) fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_leaves()? > now {
            return None;
        }
        let (_, packet) = self.in_flight.pop_front()?;
        self.traffic.carried_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        Some(packet)
    }
}

/// Says when the link is frozen. Time is an argument.
#[derive(Debug)]
pub(super) struct Freezes {
    freeze: Freeze,
    next_at: Instant,
    until: Instant,
    random: Random,
}

impl Freezes {
    pub(super) fn new(freeze: Freeze, seed: u64, now: Instant) -> Self {
        let mut freezes = Self { freeze, next_at: now, until: now, random: Random::seeded(seed) };
        freezes.next_at = now + freezes.interval();
        freezes
    }

    /// When the freeze ends, if the link is frozen at `now`.
    pub(super) fn frozen_until(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.next_at {
            self.until = now + Duration::from_millis(self.freeze.len_ms);
            self.next_at = now + self.interval();
        }
        (now < self.until).then_some(self.until)
    }

    fn interval(&mut self) -> Duration {
        Duration::from_millis(self.freeze.every_ms).mul_f64(0.5 + self.random.chance())
    }
}

/// xorshift.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        // Any odd number will do, and the constant keeps small seeds apart.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Uniform in 0..1.
    fn chance(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The queue of a router that was laid out by the book: one bandwidth-delay product.
const QUEUE_PRODUCTS: f64 = 1.0;
const MIN_QUEUE_BYTES: f64 = 65_536.0;

/// Acknowledgements and keep-alives are shorter.
const MIN_DATA_PACKET_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Conditions = Conditions::new(100.0, 8.0, 0.0);

    #[test]
    fn a_packet_takes_its_own_time_and_the_delay() {
        let now = Instant::now();
        let mut pipe = Pipe::new(LINK, 1, now);
        pipe.enter(now, &[7; 1000]);
        pipe.enter(now, &[8; 1000]);
        assert_eq!(pipe.next_leaves(), Some(now + Duration::from_millis(51)));
        assert!(pipe.leave(now + Duration::from_millis(50)).is_none());
        assert_eq!(pipe.leave(now + Duration::from_millis(51)), Some(vec![7; 1000]));
        assert!(pipe.leave(now + Duration::from_millis(51)).is_none(), "the second waits for the first");
        assert!(pipe.leave(now + Duration::from_millis(52)).is_some());
    }

    #[test]
    fn the_queue_holds_one_product_and_dropped_packets_are_counted_as_sent() {
        let now = Instant::now();
        let mut pipe = Pipe::new(LINK, 1, now);
        for _ in 0..120 {
            pipe.enter(now, &[7; 1000]);
        }
        pipe.enter(now, &[7; 40]);
        while pipe.leave(now + Duration::from_secs(1)).is_some() {}
        let counts = Counts { data_packets: 120, data_bytes: 120_000, carried_bytes: 100_000 };
        assert_eq!(pipe.traffic().counts(), counts);
    }

    #[test]
    fn loss_is_as_asked_for_and_repeatable() {
        let now = Instant::now();
        let lost = |seed| {
            let mut pipe = Pipe::new(Conditions { loss_percent: 1.0, ..LINK }, seed, now);
            for i in 0..10_000 {
                pipe.enter(now + Duration::from_millis(i), &[7; 1000]);
            }
            10_000 - pipe.in_flight.len()
        };
        assert!((50..150).contains(&lost(1)), "{}", lost(1));
        assert_eq!(lost(5), lost(5));
    }

    #[test]
    fn freezes_last_as_long_as_asked_for_at_random_intervals() {
        let start = Instant::now();
        let mut freezes = Freezes::new(Freeze { len_ms: 20, every_ms: 500 }, 1, start);
        let is_frozen: Vec<bool> = (0..100_000)
            .map(|ms| freezes.frozen_until(start + Duration::from_millis(ms)).is_some())
            .collect();
        let starts: Vec<usize> =
            (1..is_frozen.len()).filter(|&i| is_frozen[i] && !is_frozen[i - 1]).collect();
        let intervals: Vec<usize> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(intervals.iter().all(|ms| (250..=751).contains(ms)), "{intervals:?}");
        assert!((160..240).contains(&starts.len()), "{}", starts.len());
        let frozen_ms = is_frozen.iter().filter(|&&is_frozen| is_frozen).count();
        assert!(frozen_ms.abs_diff(20 * starts.len()) <= 20, "{frozen_ms}");
    }
}
