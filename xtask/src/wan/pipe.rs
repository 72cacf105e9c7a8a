//! One direction of the link: a bottleneck with a drop-tail queue, a delay and random loss.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the link is like, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) rtt_ms: f64,
    pub(super) rate_mbit: f64,
    pub(super) loss_percent: f64,
}

impl Conditions {
    /// Bytes that fit between the two ends: what a perfect window holds.
    pub(super) fn product_bytes(&self) -> f64 {
        self.bytes_per_second() * self.rtt_ms / 1e3
    }

    fn bytes_per_second(&self) -> f64 {
        self.rate_mbit * 125_000.0
    }
}

/// Takes packets at one end and says when each leaves the other. Time is an argument.
#[derive(Debug)]
pub(super) struct Pipe {
    conditions: Conditions,
    /// When the bottleneck has sent all that it holds.
    busy_until: Instant,
    in_flight: VecDeque<(Instant, Vec<u8>)>,
    random: u64,
    pub(super) lost: u64,
    pub(super) overflowed: u64,
}

impl Pipe {
    pub(super) fn new(conditions: Conditions, seed: u64, now: Instant) -> Self {
        // Any odd number will do for the generator, and the constant keeps small seeds apart.
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self { conditions, busy_until: now, in_flight: VecDeque::new(), random, lost: 0, overflowed: 0 }
    }

    /// Queues, loses or drops a packet.
    pub(super) fn enter(&mut self, now: Instant, packet: &[u8]) {
        if self.chance() * 100.0 < self.conditions.loss_percent {
            self.lost += 1;
            return;
        }
        let rate = self.conditions.bytes_per_second();
        let queued_bytes = self.busy_until.saturating_duration_since(now).as_secs_f64() * rate;
        let room_bytes = (self.conditions.product_bytes() * QUEUE_PRODUCTS).max(MIN_QUEUE_BYTES);
        if queued_bytes + packet.len() as f64 > room_bytes {
            self.overflowed += 1;
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
        self.in_flight.pop_front().map(|(_, packet)| packet)
    }

    /// Uniform in 0..1 (xorshift).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The queue of a router that was laid out by the book: one bandwidth-delay product.
const QUEUE_PRODUCTS: f64 = 1.0;
const MIN_QUEUE_BYTES: f64 = 65_536.0;

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Conditions = Conditions { rtt_ms: 100.0, rate_mbit: 8.0, loss_percent: 0.0 };

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
    fn the_queue_holds_one_product() {
        let now = Instant::now();
        let mut pipe = Pipe::new(LINK, 1, now);
        for _ in 0..120 {
            pipe.enter(now, &[7; 1000]);
        }
        assert_eq!(pipe.overflowed, 20);
    }

    #[test]
    fn loss_is_as_asked_for_and_repeatable() {
        let now = Instant::now();
        let lost = |seed| {
            let mut pipe = Pipe::new(Conditions { loss_percent: 1.0, ..LINK }, seed, now);
            for i in 0..10_000 {
                pipe.enter(now + Duration::from_millis(i), &[7; 1000]);
            }
            pipe.lost
        };
        assert!((50..150).contains(&lost(1)), "{}", lost(1));
        assert_eq!(lost(5), lost(5));
    }
}
