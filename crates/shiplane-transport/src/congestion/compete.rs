//! Competing mode: takes a share of a queue that other traffic fills.

use std::time::Instant;

use super::{
    controller::Controller,
    cubic::{BETA, Cubic},
    path::SLACK,
    phase::{Phase, RttRange},
};

impl Controller {
    /// Takes back half of what was yielded since the window was `before`, and then the rest as after a loss.
    pub(super) fn begin_competing(&mut self, now: Instant, before: u64) {
        self.set_window((before + self.window) / 2);
        self.probed_at = now;
        let curve = Cubic::new(now, self.window, before, self.path.mtu);
        let rtt = self.path.round.min_rtt.unwrap_or_default();
        let seeking = std::mem::take(&mut self.newcomer_rounds) > 0;
        self.phase =
            Phase::Compete { curve, rtts: RttRange { least: rtt, most: rtt }, free_rounds: 0, seeking };
    }

    /// Grows as CUBIC does, but faster to the least share.
    pub(super) fn compete_round(&mut self, now: Instant) {
        let (window, cut_at, mtu) = (self.window, self.cut_at, self.path.mtu);
        let least = self.least_share_bytes(now);
        let rtt = self.path.round.min_rtt.unwrap_or_default();
        let free = self.path.queue_delay() <= SLACK;
        let Phase::Compete { curve, rtts, free_rounds, seeking } = &mut self.phase else { return };
        rtts.least = rtts.least.min(rtt);
        rtts.most = rtts.most.max(rtt);
        *free_rounds = if free { *free_rounds + 1 } else { 0 };
        self.others_paused |= *free_rounds >= PAUSE_ROUNDS;
        if *free_rounds >= FREE_ROUNDS {
            self.phase = Phase::cruise(0);
        } else if self.path.is_ours_alone(now) {
            // The queue is our own, or the path has become longer.
            self.begin_probe_rtt(now, None);
        } else if cut_at >= self.path.round.started_at {
            // Not in the round of a cut.
        } else if window < least || *seeking {
            let grown = window + (window as f64 * SEEKING_GROWTH) as u64;
            *curve = Cubic::new(now, grown, grown, mtu);
            self.set_window(grown);
        } else {
            // RFC 9438 section 4.2: at most one and a half in a round.
            let wanted = curve.window_bytes(now, rtt, mtu);
            self.set_window(wanted.clamp(window, window + window / 2));
        }
    }

    /// Yields as CUBIC does, but for what the path loses anyhow, and down to the least share; below that only to
    /// loss that is heavy.
    pub(super) fn compete_loss(&mut self, now: Instant) {
        let least = if self.loses_more_than(HEAVY_SHARE) { 0 } else { self.least_share_bytes(now) };
        let before = self.window;
        if before <= least || !self.loses_more_than(0.0) {
            return;
        }
        self.cut_at = now;
        self.set_window(((before as f64 * BETA) as u64).max(least));
        let Phase::Compete { curve, .. } = &self.phase else { return };
        let next = curve.reduced(now, self.window, before, self.path.mtu);
        if let Phase::Compete { curve, seeking, .. } = &mut self.phase {
            (*curve, *seeking) = (next, false);
        }
    }

    /// What we take quickly, and do not give up for others that do not yield. Unless the bottleneck is known, nothing.
    fn least_share_bytes(&self, now: Instant) -> u64 {
        let share = if self.others_paused { UNYIELDING_SHARE } else { LEAST_SHARE };
        let capacity = self.path.capacity(now).unwrap_or_default();
        (capacity * self.path.base_rtt().as_secs_f64() * share) as u64
    }
}

/// Of the bottleneck's product. A path with a queue of one holds two, of which this is 0.15: what six TCPs and we
/// would have each.
const LEAST_SHARE: f64 = 0.3;

/// Beside BBR's first version, which gives way to nothing but keeps its own rate: three eighths of all.
const UNYIELDING_SHARE: f64 = 0.75;

/// BBR drains the queue for 200 ms every 10 s; losses never empty one of a product.
const PAUSE_ROUNDS: u32 = 2;

/// Six rounds without a queue outlast such a pause: the others have gone.
const FREE_ROUNDS: u32 = 6;

/// A loss of a half is congestion, whatever its cause. Beside BBR a round may lose a fifth.
const HEAVY_SHARE: f64 = 0.5;

/// An eighth a round until the first loss; a TCP that joins doubles until then.
const SEEKING_GROWTH: f64 = 0.125;
