//! Cruising mode: keeps the path full with a short queue, and detects when another mode is needed.

use std::time::{Duration, Instant};

use super::{
    controller::Controller,
    path::SLACK,
    phase::{BandwidthProbe, HeavyLoss, Phase},
};

impl Controller {
    pub(super) fn cruise_round(&mut self, is_heavy_loss: bool, now: Instant) {
        let queue = self.path.queue_delay();
        self.allow_queue(is_heavy_loss, now);
        if is_heavy_loss && queue <= SLACK * 2 + self.path.base_rtt() / COMPETING_QUEUE_SHARE {
            self.answer_heavy_loss(now);
            return;
        }
        if let Phase::Cruise { heavy_loss, .. } = &mut self.phase {
            *heavy_loss = None;
        }
        let wanted_queue = self.wanted_queue(now);
        if queue <= wanted_queue && !is_heavy_loss {
            self.path.losses.observe(self.path.round.loss_share());
        }
        let alone = self.path.is_ours_alone(now);
        if alone {
            self.others_persist = false;
            self.forget_competing();
        }
        if self.newcomer_rounds > 0 {
            let fewer = if alone { ALONE_ROUND } else { 1 };
            self.newcomer_rounds = self.newcomer_rounds.saturating_sub(fewer);
            if alone {
                self.end_bandwidth_probe();
            } else if self.probe_bandwidth(now) {
                return;
            }
        }
        // Where delays vary, only with a small part of the path.
        let is_free = queue + self.path.round.rtt_spread() < wanted_queue / 2
            || queue <= self.path.allowed_slack()
                && self.path.share(now).is_some_and(|share| share < LESSER_SHARE);
        let underutilized = is_free && !is_heavy_loss;
        let Phase::Cruise { underutilized_rounds, .. } = &mut self.phase else { return };
        *underutilized_rounds = if underutilized { *underutilized_rounds + 1 } else { 0 };
        if *underutilized_rounds >= self.startup.patience {
            self.start_again();
            return;
        }
        let wanted = self.path.holds_bytes() + if is_heavy_loss { 0.0 } else { self.share_bytes() };
        if let Some(window_before) = self.competing_traffic(wanted, wanted_queue, is_heavy_loss, now) {
            if alone {
                // Then the path has become longer.
                self.begin_probe_rtt(now, None);
            } else {
                self.begin_competing(now, window_before);
            }
            return;
        }
        // Half-way each round: the rate is of a round ago.
        self.set_window(((self.window as f64 + wanted) / 2.0) as u64);
    }

    /// How long the queue is that we want. Of a path that others fill our part is short.
    pub(super) fn wanted_queue(&self, now: Instant) -> Duration {
        let least_rate = self.path.capacity(now).unwrap_or_default() * STARVED_SHARE;
        let rate = self.path.rate().max(least_rate).max(1.0);
        self.path.allowed_slack() + Duration::from_secs_f64(self.share_bytes() / rate)
    }

    /// The window before other traffic filled the queue.
    fn competing_traffic(
        &mut self,
        wanted: f64,
        wanted_queue: Duration,
        overflows: bool,
        now: Instant,
    ) -> Option<u64> {
        let (window, queue, base) = (self.window, self.path.queue_delay(), self.path.base_rtt());
        let is_lesser = self.path.share(now).is_some_and(|share| share < LESSER_SHARE);
        // What we have too much of ourselves proves nothing, unless less is not possible.
        let drained = window as f64 <= wanted * DRAINED
            || window == self.least_window()
                && self.path.share(now).is_some_and(|share| share < DRAINED_SHARE);
        let Phase::Cruise { others, .. } = &mut self.phase else { return None };
        let is_long = queue > SLACK * 2 + base / COMPETING_QUEUE_SHARE;
        others.rounds = match (is_long, overflows && is_lesser) {
            (true, true) => others.rounds + OVERFLOWING_ROUND,
            (true, false) if drained => others.rounds + 1,
            (true | false, _) => 0,
        };
        if queue <= wanted_queue || !drained || others.window == 0 {
            others.window = window;
            others.most_queue = queue;
        }
        others.most_queue = others.most_queue.max(queue);
        // Another flow of ours lets it become shorter while we yield.
        let stays = queue >= others.most_queue / 2;
        let before = others.window.max(others.competed);
        let starves = is_lesser
            && queue > SLACK + base / STARVED_QUEUE_SHARE
            && (window as f64) < others.competed as f64 * REGAINED_SHARE;
        others.starved_rounds = if starves { others.starved_rounds + 1 } else { 0 };
        let left = window as f64 / if is_lesser { before } else { others.window } as f64;
        let yielded = left < YIELDED_SHARE && queue > SLACK * 2 + base / YIELDED_QUEUE_SHARE
            || left < STARVED_SHARE && queue > SLACK + base / STARVED_QUEUE_SHARE;
        let competes = others.rounds >= COMPETING_ROUNDS || others.starved_rounds >= STARVED_ROUNDS;
        (competes || yielded && stays).then_some(before)
    }

    /// Heavy loss without a queue is a policer's, or that of a very short queue, and then sending no more than
    /// arrives ends it; where it does not, the path loses that much whatever we send.
    fn answer_heavy_loss(&mut self, now: Instant) {
        let share = self.path.round.loss_share();
        let turnover_rate = self.path.round.turnover_rate(now);
        let Phase::Cruise { heavy_loss, .. } = &mut self.phase else { return };
        let Some(first) = heavy_loss else {
            *heavy_loss = Some(HeavyLoss { rounds: 0, share, turnover_rate });
            let answer = self.path.product_bytes() * HEAVY_LOSS_GAIN;
            self.set_window((answer as u64).min(self.window));
            return;
        };
        // A round later the losses are still those of what was sent before the answer.
        first.rounds += 1;
        if first.rounds < HEAVY_LOSS_ROUNDS {
            return;
        }
        let first = first.clone();
        *heavy_loss = None;
        if share * 2.0 <= first.share {
            return;
        }
        if self.newcomer_rounds > 0 && self.path.is_shared(now) {
            // A queue that was always full looks like none.
            self.begin_competing(now, self.window);
        } else {
            self.path.losses.set_tested(share);
            self.path.set_rate(first.turnover_rate);
            self.set_window(self.filling_bytes() as u64);
        }
    }

    /// Keeps less of a queue where the router drops it. What overflowed before the last answer was answered.
    fn allow_queue(&mut self, is_heavy_loss: bool, now: Instant) {
        let allowance = self.path.queue_allowance;
        if !is_heavy_loss {
            self.path.queue_allowance = (allowance + ALLOWANCE_REGAINED).min(1.0);
        } else if self.path.round.started_at >= self.cut_at + self.path.round.length(now) {
            self.path.queue_allowance = (allowance * ALLOWANCE_LEFT).max(MIN_ALLOWANCE);
            self.cut_at = now;
        }
    }

    fn forget_competing(&mut self) {
        if let Phase::Cruise { others, .. } = &mut self.phase {
            others.competed = 0;
        }
    }

    fn end_bandwidth_probe(&mut self) {
        if let Phase::Cruise { probe, .. } = &mut self.phase {
            *probe = None;
        }
    }

    /// Looks whether a newcomer can have more of a path that others had before, and keeps it where the rate
    /// follows; with a lesser part of the path it goes on at once. A queue that overflows meanwhile is not ours alone: then
    /// we yield as the others do, and compete. True while the window is raised.
    fn probe_bandwidth(&mut self, now: Instant) -> bool {
        let (window, rate) = (self.window, self.path.last_rate());
        let is_due = self.newcomer_rounds.is_multiple_of(BANDWIDTH_PROBE_INTERVAL_ROUNDS);
        let is_lesser = self.path.share(now).is_some_and(|share| share < LESSER_SHARE);
        let is_long = self.path.queue_delay() > SLACK * 2 + self.path.base_rtt() / YIELDED_QUEUE_SHARE;
        let overflows = is_long && self.loses_more_than(0.0);
        let Phase::Cruise { probe, .. } = &mut self.phase else { return false };
        if let Some(raised) = probe {
            if overflows {
                self.begin_competing_overflowed(now);
                return true;
            }
            raised.rounds += 1;
            if raised.rounds < BANDWIDTH_PROBE_ROUNDS {
                return true;
            }
            let (before, follows) = (raised.window, rate > raised.rate * PROBED_RATE);
            if !follows || !is_lesser {
                *probe = None;
                self.set_window(if follows { window } else { before });
                return true;
            }
        } else if !is_due {
            return false;
        }
        *probe = Some(BandwidthProbe { rounds: 0, window, rate });
        self.set_window((window as f64 * BANDWIDTH_PROBE_GAIN) as u64);
        true
    }
}

/// A flow that has the path alone takes it from no other: such a round counts as three.
const ALONE_ROUND: u32 = 3;

/// Each round of heavy loss halves the queue that we keep, down to a 32nd, and 64 rounds without give it
/// back: a router may have less room than the slack and the share together, as on a fast local network.
const ALLOWANCE_LEFT: f64 = 0.5;
const ALLOWANCE_REGAINED: f64 = 1.0 / 64.0;
const MIN_ALLOWANCE: f64 = 1.0 / 32.0;

/// A 20th less than arrived, so that a policer has nothing to drop; two rounds later it shows.
const HEAVY_LOSS_GAIN: f64 = 0.95;
const HEAVY_LOSS_ROUNDS: u32 = 2;

/// A queue of a quarter of the base RTT for eight rounds belongs to other traffic, ...
const COMPETING_QUEUE_SHARE: u32 = 4;
const COMPETING_ROUNDS: u32 = 8;
/// ... or for two in which it overflows although we have less than two fifths, ...
const OVERFLOWING_ROUND: u32 = 4;

/// ... and so is one of an eighth that stays while we yield a quarter of our window, ...
const YIELDED_SHARE: f64 = 0.75;
const YIELDED_QUEUE_SHARE: u32 = 8;

/// ... and one of a sixteenth that stays while we yield three quarters.
const STARVED_SHARE: f64 = 0.25;
const STARVED_QUEUE_SHARE: u32 = 16;

/// Sixteen rounds with a queue, with less than two fifths of the path and less than 0.95 of the window that we competed with: the
/// others have not gone. The queue only looked empty, for example because the base RTT was never seen.
const REGAINED_SHARE: f64 = 0.95;
const STARVED_ROUNDS: u32 = 16;

/// With less than two fifths of the path, what we had while we last competed counts as ours. Two of our own flows have
/// more each.
pub(super) const LESSER_SHARE: f64 = 0.4;

/// Within a quarter of what we want, we have drained our own queue, ...
const DRAINED: f64 = 1.25;
/// ... and with the least window where we have less than half of the path.
const DRAINED_SHARE: f64 = 0.5;

/// A quarter more, as BBR probes (draft-ietf-ccwg-bbr section 5.3.3), for two rounds of ten: the first brings it
/// about. With less than half of the path, the rate follows by a tenth.
const BANDWIDTH_PROBE_GAIN: f64 = 1.25;
const BANDWIDTH_PROBE_ROUNDS: u32 = 2;
const BANDWIDTH_PROBE_INTERVAL_ROUNDS: u32 = 8;
const PROBED_RATE: f64 = 1.1;
