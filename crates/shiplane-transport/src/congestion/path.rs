//! The estimates of the path: rate, round trips, losses.

use std::time::{Duration, Instant};

use super::{base_rtt::BaseRtt, dispersion::Dispersion, losses::PathLoss, round::Round};

/// Rates, round trips and losses of the last rounds, and what follows from them.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// The largest packet.
    pub(super) mtu: u16,
    pub(super) round: Round,
    /// Unknown before the first acknowledgement.
    base: Option<BaseRtt>,
    /// Bytes a second in the last rounds in which the path was busy, newest first.
    rates: [f64; ROUNDS],
    /// By how much the mean round trip of these rounds was above their least one.
    spreads: [Duration; ROUNDS],
    pub(super) dispersion: Dispersion,
    pub(super) losses: PathLoss,
    /// How much of the queue that we would keep the path has been seen to hold.
    pub(super) queue_allowance: f64,
}

impl Path {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu,
            round: Round::new(now),
            base: None,
            rates: [0.0; ROUNDS],
            spreads: [Duration::ZERO; ROUNDS],
            dispersion: Dispersion::default(),
            losses: PathLoss::default(),
            queue_allowance: 1.0,
        }
    }

    /// Of one acknowledgement: the round trip of its newest packet, and what it acknowledges.
    pub(super) fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent_at);
        self.round.observe_rtt(rtt);
        match &mut self.base {
            Some(base) => base.observe(now, rtt),
            None => self.base = Some(BaseRtt::new(now, rtt)),
        }
        self.dispersion.acked(now, sent_at, bytes, self.mtu);
    }

    /// The round that ends carried so much.
    pub(super) fn push_rate(&mut self, rate: f64) {
        self.rates.rotate_right(1);
        self.rates[0] = rate;
    }

    /// Whatever earlier rounds carried says nothing any more.
    pub(super) fn set_rate(&mut self, rate: f64) {
        self.rates = [rate; ROUNDS];
    }

    pub(super) fn push_spread(&mut self) {
        self.spreads.rotate_right(1);
        self.spreads[0] = self.round.rtt_spread();
    }

    pub(super) fn last_rate(&self) -> f64 {
        self.rates[0]
    }

    /// The best of the last rounds: one with a gap in it says little of the path.
    pub(super) fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The least of the last rounds.
    pub(super) fn least_rate(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(super) fn base_rtt(&self) -> Duration {
        self.base.as_ref().map_or(Duration::ZERO, BaseRtt::get)
    }

    /// How long the base RTT has not been seen.
    pub(super) fn base_age(&self, now: Instant) -> Option<Duration> {
        self.base.as_ref().map(|base| base.age(now))
    }

    pub(super) fn set_base_rtt(&mut self, now: Instant, rtt: Duration) {
        self.base = Some(BaseRtt::new(now, rtt));
    }

    /// The standing queue of this round.
    pub(super) fn queue_delay(&self) -> Duration {
        self.round.min_rtt.map_or(Duration::ZERO, |rtt| rtt.saturating_sub(self.base_rtt()))
    }

    /// The bytes that fit on the path at its rate.
    pub(super) fn product_bytes(&self) -> f64 {
        self.rate() * self.base_rtt().as_secs_f64()
    }

    /// What the path holds, timers, batches and jitter allowed for.
    pub(super) fn holds_bytes(&self) -> f64 {
        self.rate() * (self.base_rtt() + self.allowed_slack()).as_secs_f64()
    }

    /// A queue that counts as empty, as far as there is room for it.
    pub(super) fn allowed_slack(&self) -> Duration {
        let batches = Duration::from_secs_f64(BATCHED_BYTES / self.rate().max(BATCHED_BYTES));
        let timers = (self.base_rtt() / SLACK_SHARE).max(batches).clamp(LEAST_SLACK, SLACK);
        timers.max(self.jitter()).mul_f64(self.queue_allowance)
    }

    /// By how much round trips vary. One round of four is a freeze or a queue that grows, two are jitter: for as
    /// long packets are under way without any queue.
    fn jitter(&self) -> Duration {
        let mut spreads = self.spreads;
        spreads.sort_unstable();
        spreads[ROUNDS - 2]
    }

    /// The least that the bottleneck has been seen to carry.
    pub(super) fn least_capacity(&self) -> Option<f64> {
        self.dispersion.least_rate()
    }

    /// What the bottleneck carries of ours and of all others together, where that is known.
    pub(super) fn capacity(&self, now: Instant) -> Option<f64> {
        self.dispersion.rate(now)
    }

    /// Our share of that.
    pub(super) fn share(&self, now: Instant) -> Option<f64> {
        self.capacity(now).map(|capacity| self.rate() / capacity)
    }

    pub(super) fn is_ours_alone(&self, now: Instant) -> bool {
        self.share(now).is_some_and(|share| share >= ALONE_SHARE)
    }

    pub(super) fn is_shared(&self, now: Instant) -> bool {
        self.share(now).is_some_and(|share| share < ALONE_SHARE)
    }

    /// Whether this round, with such a window, lost more than that share on top of what the path loses anyhow.
    pub(super) fn loses_more_than(&self, share: f64, window: u64) -> bool {
        // A window is what an ordinary round turns over; one of the shortest may turn over many.
        let turned_over = (self.round.acked_bytes + self.round.lost_bytes).max(window);
        let tolerated = self.losses.tolerated_segments(self.segments(turned_over), share);
        self.segments(self.round.lost_bytes) > tolerated
    }

    fn segments(&self, bytes: u64) -> f64 {
        bytes as f64 / f64::from(self.mtu)
    }
}

/// Four rounds outlast the gap that a start-up or a probe leaves.
const ROUNDS: usize = 4;

/// 2 ms: quinn's pacer sends in bursts of up to this long, and timers are no better ...
pub(super) const SLACK: Duration = Duration::from_millis(2);

/// ... but no more than an eighth of a short path's base RTT, and half a millisecond at least, which lets
/// loopback run ahead of its round trip of microseconds: whatever a call meets in the queue, it waits for.
/// With 300 µs a transfer over loopback was slower by a fifth.
const SLACK_SHARE: u32 = 8;
const LEAST_SLACK: Duration = Duration::from_micros(500);

/// ... and four of the largest batches that a socket takes at a time, within the 2 ms: a small window makes
/// small batches, and each costs a call of the system. 256 calls at a time were slower by a third with less.
const BATCHED_BYTES: f64 = 256.0 * 1024.0;

/// Above four fifths of the bottleneck's rate, we are the only flow, within the error of both rates.
const ALONE_SHARE: f64 = 0.8;
