//! Competing mode: takes a share of a queue that other traffic fills.

use std::time::{Duration, Instant};

use super::{
    controller::Controller,
    cruise::LESSER_SHARE,
    cubic::{BETA, Cubic},
    path::SLACK,
    phase::{Phase, QueueHistory, Yielded},
};

impl Controller {
    /// Takes back half of what was yielded since the window was `before`, and then the rest as after a loss. Where we have
    /// competed before and others took what we left, all of it.
    pub(super) fn begin_competing(&mut self, now: Instant, before: u64) {
        let has_competed = matches!(&self.phase, Phase::Cruise { others, .. } if others.competed > 0);
        let was_taken = has_competed && self.path.share(now).is_some_and(|share| share < LESSER_SHARE);
        self.set_window(if was_taken { before } else { (before + self.window) / 2 });
        self.probed_at = now;
        let curve = Cubic::new(now, self.window, before, self.path.mtu);
        let rtt = self.path.round.min_rtt.unwrap_or_default();
        let is_newcomer = std::mem::take(&mut self.newcomer_rounds) > 0;
        let seeking = if is_newcomer { SEEKING_GROWTH } else { 0.0 };
        self.phase = Phase::compete(curve, QueueHistory::new(rtt), seeking);
    }

    /// As a newcomer whose probe of the bandwidth ended with an overflow: yields as the others do, and seeks on, slowly.
    pub(super) fn begin_competing_overflowed(&mut self, now: Instant) {
        self.begin_competing(now, self.window);
        self.compete_loss(now);
        if let Phase::Compete { seeking, .. } = &mut self.phase {
            *seeking = REGAINING_GROWTH;
        }
    }

    /// Grows as CUBIC does, but faster to the least share.
    pub(super) fn compete_round(&mut self, now: Instant) {
        let (window, cut_at, mtu) = (self.window, self.cut_at, self.path.mtu);
        let least = self.least_share_bytes(now);
        let rtt = self.path.round.min_rtt.unwrap_or_default();
        let falls = self.watch_queue(now, rtt, least);
        let settled = cut_at.max(self.probed_at) + self.path.round.length(now) * SETTLING_ROUNDS < now;
        let persist = self.others_persist;
        if self.take_back(now, rtt) {
            return;
        }
        let Phase::Compete { curve, history, free, alone_rounds, seeking, .. } = &mut self.phase else {
            return;
        };
        if *free >= FREE {
            self.phase = Phase::cruise(window);
        } else if *alone_rounds >= ALONE_ROUNDS {
            // The queue is our own, or the path has become longer.
            self.begin_probe_rtt(now, None);
        } else if falls && settled && !persist {
            // Another flow of ours looks at the path, and only if both do will they see it without a queue.
            let competing = Some((curve.clone(), history.clone()));
            self.begin_probe_rtt(now, competing);
        } else if cut_at >= self.path.round.started_at {
            // Not in the round of a cut.
        } else if window < least || *seeking > 0.0 {
            let growth = match window < least {
                true if persist => SEEKING_GROWTH,
                true => LEAST_GROWTH,
                false => *seeking,
            };
            let grown = window + (window as f64 * growth) as u64;
            *curve = Cubic::new(now, grown, grown, mtu);
            self.set_window(grown);
        } else {
            // RFC 9438 section 4.2: at most one and a half in a round.
            let wanted = curve.window_bytes(now, rtt, mtu);
            self.set_window(wanted.clamp(window, window + window / 2));
        }
    }

    /// Remembers what this round shows of the others. True if the queue has become much shorter.
    fn watch_queue(&mut self, now: Instant, rtt: Duration, least: u64) -> bool {
        let (queue, base) = (self.path.queue_delay(), self.path.base_rtt());
        let is_short = queue <= self.wanted_queue(now);
        let alone = self.path.is_ours_alone(now);
        let loses = self.loses_more_than(0.0) && self.path.round.loss_share() > OVERFLOWING_SHARE;
        // What overflows although we only hold on is not our doing.
        let holds = self.window <= least.max(self.least_window()) / 2 * 3;
        let Phase::Compete { history, free, alone_rounds, .. } = &mut self.phase else { return false };
        history.least = history.least.min(rtt);
        history.most = history.most.max(rtt);
        let falls = std::mem::replace(&mut history.last, rtt) > rtt + base / FALLING_SHARE;
        let is_full = queue >= history.most.saturating_sub(base) / 4 * 3;
        history.overflows = if loses && is_full && holds {
            history.overflows + OVERFLOWING_ROUND
        } else {
            history.overflows.saturating_sub(1)
        };
        self.others_persist |= history.overflows >= OVERFLOWS;
        *free = match is_short {
            _ if queue <= SLACK => *free + FREE_ROUND,
            true => *free + 1,
            false => 0,
        };
        *alone_rounds = if alone { *alone_rounds + 1 } else { 0 };
        falls
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
        let (window, mtu) = (self.window, self.path.mtu);
        if let Phase::Compete { curve, history, seeking, yielded, .. } = &mut self.phase {
            *curve = curve.reduced(now, window, before, mtu);
            *seeking = 0.0;
            // Not twice in a row, nor while the last one is examined.
            let is_again = yielded.take().is_some();
            *yielded = (!is_again).then_some(Yielded { window: before, rtt: history.last, rounds: 0 });
        }
    }

    /// Takes back what we yielded to a loss, if the others did not yield and we have little. Chance decides whose packets a
    /// full queue drops; without this, a flow with a small share loses more of it. True if it did.
    fn take_back(&mut self, now: Instant, rtt: Duration) -> bool {
        let (window, mtu, base) = (self.window, self.path.mtu, self.path.base_rtt());
        let (capacity, share) = (self.path.capacity(now), self.path.share(now));
        let Phase::Compete { curve, yielded, .. } = &mut self.phase else { return false };
        let Some(last) = yielded else { return false };
        last.rounds = last.rounds.saturating_add(1);
        if last.rounds != YIELDED_ROUNDS {
            return false;
        }
        let (before, rtt_before) = (last.window, last.rtt);
        let kept = yielded.take();
        let (Some(capacity), Some(share)) = (capacity, share) else { return false };
        let ours_secs = before.saturating_sub(window) as f64 / capacity;
        let stays = rtt_before.saturating_sub(rtt).as_secs_f64() < ours_secs * OURS_ALONE;
        let is_long = rtt > base + SLACK * 2 + base / FALLING_SHARE;
        if share >= LITTLE_SHARE || !stays || !is_long || before <= window {
            return false;
        }
        (*curve, *yielded) = (Cubic::new(now, before, before, mtu), kept);
        self.set_window(before);
        true
    }

    /// What we take quickly, and do not give up for others that do not yield. Unless the bottleneck is known, nothing.
    fn least_share_bytes(&self, now: Instant) -> u64 {
        let share = if self.others_persist { UNYIELDING_SHARE } else { LEAST_SHARE };
        let capacity = self.path.capacity(now).unwrap_or_default();
        (capacity * self.path.base_rtt().as_secs_f64() * share) as u64
    }
}

/// Of the bottleneck's product. A path with a queue of one holds two, of which this is 0.15: what six TCPs and we
/// would have each.
const LEAST_SHARE: f64 = 0.3;

/// Beside BBR's first version, which gives way to nothing but keeps its own rate: three eighths of all.
const UNYIELDING_SHARE: f64 = 0.75;

/// Each round in which a full queue overflows although we only hold on counts 16 times as much as one in which none
/// does. Five rounds in a row, or one of ten for long, show others that do not yield: after CUBICs have overflowed it, many
/// rounds pass.
const OVERFLOWING_ROUND: u32 = 16;
const OVERFLOWS: u32 = 80;

/// A 48th: each time that CUBICs overflow it, we lose a few packets.
const OVERFLOWING_SHARE: f64 = 1.0 / 48.0;

/// Two more rounds than others need to look at the path.
const ALONE_ROUNDS: u32 = 4;

/// A queue that becomes shorter by an eighth of the base RTT, four rounds or more after we yielded or looked ourselves.
const FALLING_SHARE: u32 = 8;
const SETTLING_ROUNDS: u32 = 4;

/// Six rounds without a queue outlast the pause of a BBR, and eighteen with one as short as ours are too long for CUBIC:
/// the others have gone.
const FREE: u32 = 18;
const FREE_ROUND: u32 = 3;

/// Below a third of the path we have less than half of a single other flow. Three rounds after we yielded, all others that did
/// have done so, and a queue that fell by hardly more than what we took out of it has no other cause.
const LITTLE_SHARE: f64 = 1.0 / 3.0;
const YIELDED_ROUNDS: u32 = 3;
const OURS_ALONE: f64 = 1.1;

/// A loss of a half is congestion, whatever its cause. Beside BBR a round may lose a fifth.
const HEAVY_SHARE: f64 = 0.5;

/// An eighth a round until the first loss; a TCP that joins doubles until then. Up to the least share a half, but an eighth
/// where others do not yield, since much is lost until they do.
const SEEKING_GROWTH: f64 = 0.125;
const LEAST_GROWTH: f64 = 0.5;

/// A 32nd a round from the overflow of a newcomer's probe until the next loss. CUBIC stays near its last maximum for
/// seconds, and so would we without it, at a third of the path. With more, six CUBICs get too little.
const REGAINING_GROWTH: f64 = 1.0 / 32.0;
