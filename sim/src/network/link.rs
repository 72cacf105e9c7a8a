//! One direction of the network: delivers, drops or alters each datagram.

use std::time::Duration;

use super::{MAX_DELAY, faults::Faults};
use crate::entropy::Rng;

/// The way from one socket to the others.
#[derive(Debug, Default)]
pub(super) struct Link {
    is_bad: bool,
    /// Since the network began: when what was sent before has left.
    busy_until: Duration,
}

/// What becomes of one copy of a datagram that arrives.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) flipped_bits: Vec<usize>,
}

impl Link {
    /// Of a datagram that is sent now: one for each copy that arrives.
    pub(super) fn fates(
        &mut self,
        faults: &Faults,
        rng: &mut Rng,
        now: Duration,
        len_bytes: usize,
    ) -> Vec<Fate> {
        let Some(waits) = self.queue(faults, now, len_bytes) else { return Vec::new() };
        if len_bytes > mtu(faults, now) {
            return Vec::new();
        }
        if faults.is_healed(now) {
            return vec![Fate { delay: waits + faults.delay, flipped_bits: Vec::new() }];
        }
        if self.is_lost(faults, rng, now, len_bytes) {
            return Vec::new();
        }
        let copies = if rng.chance(faults.duplication) { 2 } else { 1 };
        (0..copies).map(|_| fate(faults, rng, waits, len_bytes)).collect()
    }

    /// How long it waits for the link; `None` if there is no room to wait.
    fn queue(&mut self, faults: &Faults, now: Duration, len_bytes: usize) -> Option<Duration> {
        let ahead = self.busy_until.saturating_sub(now);
        let ahead_bytes = ahead.as_secs_f64() * faults.bytes_per_second as f64;
        if ahead_bytes > faults.queue_len_bytes as f64 {
            return None;
        }
        let own = Duration::from_secs_f64(len_bytes as f64 / faults.bytes_per_second as f64);
        self.busy_until = self.busy_until.max(now) + own;
        Some(ahead + own)
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

fn fate(faults: &Faults, rng: &mut Rng, waits: Duration, len_bytes: usize) -> Fate {
    let mut delay = waits + faults.delay;
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
