//! The phases and what moves between them. See the [module](super) for the idea.

use std::time::{Duration, Instant};

use super::{
    base_rtt::BaseRtt,
    cubic::{BETA, Cubic},
    dispersion::Dispersion,
    losses::PathLoss,
    phase::{BandwidthProbe, HeavyLoss, Phase, Queued, Resume, RttRange},
    round::Round,
};

/// Finds and holds the window that fills the path. Sans-IO: time is an argument, and the caller's loop is
///
/// 1. [`sent`](Self::sent) after a burst has left,
/// 2. [`acked`](Self::acked) for each packet of an acknowledgement, then [`acks_end`](Self::acks_end),
/// 3. [`lost`](Self::lost), [`marked`](Self::marked) or [`path_died`](Self::path_died) for what it reveals,
/// 4. never more than [`window_bytes`](Self::window_bytes) in flight.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    window: u64,
    mtu: u16,
    phase: Phase,
    round: Round,
    /// Unknown before the first acknowledgement.
    base: Option<BaseRtt>,
    /// Bytes a second in the last rounds in which the path was busy, newest first.
    rates: [f64; RATE_ROUNDS],
    /// Rounds without a queue before we try to grow, and the rate when we last did.
    patience: u32,
    rate_before_startup: f64,
    /// So many rounds more, others had the path before us.
    newcomer_rounds: u32,
    /// By how much the mean round trip of these rounds was above their least one.
    spreads: [Duration; RATE_ROUNDS],
    dispersion: Dispersion,
    /// How much of the queue that we would keep the path has been seen to hold.
    queue_allowance: f64,
    path_loss: PathLoss,
    /// Losses of packets sent before this have been answered.
    cut_at: Instant,
    probed_at: Instant,
    in_flight: u64,
    /// Of the acknowledgement that is being told.
    ack: AckInProgress,
}

#[derive(Debug, Clone, Default)]
struct AckInProgress {
    newest_sent_at: Option<Instant>,
    bytes: u64,
    busy_bytes: u64,
}

impl Controller {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        Self {
            window: INITIAL_WINDOW_BYTES,
            mtu,
            phase: Phase::startup(false),
            round: Round::new(now),
            base: None,
            rates: [0.0; RATE_ROUNDS],
            patience: UNDERUTILIZED_ROUNDS,
            rate_before_startup: 0.0,
            newcomer_rounds: NEWCOMER_ROUNDS,
            spreads: [Duration::ZERO; RATE_ROUNDS],
            dispersion: Dispersion::default(),
            queue_allowance: 1.0,
            path_loss: PathLoss::default(),
            cut_at: now,
            probed_at: now,
            in_flight: 0,
            ack: AckInProgress::default(),
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window
    }

    #[cfg(test)]
    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    #[cfg(test)]
    pub(super) fn dispersion_rate(&self) -> Option<f64> {
        self.dispersion.rate()
    }

    #[cfg(test)]
    pub(super) fn base_ms(&self) -> f64 {
        self.base_rtt().as_secs_f64() * 1e3
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.set_window(self.window);
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if self.in_flight == 0 {
            // After a pause: the idle time is no part of a round.
            self.round = Round::new(now);
        }
    }

    pub(super) fn acked(&mut self, sent_at: Instant, bytes: u64, app_limited: bool) {
        self.round.acked(bytes, app_limited);
        self.ack.newest_sent_at = self.ack.newest_sent_at.max(Some(sent_at));
        self.ack.bytes += bytes;
        if !app_limited {
            self.ack.busy_bytes += bytes;
        }
    }

    pub(super) fn acks_end(&mut self, now: Instant, in_flight: u64) {
        self.in_flight = in_flight;
        let ack = std::mem::take(&mut self.ack);
        let Some(sent_at) = ack.newest_sent_at else { return };
        let rtt = now.saturating_duration_since(sent_at);
        self.observe_rtt(now, rtt);
        self.dispersion.acked(now, sent_at, ack.bytes, self.mtu);
        self.startup_ack(now, rtt, &ack);
        if sent_at >= self.round.started_at && self.round.length(now) >= SHORTEST_ROUND {
            self.round_end(now);
            self.round = Round::new(now);
        }
    }

    /// Packets were lost, the last of them sent at `sent_at`.
    pub(super) fn lost(&mut self, now: Instant, sent_at: Instant, lost_bytes: u64) {
        self.round.lost_bytes += lost_bytes;
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        if sent_at <= self.cut_at {
            return;
        }
        match self.phase {
            Phase::Startup { again, .. } => {
                if self.loses_more_than(if again { RESTART_LOSS_SHARE } else { STARTUP_LOSS_SHARE }) {
                    self.leave_startup(now, None);
                }
            }
            Phase::Compete { .. } => self.compete_loss(now),
            Phase::Cruise { .. } | Phase::ProbeRtt { .. } => {}
        }
    }

    /// A packet sent at `sent_at` came back marked by a router (ECN).
    pub(super) fn marked(&mut self, now: Instant, sent_at: Instant) {
        if sent_at <= self.cut_at {
            return;
        }
        if let Phase::Startup { .. } = self.phase {
            self.leave_startup(now, None);
        }
        self.cut(now, MARKED_BETA);
    }

    /// Nothing has come through for several timeouts (RFC 9002 section 7.6): all over again.
    pub(super) fn path_died(&mut self, now: Instant) {
        self.phase = Phase::startup(false);
        self.set_window(INITIAL_WINDOW_BYTES);
        self.cut_at = now;
        self.rates = [0.0; RATE_ROUNDS];
    }
}

/// Measuring.
impl Controller {
    fn observe_rtt(&mut self, now: Instant, rtt: Duration) {
        self.round.observe_rtt(rtt);
        match &mut self.base {
            Some(base) => base.observe(now, rtt),
            None => self.base = Some(BaseRtt::new(now, rtt)),
        }
    }

    /// The best of the last rounds: one with a gap in it says little of the path.
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn base_rtt(&self) -> Duration {
        self.base.as_ref().map_or(Duration::ZERO, BaseRtt::get)
    }

    /// The standing queue of this round.
    fn queue_delay(&self) -> Duration {
        self.round.min_rtt.map_or(Duration::ZERO, |rtt| rtt.saturating_sub(self.base_rtt()))
    }

    /// What the path holds at this rate, timers and batches allowed for.
    fn path_holds(&self, rate: f64) -> f64 {
        rate * (self.base_rtt() + self.slack(rate).mul_f64(self.queue_allowance)).as_secs_f64()
    }

    /// A queue that is none: timers and batches make up for as much.
    fn slack(&self, rate: f64) -> Duration {
        let batches = Duration::from_secs_f64(BATCHED_BYTES / rate.max(BATCHED_BYTES));
        let mut spreads = self.spreads;
        spreads.sort_unstable();
        // One round in a freeze is no jitter, two of four are.
        let jitter = spreads[RATE_ROUNDS - 2];
        (self.base_rtt() / SLACK_SHARE).max(batches).clamp(LEAST_SLACK, SLACK).max(jitter)
    }

    /// The bytes we want in the queue: √(window in segments), so that equal flows end up equal.
    fn share_bytes(&self) -> f64 {
        let window = self.window as f64;
        (SHARE * (window * f64::from(self.mtu)).sqrt()).min(window * MAX_SHARE) * self.queue_allowance
    }

    /// Whether our rate is well below what the bottleneck carries: others have the rest.
    fn has_company(&self) -> bool {
        self.dispersion.rate().is_some_and(|rate| self.rate() < rate * COMPANY_SHARE)
    }

    /// Whether this round lost more than that share on top of what the path is known to lose.
    fn loses_more_than(&self, share: f64) -> bool {
        // A window is what an ordinary round turns over; one of the shortest may turn over many.
        let turned_over = (self.round.acked_bytes + self.round.lost_bytes).max(self.window);
        let few = if share > 0.0 { FEW_SEGMENTS } else { 0.0 };
        let tolerated = self.path_loss.tolerated_segments(self.segments(turned_over), share);
        self.segments(self.round.lost_bytes) > tolerated.max(few)
    }

    fn segments(&self, bytes: u64) -> f64 {
        bytes as f64 / f64::from(self.mtu)
    }
}

/// Moving the window.
impl Controller {
    fn set_window(&mut self, window: u64) {
        let least = (MIN_WINDOW_SEGMENTS * u64::from(self.mtu)).max(MIN_WINDOW_BYTES);
        self.window = window.clamp(least, MAX_WINDOW_BYTES);
    }

    fn cut(&mut self, now: Instant, factor: f64) {
        self.cut_at = now;
        self.set_window((self.window as f64 * factor) as u64);
    }

    fn round_end(&mut self, now: Instant) {
        let busy = self.round.is_busy();
        let heavy_loss = self.loses_more_than(HEAVY_LOSS_SHARE);
        if busy && !matches!(self.phase, Phase::ProbeRtt { .. }) {
            if heavy_loss {
                // What came of too much: the path's rate, until losses that are a round late are through.
                if !self.answers_heavy_loss() {
                    self.rates = [self.round.delivery_rate(now); RATE_ROUNDS];
                }
            } else {
                self.rates.rotate_right(1);
                self.rates[0] = self.round.turnover_rate(now);
            }
            self.spreads.rotate_right(1);
            self.spreads[0] = self.round.rtt_spread();
        }
        match &self.phase {
            Phase::Startup { .. } => self.startup_round(now),
            Phase::Cruise { .. } if busy => self.cruise_round(heavy_loss, now),
            Phase::Compete { .. } if busy => self.compete_round(now),
            Phase::ProbeRtt { .. } => self.probe_rtt_round(now),
            Phase::Cruise { .. } | Phase::Compete { .. } => {}
        }
        self.probe_rtt_if_due(now);
    }

    fn startup_round(&mut self, now: Instant) {
        let rate = self.rates[0];
        let Phase::Startup { best_rate, flat_rounds, .. } = &mut self.phase else { return };
        if !self.round.is_busy() {
            return;
        }
        if rate >= *best_rate * PLATEAU_GROWTH {
            (*best_rate, *flat_rounds) = (rate, 0);
            return;
        }
        *flat_rounds += 1;
        if *flat_rounds >= PLATEAU_ROUNDS {
            self.leave_startup(now, None);
        }
    }

    /// Grows, unless what is in flight stays far behind the window; leaves once a queue has stood for a
    /// while. One late burst is no queue.
    fn startup_ack(&mut self, now: Instant, rtt: Duration, ack: &AckInProgress) {
        let base = self.base_rtt();
        let Phase::Startup { again, queued, .. } = &mut self.phase else { return };
        if rtt <= base + SLACK + (base / STARTUP_QUEUE_SHARE).min(STARTUP_QUEUE_MAX) {
            *queued = None;
        } else {
            let queued = queued.get_or_insert(Queued { since: now, acks: 0, bytes: 0 });
            let secs = now.saturating_duration_since(queued.since).as_secs_f64();
            if queued.acks > 0 {
                queued.bytes += ack.bytes;
            }
            queued.acks += 1;
            if queued.acks >= STARTUP_QUEUED_ACKS && secs > (base / STARTUP_QUEUED_SHARE).as_secs_f64() {
                let rate = queued.bytes as f64 / secs.max(1e-6);
                self.leave_startup(now, Some(rate));
            }
            return;
        }
        let again = *again;
        if (self.in_flight + ack.bytes) * FILLED_SHARE < self.window {
            return;
        }
        let growth = match self.dispersion.rate() {
            None if again => RESTART_GROWTH,
            None => STARTUP_GROWTH,
            Some(rate) => match self.window as f64 / (rate * base.as_secs_f64()) {
                ..FAR_SHARE if again => STARTUP_GROWTH,
                ..FAR_SHARE => FAR_GROWTH,
                _ if again => RESTART_GROWTH,
                ..NEAR_SHARE => STARTUP_GROWTH,
                _ => NEAR_GROWTH,
            },
        };
        self.set_window(self.window + (ack.busy_bytes as f64 * growth) as u64);
    }

    /// The best rate so far is the path's: what is in flight beyond it will drain, over a few rounds.
    fn leave_startup(&mut self, now: Instant, queued_rate: Option<f64>) {
        self.rates[0] = self.rates[0].max(queued_rate.unwrap_or(0.0));
        let rate = self.rate();
        if rate > self.rate_before_startup * PLATEAU_GROWTH {
            self.patience = UNDERUTILIZED_ROUNDS;
        }
        self.patience = self.patience.min(MAX_PATIENCE_ROUNDS);
        self.phase = Phase::cruise();
        self.cut_at = now;
        let wanted =
            (self.path_holds(self.rate()) + self.share_bytes()) * queued_rate.map_or(1.0, |_| DRAIN_GAIN);
        self.set_window((wanted as u64).min(self.window));
    }

    fn cruise_round(&mut self, heavy_loss: bool, now: Instant) {
        let queue = self.queue_delay();
        self.allow_queue(heavy_loss, now);
        let share = self.share_bytes();
        let wanted_queue = self.slack(self.rate()).mul_f64(self.queue_allowance)
            + Duration::from_secs_f64(share / self.rate().max(1.0));
        let base = self.base_rtt();
        let is_long = queue > SLACK * 2 + base / COMPETING_QUEUE_SHARE;
        if heavy_loss && !is_long {
            if self.newcomer_rounds > 0 && self.has_company() {
                // A queue that was always full looks like none.
                self.begin_competing(now, self.window);
            } else {
                self.answer_heavy_loss(now);
            }
            return;
        }
        if let Phase::Cruise { heavy_loss, .. } = &mut self.phase {
            *heavy_loss = None;
        }
        if queue <= wanted_queue && !heavy_loss {
            self.path_loss.observe(self.round.loss_share());
        }
        let window = self.window;
        if self.newcomer_rounds > 0 && self.probe_bandwidth(now) {
            return;
        }
        let Phase::Cruise { underutilized_rounds, .. } = &mut self.phase else { return };
        let underutilized = queue + self.round.rtt_spread() < wanted_queue / 2 && !heavy_loss;
        *underutilized_rounds = if underutilized { *underutilized_rounds + 1 } else { 0 };
        if *underutilized_rounds >= self.patience {
            (self.rate_before_startup, self.patience) = (self.rate(), self.patience * 2);
            self.phase = Phase::startup(true);
            return;
        }
        let wanted = self.path_holds(self.rate()) + if heavy_loss { 0.0 } else { share };
        let Phase::Cruise { others, .. } = &mut self.phase else { return };
        // What we have too much of ourselves proves nothing.
        let drained = window as f64 <= wanted * DRAINED;
        others.rounds = if is_long && drained { others.rounds + 1 } else { 0 };
        if queue <= wanted_queue || !drained || others.window == 0 {
            others.window = window;
        }
        let yielded = (window as f64) < others.window as f64 * YIELDED_SHARE
            && queue > SLACK * 2 + base / YIELDED_QUEUE_SHARE;
        if others.rounds >= COMPETING_ROUNDS || yielded {
            let window = others.window;
            if self.dispersion.rate().is_none() || self.has_company() {
                self.begin_competing(now, window);
            } else {
                self.begin_probe_rtt(now, None);
            }
            return;
        }
        // Half-way each round: the rate is of a round ago.
        self.set_window(((window as f64 + wanted) / 2.0) as u64);
    }

    /// Heavy loss without a queue is a policer's, or that of a very short queue, and then sending no more than
    /// arrives ends it; where it does not, the path loses that much whatever we send.
    fn answer_heavy_loss(&mut self, now: Instant) {
        let (share, turnover_rate) = (self.round.loss_share(), self.round.turnover_rate(now));
        let Phase::Cruise { heavy_loss, .. } = &mut self.phase else { return };
        let Some(first) = heavy_loss else {
            *heavy_loss = Some(HeavyLoss { rounds: 0, share, turnover_rate });
            let answer = self.rate() * self.base_rtt().as_secs_f64() * HEAVY_LOSS_GAIN;
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
        if share * 2.0 > first.share {
            self.path_loss.set_tested(share);
            self.rates = [first.turnover_rate; RATE_ROUNDS];
            self.set_window((self.path_holds(first.turnover_rate) + self.share_bytes()) as u64);
        }
    }

    fn answers_heavy_loss(&self) -> bool {
        matches!(self.phase, Phase::Cruise { heavy_loss: Some(_), .. })
    }

    /// Keeps less of a queue where the router drops it. What overflowed before the last answer was answered.
    fn allow_queue(&mut self, heavy_loss: bool, now: Instant) {
        if !heavy_loss {
            self.queue_allowance = (self.queue_allowance + ALLOWANCE_REGAINED).min(1.0);
        } else if self.round.started_at >= self.cut_at + self.round.length(now) {
            self.queue_allowance = (self.queue_allowance * ALLOWANCE_LEFT).max(MIN_ALLOWANCE);
            self.cut_at = now;
        }
    }

    /// Tells a newcomer whether the queue that it meets is its own, though it never saw the path without
    /// one. True while the window is raised.
    fn probe_bandwidth(&mut self, now: Instant) -> bool {
        let (window, rate) = (self.window, self.rate());
        let Phase::Cruise { probe, .. } = &mut self.phase else { return false };
        let Some(raised) = probe else {
            self.newcomer_rounds -= 1;
            let is_due = self.newcomer_rounds.is_multiple_of(BANDWIDTH_PROBE_INTERVAL_ROUNDS);
            if is_due {
                *probe = Some(BandwidthProbe { rounds: 0, window, rate });
                self.set_window((window as f64 * BANDWIDTH_PROBE_GAIN) as u64);
            }
            return is_due;
        };
        raised.rounds += 1;
        if raised.rounds < BANDWIDTH_PROBE_ROUNDS {
            return true;
        }
        let (before, follows) = (raised.window, self.rates[0] > raised.rate * PROBED_RATE);
        *probe = None;
        if !follows {
            self.set_window(before);
        }
        true
    }

    fn begin_competing(&mut self, now: Instant, window: u64) {
        self.set_window(window);
        self.probed_at = now;
        let curve = Cubic::new(now, self.window, self.window, self.mtu);
        let rtt = self.round.min_rtt.unwrap_or_default();
        self.newcomer_rounds = 0;
        self.phase = Phase::Compete { curve, rtts: RttRange { least: rtt, most: rtt }, free_rounds: 0, loss: self.round.loss_share() };
    }

    /// What we take quickly, and do not give up for loss that our yielding does not end.
    fn least_share_bytes(&self) -> u64 {
        let Phase::Compete { loss, .. } = &self.phase else { return 0 };
        let share = if *loss > UNYIELDING_LOSS_SHARE { UNYIELDING_SHARE } else { LEAST_SHARE };
        let rate = self.dispersion.rate().unwrap_or_default();
        (rate * self.base_rtt().as_secs_f64() * share) as u64
    }

    /// Yields as CUBIC does, to the least share; beyond that only to loss that is heavy.
    fn compete_loss(&mut self, now: Instant) {
        let least = if self.loses_more_than(COMPETING_LOSS_SHARE) { 0 } else { self.least_share_bytes() };
        if self.window <= least || !self.loses_more_than(0.0) {
            return;
        }
        let before = self.window;
        self.cut(now, BETA);
        self.set_window(self.window.max(least));
        let next = Cubic::new(now, self.window, before, self.mtu);
        if let Phase::Compete { curve, .. } = &mut self.phase {
            *curve = next;
        }
    }

    fn compete_round(&mut self, now: Instant) {
        let (window, cut_at, mtu) = (self.window, self.cut_at, self.mtu);
        let least = self.least_share_bytes();
        let rtt = self.round.min_rtt.unwrap_or_default();
        let free = self.queue_delay() <= SLACK;
        let lost = self.round.loss_share();
        let Phase::Compete { curve, rtts, free_rounds, loss } = &mut self.phase else { return };
        *loss += (lost - *loss) / COMPETING_LOSS_MEMORY;
        rtts.least = rtts.least.min(rtt);
        rtts.most = rtts.most.max(rtt);
        *free_rounds = if free { *free_rounds + 1 } else { 0 };
        if *free_rounds >= UNDERUTILIZED_ROUNDS {
            self.phase = Phase::cruise();
            return;
        }
        if cut_at >= self.round.started_at {
            return;
        }
        if window < least {
            let grown = least.min(window + (window as f64 * SEEKING_GROWTH) as u64);
            *curve = Cubic::new(now, grown, grown, mtu);
            self.set_window(grown);
        } else {
            // RFC 9438 section 4.2: at most one and a half in a round.
            let wanted = curve.window_bytes(now, rtt, mtu);
            self.set_window(wanted.clamp(window, window + window / 2));
        }
    }

    fn probe_rtt_if_due(&mut self, now: Instant) {
        let Some(base) = &self.base else { return };
        let (due, competing) = match &self.phase {
            Phase::Cruise { .. } => (PROBE_INTERVAL, None),
            Phase::Compete { curve, rtts, .. } => {
                (COMPETING_PROBE_INTERVAL, Some((curve.clone(), rtts.clone())))
            }
            Phase::Startup { .. } | Phase::ProbeRtt { .. } => return,
        };
        if base.age(now) > due && self.probed_at + due < now {
            self.begin_probe_rtt(now, competing);
        }
    }

    fn begin_probe_rtt(&mut self, now: Instant, competing: Option<(Cubic, RttRange)>) {
        self.probed_at = now;
        let from = Resume { window: self.window, competing };
        self.phase = Phase::ProbeRtt { rounds: 0, from };
        self.cut_at = now;
        let drained = self.rate() * self.base_rtt().as_secs_f64() * PROBE_GAIN;
        self.set_window((drained as u64).min(self.window));
    }

    /// The first round drains, the second one is measured.
    fn probe_rtt_round(&mut self, now: Instant) {
        let Phase::ProbeRtt { rounds, from } = &mut self.phase else { return };
        *rounds += 1;
        if *rounds < PROBE_ROUNDS {
            return;
        }
        let from = from.clone();
        let Some(least) = self.round.min_rtt else { return };
        let base = self.base_rtt();
        if let Some((curve, rtts)) = from.competing
            && least > base + base / PROBED_QUEUE_SHARE + SLACK
            && rtts.most > rtts.least + rtts.least / PATH_RTT_SHARE + SLACK
        {
            self.set_window(from.window);
            self.phase = Phase::Compete { curve, rtts, free_rounds: 0, loss: self.round.loss_share() };
            return;
        }
        // Drained, or a delay that never moved: the path's own.
        self.base = Some(BaseRtt::new(now, least));
        self.phase = Phase::cruise();
        self.set_window(from.window);
    }
}

/// 128 KiB: the pacer spreads it over a round trip, and an MTU probe of 9 KB leaves room for everything else.
const INITIAL_WINDOW_BYTES: u64 = 96 * 1024;

/// Four segments: loss is found by the three packets after it (RFC 9002 section 6.1.1).
const MIN_WINDOW_SEGMENTS: u64 = 4;

/// 24 KiB: an MTU probe of 9 KB must not stop everything else.
const MIN_WINDOW_BYTES: u64 = 24 * 1024;

/// 1 GiB: quinn stops pacing above 4 GiB; no path needs as much.
const MAX_WINDOW_BYTES: u64 = 1 << 30;

/// 2 ms: quinn's pacer sends in bursts of up to this long, and timers are no better ...
const SLACK: Duration = Duration::from_millis(2);

/// ... but no more than an eighth of a short path's base RTT, and half a millisecond at least, which lets
/// loopback run ahead of its round trip of microseconds: whatever a call meets in the queue, it waits for.
/// With 300 µs a transfer over loopback was slower by a fifth.
const SLACK_SHARE: u32 = 8;
const LEAST_SLACK: Duration = Duration::from_micros(500);

/// ... and four of the largest batches that a socket takes at a time, within the 2 ms: a small window makes
/// small batches, and each costs a call of the system. 256 calls at a time were slower by a third with less.
const BATCHED_BYTES: f64 = 256.0 * 1024.0;

/// 5 ms. On a path shorter than that, a round trip holds what came in one batch, and its rate is that of the
/// batch, several times the path's.
const SHORTEST_ROUND: Duration = Duration::from_millis(5);

/// Times √(window in segments), in segments: 7 % of the window at 200 Mbit/s and 50 ms, 3 % at 500 Mbit/s
/// and 100 ms.
const SHARE: f64 = 2.0;

/// A sixth: below 144 segments the root would keep a queue that looks like somebody else's.
const MAX_SHARE: f64 = 1.0 / 6.0;

/// Each round of heavy loss halves the queue that we keep, down to a 32nd, and 64 rounds without give it
/// back: a router may have less room than [`SLACK`] and share together, as on a fast local network.
const ALLOWANCE_LEFT: f64 = 0.5;
const ALLOWANCE_REGAINED: f64 = 1.0 / 64.0;
const MIN_ALLOWANCE: f64 = 1.0 / 32.0;

/// Three rounds without our own queue: the path has become faster. Then we grow again, half as fast. Each
/// time in vain doubles the patience, so that a path too short of queue to show one is seldom flooded.
const UNDERUTILIZED_ROUNDS: u32 = 3;
const MAX_PATIENCE_ROUNDS: u32 = 48;
const RESTART_GROWTH: f64 = 0.5;

/// Four rounds outlast the gap that a start-up or a probe leaves.
const RATE_ROUNDS: usize = 4;

/// The window grows while at least a third of it is in flight.
const FILLED_SHARE: u64 = 3;

/// Doubling (RFC 9002 section 7.3.1). Growing faster was tried at 1.5 and 2: what it gains, a queue of one
/// product spills, and the repair costs as much.
const STARTUP_GROWTH: f64 = 1.0;

/// Growth of the rate below a quarter for three rounds is a plateau (draft-ietf-ccwg-bbr, section 5.3.1.2).
const PLATEAU_GROWTH: f64 = 1.25;
const PLATEAU_ROUNDS: u32 = 3;

/// A sixteenth of the base RTT above [`SLACK`], at most 16 ms (RFC 9406 section 4.3) ...
const STARTUP_QUEUE_SHARE: u32 = 16;
const STARTUP_QUEUE_MAX: Duration = Duration::from_millis(16);
/// ... in eight acknowledgements in a row over an eighth of the base RTT: a late burst is shorter.
const STARTUP_QUEUED_ACKS: u32 = 8;
const STARTUP_QUEUED_SHARE: u32 = 8;

/// quinn paces by its smoothed RTT, which shows the queue for a round more: with a window that is just the path's, a
/// quarter of a round would pass unused.
const DRAIN_GAIN: f64 = 1.5;

/// A tenth of a round lost at start-up is an overflow; random loss is not that heavy.
const STARTUP_LOSS_SHARE: f64 = 0.2;
const RESTART_LOSS_SHARE: f64 = 0.06;

const HEAVY_LOSS_GAIN: f64 = 0.95;
const HEAVY_LOSS_ROUNDS: u32 = 2;

const COMPETING_LOSS_SHARE: f64 = 0.15;
const LEAST_SHARE: f64 = 0.25;
const UNYIELDING_SHARE: f64 = 0.5;
const UNYIELDING_LOSS_SHARE: f64 = 0.02;
const COMPETING_LOSS_MEMORY: f64 = 16.0;
const COMPANY_SHARE: f64 = 0.8;

const FAR_GROWTH: f64 = 7.0;
const FAR_SHARE: f64 = 0.4;
const NEAR_GROWTH: f64 = 0.25;
const NEAR_SHARE: f64 = 0.9;

/// From a 25th on, loss is answered even without a queue: a policer or a very short queue.
const HEAVY_LOSS_SHARE: f64 = 0.04;

/// Of so few, any share is chance.
const FEW_SEGMENTS: f64 = 8.0;

/// RFC 8511: a mark tells of a shorter queue than a loss.
const MARKED_BETA: f64 = 0.85;

/// A queue of a quarter of the base RTT for eight rounds is somebody else's, ...
const COMPETING_QUEUE_SHARE: u32 = 4;
const COMPETING_ROUNDS: u32 = 8;

/// ... and so is one of an eighth that stays while we yield a quarter of our window.
const YIELDED_SHARE: f64 = 0.75;
const YIELDED_QUEUE_SHARE: u32 = 8;

/// Within a quarter of what we want, we have drained our own queue.
const DRAINED: f64 = 1.25;

/// A flow that meets others in its first rounds of controller has no share yet, and seeks one.
const NEWCOMER_ROUNDS: u32 = 64;

/// A quarter more, as BBR probes, for two rounds of ten: the first brings it about. With less than half of
/// the path, the rate follows by a tenth.
const BANDWIDTH_PROBE_GAIN: f64 = 1.25;
const BANDWIDTH_PROBE_ROUNDS: u32 = 2;
const BANDWIDTH_PROBE_INTERVAL_ROUNDS: u32 = 8;
const PROBED_RATE: f64 = 1.1;

/// Whatever is left of the queue after a probe, beyond a sixteenth, is somebody else's.
const PROBED_QUEUE_SHARE: u32 = 16;

/// A quarter a round until it has lost twice; a TCP that joins doubles until it first does.
const SEEKING_GROWTH: f64 = 0.25;

/// While we compete, a path's own delay stays within a sixteenth.
const PATH_RTT_SHARE: u32 = 16;

/// As BBR's first version; its later ones take 5 s, which we take when competing.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const COMPETING_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Three quarters of the path: empties our own queue and makes room for one of as many others.
const PROBE_GAIN: f64 = 0.75;
const PROBE_ROUNDS: u32 = 2;
