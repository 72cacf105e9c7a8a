//! The faults of the network, and the links that have them.

use std::time::Duration;

use testlink::{Path, Rng};

/// What goes wrong, and until when. Shares are of a million datagrams.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Lost, each by itself: up to 30 %.
    pub loss: u32,
    /// Lost, many in a row.
    pub burst: Option<Burst>,
    /// Delivered twice.
    pub duplication: u32,
    /// Held back behind those that follow.
    pub reordering: u32,
    /// With one to three bits flipped.
    pub flips: u32,
    /// One way. It stays.
    pub delay: Duration,
    /// More than that at most, for each by itself.
    pub jitter: Duration,
    /// It stays.
    pub bytes_per_second: u64,
    /// What waits for the link at most; beyond that it is dropped. It stays.
    pub queue_len_bytes: u64,
    /// The longest UDP payload. Longer ones vanish without a word.
    pub mtu_len_bytes: usize,
    /// From then on it is this: a black hole. It stays.
    pub narrowed: Option<(Duration, usize)>,
    /// When nothing gets through.
    pub partitions: Vec<Partition>,
    /// When the dialling side's address changes.
    pub address_changes: Vec<Duration>,
    /// From then on nothing goes wrong any more.
    pub heal_at: Duration,
}

/// A link that is bad at times: the chance that such a time begins or ends with a datagram, and what is lost in it.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    /// Begins.
    pub enter: u32,
    /// Ends.
    pub leave: u32,
    /// Is lost meanwhile.
    pub loss: u32,
}

/// A time in which nothing gets through.
#[derive(Debug, Clone, Copy)]
pub struct Partition {
    /// From then on.
    pub begin: Duration,
    /// Until then.
    pub end: Duration,
    /// Only datagrams that are shorter than this get through: 0 for none, else acknowledgements.
    pub passing_len_bytes: usize,
}

impl Faults {
    /// What the seed says.
    pub fn draw(rng: &mut Rng) -> Self {
        let heal_at = Duration::from_millis(rng.between(3_000, 60_000));
        let mtu_len_bytes = rng.pick(&[1200, 1252, 1452, 1452, 4000, 8952, 65_000]);
        let narrowed = rng.chance(150_000).then(|| {
            (Duration::from_millis(rng.spread(1, 10_000)), rng.pick(&[1200, 1252, 1400]).min(mtu_len_bytes))
        });
        // A third of the seeds has no loss at all, so that the rest of the faults shows by itself.
        let loss = if rng.chance(330_000) { 0 } else { rng.spread(1_000, 300_001) as u32 };
        let burst = rng.chance(250_000).then(|| Burst {
            enter: rng.spread(100, 10_000) as u32,
            leave: rng.spread(10_000, 300_000) as u32,
            loss: rng.between(500_000, 1_000_001) as u32,
        });
        let partitions = (0..rng.pick(&[0, 0, 0, 1, 1, 2, 3])).map(|_| Partition::draw(rng)).collect();
        let changes = rng.pick(&[0, 0, 0, 1, 2]);
        Self {
            loss,
            burst,
            duplication: sometimes(rng, 100_000),
            reordering: sometimes(rng, 200_000),
            flips: sometimes(rng, 50_000),
            delay: Duration::from_millis(rng.spread(1, 200)),
            jitter: Duration::from_millis(rng.pick(&[0, 0, 1, 10, 50])),
            bytes_per_second: rng.spread(100_000, 100_000_000),
            queue_len_bytes: rng.spread(20_000, 2_000_000),
            mtu_len_bytes,
            narrowed,
            partitions,
            address_changes: (0..changes).map(|_| Duration::from_millis(rng.spread(1, 20_000))).collect(),
            heal_at,
        }
    }

    /// Nothing goes wrong: so much is carried each way, and so much waits for it.
    pub fn none(bytes_per_second: u64, queue_len_bytes: u64, delay: Duration) -> Self {
        Self { delay, bytes_per_second, queue_len_bytes, mtu_len_bytes: 1452, ..Self::default() }
    }

    fn mtu(&self, now: Duration) -> usize {
        let narrowed = self.narrowed.filter(|(from, _)| now >= *from);
        narrowed.map_or(self.mtu_len_bytes, |(_, mtu_len_bytes)| mtu_len_bytes)
    }

    /// Whether what can heal has.
    pub fn is_healed(&self, at: Duration) -> bool {
        at >= self.heal_at
    }
}

impl Partition {
    fn draw(rng: &mut Rng) -> Self {
        let begin = Duration::from_millis(rng.spread(1, 20_000));
        // Beyond the idle timeout of 30 s, too.
        let len = Duration::from_millis(rng.spread(100, 50_000));
        Self { begin, end: begin + len, passing_len_bytes: rng.pick(&[0, 0, 100, 1_000]) }
    }
}

/// Not at all in half of the seeds, else up to so many of a million.
fn sometimes(rng: &mut Rng, max: u64) -> u32 {
    if rng.chance(500_000) { 0 } else { rng.spread(100, max) as u32 }
}

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
        if data.len() > faults.mtu(now) {
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

fn mbit(bytes_per_second: u64) -> f64 {
    bytes_per_second as f64 / 125_000.0
}

/// How much later than it would a datagram comes that is overtaken.
const MAX_LATENESS_MS: u64 = 2_500;
