//! One direction of the network: delivers, drops or alters each datagram.

use std::time::Duration;

use testlink::{Path, Rng};

use super::faults::Faults;

/// The way from one socket to the others: a link, and the faults of the seed on top of it.
#[derive(Debug)]
pub(super) struct Link {
    link: testlink::Link<()>,
    is_bad: bool,
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

    /// Of a datagram that is sent now, all copies that arrive: what of it, after how long.
    pub(super) fn carry(
        &mut self,
        faults: &Faults,
        rng: &mut Rng,
        now: Duration,
        data: &[u8],
    ) -> Vec<(Duration, Vec<u8>)> {
        // What has arrived is of no interest here.
        while self.link.receive(now).is_some() {}
        let Some(arrives_at) = self.link.send(now, data.len(), ()) else { return Vec::new() };
        let delay = arrives_at - now;
        if data.len() > mtu(faults, now) {
            return Vec::new();
        }
        if faults.is_healed(now) {
            return vec![(delay, data.to_vec())];
        }
        if self.is_lost(faults, rng, now, data.len()) {
            return Vec::new();
        }
        let copies = if rng.chance(faults.duplication) { 2 } else { 1 };
        (0..copies).map(|_| copy(faults, rng, delay, data.to_vec())).collect()
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

fn copy(faults: &Faults, rng: &mut Rng, mut delay: Duration, mut data: Vec<u8>) -> (Duration, Vec<u8>) {
    delay += Duration::from_nanos(rng.between(0, faults.jitter.as_nanos() as u64));
    if rng.chance(faults.reordering) {
        delay += Duration::from_millis(rng.spread(1, MAX_LATENESS_MS));
    }
    let flips = if rng.chance(faults.flips) { rng.between(1, 4) } else { 0 };
    for _ in 0..flips {
        let bit = rng.between(0, data.len() as u64 * 8) as usize;
        data[bit / 8] ^= 1 << (bit % 8);
    }
    (delay, data)
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

/// How much later than it would a datagram comes that is overtaken.
const MAX_LATENESS_MS: u64 = 2_500;
