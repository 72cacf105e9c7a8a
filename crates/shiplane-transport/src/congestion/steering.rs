//! The phases and what moves between them. See the [module](super) for the idea.

use std::time::{Duration, Instant};

use super::{
    base_rtt::BaseRtt,
    cubic::{BETA, Cubic},
    phase::{Lift, Phase, Queued, Resume, RttRange},
    round::Round,
};

/// Finds and holds the window that fills the path. Sans-IO: time is an argument, and the caller's loop is
///
/// 1. [`sent`](Self::sent) after a burst has left,
/// 2. [`acked`](Self::acked) for each packet of an acknowledgement, then [`acks_end`](Self::acks_end),
/// 3. [`lost`](Self::lost), [`marked`](Self::marked) or [`path_died`](Self::path_died) for what it reveals,
/// 4. never more than [`window_bytes`](Self::window_bytes) in flight.
#[derive(Debug, Clone)]
pub(super) struct Steering {
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
    /// How much of the queue that we would keep the path has been seen to hold.
    room: f64,
    /// The share of packets lost while there was no queue.
    random_loss: f64,
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

impl Steering {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        Self {
            window: INITIAL_WINDOW_BYTES,
            mtu,
            phase: Phase::startup(STARTUP_GROWTH),
            round: Round::new(now),
            base: None,
            rates: [0.0; RATE_ROUNDS],
            patience: ROOMY_ROUNDS,
            rate_before_startup: 0.0,
            newcomer_rounds: NEWCOMER_ROUNDS,
            room: 1.0,
            random_loss: 0.0,
            cut_at: now,
            probed_at: now,
            in_flight: 0,
            ack: AckInProgress::default(),
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window
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
            Phase::Startup { .. } if self.loses_more_than(STARTUP_LOSS_SHARE) => {
                self.leave_startup(now, None)
            }
            Phase::Compete { .. } if self.loses_more_than_random() => {
                self.cut_as_cubic(now);
            }
            Phase::Startup { .. } | Phase::Steer { .. } | Phase::Compete { .. } | Phase::Probe { .. } => {}
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
        self.phase = Phase::startup(STARTUP_GROWTH);
        self.set_window(INITIAL_WINDOW_BYTES);
        self.cut_at = now;
        self.rates = [0.0; RATE_ROUNDS];
    }
}

/// Measuring.
impl Steering {
    fn observe_rtt(&mut self, now: Instant, rtt: Duration) {
        self.round.observe_rtt(rtt);
        match &mut self.base {
            Some(base) => base.observe(now, rtt),
            None => {
                self.base = Some(BaseRtt::new(now, rtt));
                let start = (START_RATE * rtt.as_secs_f64()) as u64;
                self.set_window(self.window.max(start));
            }
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
        rate * (self.base_rtt() + self.slack(rate).mul_f64(self.room)).as_secs_f64()
    }

    /// A queue that is none: timers and batches make up for as much.
    fn slack(&self, rate: f64) -> Duration {
        let batches = Duration::from_secs_f64(BATCHED_BYTES / rate.max(BATCHED_BYTES));
        (self.base_rtt() / SLACK_SHARE).max(batches).clamp(LEAST_SLACK, SLACK)
    }

    /// The bytes we want in the queue: √(window in segments), so that equal flows end up equal.
    fn share_bytes(&self) -> f64 {
        let window = self.window as f64;
        (SHARE * (window * f64::from(self.mtu)).sqrt()).min(window * MAX_SHARE) * self.room
    }

    fn loses_more_than(&self, share: f64) -> bool {
        let few = (FEW_SEGMENTS * u64::from(self.mtu)) as f64;
        // A window is what an ordinary round turns over; one of the shortest may turn over many.
        let turned_over = (self.round.acked_bytes + self.round.lost_bytes).max(self.window);
        self.round.lost_bytes as f64 > (turned_over as f64 * share).max(few)
    }

    /// Three deviations above what the path loses without a queue.
    fn loses_more_than_random(&self) -> bool {
        let segments = |bytes: u64| bytes as f64 / f64::from(self.mtu);
        let expected = self.random_loss * segments(self.window);
        segments(self.round.lost_bytes) > expected + 3.0 * expected.sqrt()
    }
}

/// Moving the window.
impl Steering {
    fn set_window(&mut self, window: u64) {
        let least = (MIN_WINDOW_SEGMENTS * u64::from(self.mtu)).max(MIN_WINDOW_BYTES);
        self.window = window.clamp(least, MAX_WINDOW_BYTES);
    }

    fn cut(&mut self, now: Instant, factor: f64) {
        self.cut_at = now;
        self.set_window((self.window as f64 * factor) as u64);
    }

    fn cut_as_cubic(&mut self, now: Instant) {
        let before = self.window;
        self.cut(now, BETA);
        let next = Cubic::new(now, self.window, before, self.mtu);
        if let Phase::Compete { curve, seeking, .. } = &mut self.phase {
            (*curve, *seeking) = (next, seeking.saturating_sub(1));
        }
    }

    fn round_end(&mut self, now: Instant) {
        let busy = self.round.is_busy();
        let heavy_loss = self.loses_more_than(HEAVY_LOSS_SHARE);
        let draining = matches!(self.phase, Phase::Probe { .. });
        if busy && !draining {
            if heavy_loss {
                self.rates = [self.round.delivery_rate(now); RATE_ROUNDS];
            } else {
                self.rates.rotate_right(1);
                self.rates[0] = self.round.turnover_rate(now);
            }
        }
        match &self.phase {
            Phase::Startup { .. } => self.startup_round(now),
            Phase::Steer { .. } if busy => self.steer_round(heavy_loss, now),
            Phase::Compete { .. } if busy => self.compete_round(now),
            Phase::Probe { .. } => self.probe_round(now),
            Phase::Steer { .. } | Phase::Compete { .. } => {}
        }
        self.probe_if_due(now);
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
        let Phase::Startup { growth, queued, .. } = &mut self.phase else { return };
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
        let grown = (ack.busy_bytes as f64 * *growth) as u64;
        if (self.in_flight + ack.bytes) * FILLED_SHARE >= self.window {
            self.set_window(self.window + grown);
        }
    }

    /// The best rate so far is the path's: what is in flight beyond it will drain, over a few rounds.
    fn leave_startup(&mut self, now: Instant, queued_rate: Option<f64>) {
        self.rates[0] = self.rates[0].max(queued_rate.unwrap_or(0.0));
        let rate = self.rate();
        if rate > self.rate_before_startup * PLATEAU_GROWTH {
            self.patience = ROOMY_ROUNDS;
        }
        self.patience = self.patience.min(MAX_ROOMY_ROUNDS);
        self.phase = Phase::steer();
        self.cut_at = now;
        let wanted =
            (self.path_holds(self.rate()) + self.share_bytes()) * queued_rate.map_or(1.0, |_| DRAIN_GAIN);
        self.set_window((wanted as u64).min(self.window));
    }

    fn steer_round(&mut self, heavy_loss: bool, now: Instant) {
        let queue = self.queue_delay();
        self.find_room(heavy_loss, now);
        let share = self.share_bytes();
        let wanted_queue = self.slack(self.rate()).mul_f64(self.room)
            + Duration::from_secs_f64(share / self.rate().max(1.0));
        let base = self.base_rtt();
        let crowded = queue > SLACK * 2 + base / CROWD_QUEUE_SHARE;
        if !crowded {
            self.random_loss += (self.round.loss_share() - self.random_loss) / RANDOM_LOSS_MEMORY;
        }
        let window = self.window;
        if self.newcomer_rounds > 0 && self.lift_round(now) {
            return;
        }
        let Phase::Steer { roomy_rounds, .. } = &mut self.phase else { return };
        let roomy = queue < wanted_queue / 2 && !heavy_loss;
        *roomy_rounds = if roomy { *roomy_rounds + 1 } else { 0 };
        if *roomy_rounds >= self.patience {
            (self.rate_before_startup, self.patience) = (self.rate(), self.patience * 2);
            self.phase = Phase::startup(RESTART_GROWTH);
            return;
        }
        let wanted = self.path_holds(self.rate()) + if heavy_loss { 0.0 } else { share };
        let Phase::Steer { crowd, .. } = &mut self.phase else { return };
        // What we have too much of ourselves proves nothing.
        let drained = window as f64 <= wanted * DRAINED;
        crowd.rounds = if crowded && drained { crowd.rounds + 1 } else { 0 };
        if queue <= wanted_queue || !drained || crowd.window == 0 {
            crowd.window = window;
        }
        let yielded = (window as f64) < crowd.window as f64 * YIELDED_SHARE
            && queue > SLACK * 2 + base / YIELDED_QUEUE_SHARE;
        if crowd.rounds >= CROWD_ROUNDS || yielded {
            let window = crowd.window;
            self.begin_competing(now, window);
            return;
        }
        // Half-way each round: the rate is of a round ago.
        self.set_window(((window as f64 + wanted) / 2.0) as u64);
    }

    /// Keeps less of a queue where the router drops it. What overflowed before the last answer was answered.
    fn find_room(&mut self, heavy_loss: bool, now: Instant) {
        if !heavy_loss {
            self.room = (self.room + ROOM_REGAINED).min(1.0);
        } else if self.round.started_at >= self.cut_at + self.round.length(now) {
            self.room = (self.room * ROOM_LEFT).max(MIN_ROOM);
            self.cut_at = now;
        }
    }

    /// Tells a newcomer whether the queue that it meets is its own, though it never saw the path without
    /// one. True while the window is lifted.
    fn lift_round(&mut self, now: Instant) -> bool {
        let (window, rate) = (self.window, self.rate());
        let Phase::Steer { lift, .. } = &mut self.phase else { return false };
        let Some(lifted) = lift else {
            self.newcomer_rounds -= 1;
            let is_due = self.newcomer_rounds.is_multiple_of(LIFT_INTERVAL_ROUNDS);
            if is_due {
                *lift = Some(Lift { rounds: 0, window, rate });
                self.set_window((window as f64 * LIFT) as u64);
            }
            return is_due;
        };
        lifted.rounds += 1;
        if lifted.rounds < LIFT_ROUNDS {
            return true;
        }
        let (before, follows) = (lifted.window, self.rates[0] > lifted.rate * LIFTED_RATE);
        *lift = None;
        if follows {
            self.begin_competing(now, window);
        } else {
            self.set_window(before);
        }
        true
    }

    fn begin_competing(&mut self, now: Instant, window: u64) {
        self.set_window(window);
        self.probed_at = now;
        let curve = Cubic::new(now, self.window, self.window, self.mtu);
        let rtt = self.round.min_rtt.unwrap_or_default();
        let rtts = RttRange { least: rtt, most: rtt };
        let is_newcomer = std::mem::take(&mut self.newcomer_rounds) > 0;
        let seeking = if is_newcomer { SEEKING_CUTS } else { 0 };
        self.phase = Phase::Compete { curve, seeking, rtts, free_rounds: 0 };
    }

    fn compete_round(&mut self, now: Instant) {
        let (window, cut_at, mtu) = (self.window, self.cut_at, self.mtu);
        let rtt = self.round.min_rtt.unwrap_or_default();
        let free = self.queue_delay() <= SLACK;
        let Phase::Compete { curve, seeking, rtts, free_rounds } = &mut self.phase else { return };
        rtts.least = rtts.least.min(rtt);
        rtts.most = rtts.most.max(rtt);
        *free_rounds = if free { *free_rounds + 1 } else { 0 };
        if *free_rounds >= ROOMY_ROUNDS {
            self.phase = Phase::steer();
            return;
        }
        if cut_at >= self.round.started_at {
            return;
        }
        if *seeking > 0 {
            let grown = window + (window as f64 * SEEKING_GROWTH) as u64;
            *curve = Cubic::new(now, grown, grown, mtu);
            self.set_window(grown);
        } else {
            // RFC 9438 section 4.2: at most one and a half in a round.
            let wanted = curve.window_bytes(now, rtt, mtu);
            self.set_window(wanted.clamp(window, window + window / 2));
        }
    }

    fn probe_if_due(&mut self, now: Instant) {
        let Some(base) = &self.base else { return };
        let (due, competing) = match &self.phase {
            Phase::Steer { .. } => (PROBE_INTERVAL, None),
            Phase::Compete { curve, rtts, .. } => {
                (COMPETING_PROBE_INTERVAL, Some((curve.clone(), rtts.clone())))
            }
            Phase::Startup { .. } | Phase::Probe { .. } => return,
        };
        if base.age(now) > due && self.probed_at + due < now {
            self.probed_at = now;
            let from = Resume { window: self.window, competing };
            self.phase = Phase::Probe { rounds: 0, from };
            self.cut_at = now;
            let drained = self.rate() * self.base_rtt().as_secs_f64() * PROBE_GAIN;
            self.set_window((drained as u64).min(self.window));
        }
    }

    /// The first round drains, the second one is measured.
    fn probe_round(&mut self, now: Instant) {
        let Phase::Probe { rounds, from } = &mut self.phase else { return };
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
            self.phase = Phase::Compete { curve, seeking: 0, rtts, free_rounds: 0 };
            return;
        }
        // Drained, or a delay that never moved: the path's own.
        self.base = Some(BaseRtt::new(now, least));
        self.phase = Phase::steer();
        self.set_window(from.window);
    }
}

/// 128 KiB: the pacer spreads it over a round trip, and an MTU probe of 9 KB leaves room for everything else.
const INITIAL_WINDOW_BYTES: u64 = 128 * 1024;

/// 60 Mbit/s, in bytes: a start by rate rather than by window spares long paths several round trips. What it
/// spills of the queue of a path of 10 Mbit/s is some two hundred packets, once.
const START_RATE: f64 = 7.5e6;

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
const ROOM_LEFT: f64 = 0.5;
const ROOM_REGAINED: f64 = 1.0 / 64.0;
const MIN_ROOM: f64 = 1.0 / 32.0;

/// Three rounds without our own queue: the path has become faster. Then we grow again, half as fast. Each
/// time in vain doubles the patience, so that a path too short of queue to show one is seldom flooded.
const ROOMY_ROUNDS: u32 = 3;
const MAX_ROOMY_ROUNDS: u32 = 48;
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
const STARTUP_LOSS_SHARE: f64 = 0.1;

/// From a 25th on, loss is answered even without a queue: a policer or a very short queue.
const HEAVY_LOSS_SHARE: f64 = 0.04;

/// Of so few, any share is chance.
const FEW_SEGMENTS: u64 = 8;

/// RFC 8511: a mark tells of a shorter queue than a loss.
const MARKED_BETA: f64 = 0.85;

/// A queue of a quarter of the base RTT for eight rounds is somebody else's, ...
const CROWD_QUEUE_SHARE: u32 = 4;
const CROWD_ROUNDS: u32 = 8;

/// ... and so is one of an eighth that stays while we yield a quarter of our window.
const YIELDED_SHARE: f64 = 0.75;
const YIELDED_QUEUE_SHARE: u32 = 8;

/// Within a quarter of what we want, we have drained our own queue.
const DRAINED: f64 = 1.25;

/// A flow that meets others in its first rounds of steering has no share yet, and seeks one.
const NEWCOMER_ROUNDS: u32 = 64;

/// A quarter more, as BBR probes, for two rounds of ten: the first brings it about. With less than half of
/// the path, the rate follows by a tenth.
const LIFT: f64 = 1.25;
const LIFT_ROUNDS: u32 = 2;
const LIFT_INTERVAL_ROUNDS: u32 = 8;
const LIFTED_RATE: f64 = 1.1;

/// Whatever is left of the queue after a probe, beyond a sixteenth, is somebody else's.
const PROBED_QUEUE_SHARE: u32 = 16;

/// A quarter a round until it has lost twice; a TCP that joins doubles until it first does.
const SEEKING_CUTS: u32 = 2;
const SEEKING_GROWTH: f64 = 0.25;

/// While we compete, a path's own delay stays within a sixteenth.
const PATH_RTT_SHARE: u32 = 16;

/// Rounds that random loss is averaged over.
const RANDOM_LOSS_MEMORY: f64 = 16.0;

/// As BBR's first version; its later ones take 5 s, which we take when competing.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const COMPETING_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Three quarters of the path: empties our own queue and makes room for one of as many others.
const PROBE_GAIN: f64 = 0.75;
const PROBE_ROUNDS: u32 = 2;
