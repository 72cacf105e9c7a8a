//! One direction of the network: delivers, drops or alters each datagram.

use std::time::Duration;

use testlink::{Path, Rng};

use super::{MAX_DELAY, faults::Faults};

/// The way from one socket to the others: a link, and the faults of the seed on top of it.
#[derive(Debug)]
pub(super) struct Link {
    link: testlink::Link<()>,
    is_bad: bool,
}

/// What becomes of one copy of a datagram that arrives.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) flipped_bits: Vec<usize>,
}

impl Link {
    pub(super) fn new(faults: &Faults) -> Self {
        let path = Path::new(mbit(faults.bytes_per_second), 2.0 * faults.delay.as_secs_f64() * 1e3);
        let link = testlink::Link::new(path.queue_bytes(faults.queue_len_bytes as f64));
        Self { link, is_bad: false }
    }

    /// From now on it carries so much.
    pub(super) fn set_rate(&mut self, now: Duration, bytes_per_second: u64) {
        self.link.change(now, |path| path.rate_mbit = mbit(bytes_per_second));
    }

    /// Of a datagram that is sent now: one for each copy that arrives.
    pub(super) fn fates(
        &mut self,
        faults: &Faults,
        rng: &mut Rng,
        now: Duration,
        len_bytes: usize,
    ) -> Vec<Fate> {
        // What has arrived is of no interest here.
        while self.link.receive(now).is_some() {}
        let Some(arrives_at) = self.link.send(now, len_bytes, ()) else { return Vec::new() };
        let delay = arrives_at - now;
        if len_bytes > mtu(faults, now) {
            return Vec::new();
        }
        if faults.is_healed(now) {
            return vec![Fate { delay, flipped_bits: Vec::new() }];
        }
        if self.is_lost(faults, rng, now, len_bytes) {
            return Vec::new();
        }
        let copies = if rng.chance(faults.duplication) { 2 } else { 1 };
        (0..copies).map(|_| fate(faults, rng, delay, len_bytes)).collect()
    }

    fn is_lost(&mut self, faults: &Faults, rng: &mut Rng, now: Duration, len_bytes: usize) -> bool {
        let is_cut = faults
            .partitions
            .iter()
            .any(|cut| (cut.begin..cut.end).contains(&now) && len_bytes >= cut.passing_len_bytes);
        if let Some(burst) = faults.burst {
            let changes = if self.is_bad { burst.leave } else { burst.enter };
            self.is_bad ^= rng.chance(changes);
            if self.is_bad && rng.chance(burst.loss) {
                return true;
            }
        }
        is_cut || rng.chance(faults.loss)
    }
}

fn fate(faults: &Faults, rng: &mut Rng, mut delay: Duration, len_bytes: usize) -> Fate {
    delay += Duration::from_nanos(rng.between(0, faults.jitter.as_nanos() as u64));
    if rng.chance(faults.reordering) {
        delay += Duration::from_millis(rng.spread(1, MAX_DELAY.as_millis() as u64 / 2));
    }
    let flips = if rng.chance(faults.flips) { rng.between(1, 4) } else { 0 };
    let bit = |rng: &mut Rng| rng.between(0, len_bytes as u64 * 8) as usize;
    Fate { delay, flipped_bits: (0..flips).map(|_| bit(rng)).collect() }
}

fn mtu(faults: &Faults, now: Duration) -> usize {
    match faults.narrowed {
        Some((from, mtu)) if now >= from => mtu,
        _ => faults.mtu_len_bytes,
    }
}

fn mbit(bytes_per_second: u64) -> f64 {
    bytes_per_second as f64 / 125_000.0
}
