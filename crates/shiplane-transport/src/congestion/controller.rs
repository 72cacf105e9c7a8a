//! The controller: its inputs, its start-up, and its repeated probes of the path. See the [module](super) for
//! the idea.

use std::time::{Duration, Instant};

use super::{
    cubic::Cubic,
    path::{Path, SLACK},
    phase::{Phase, QueueHistory, Queued, Resume},
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
    pub(super) window: u64,
    max_window: u64,
    pub(super) phase: Phase,
    pub(super) path: Path,
    pub(super) startup: StartupHistory,
    /// For this number of further rounds, other flows count as having had the path first.
    pub(super) newcomer_rounds: u32,
    /// Whether those that we compete with let the queue overflow all the time, and yield to nothing.
    pub(super) others_persist: bool,
    /// Losses of packets sent before this have been answered.
    pub(super) cut_at: Instant,
    pub(super) probed_at: Instant,
    /// How much of the least window the path has been seen to hold.
    least_allowance: f64,
    in_flight: u64,
    /// Of the current acknowledgement.
    ack: AckInProgress,
}

/// What became of earlier start-ups.
#[derive(Debug, Clone)]
pub(super) struct StartupHistory {
    /// Rounds without a queue before we try again.
    pub(super) patience: u32,
    /// The rate when we last did.
    pub(super) rate_before: f64,
    /// Whether the last one ended with losses.
    spilled: bool,
    /// Whether the first flight has shown what the bottleneck carries.
    jumped: bool,
    /// With which window we had competed before it.
    competed: u64,
}

#[derive(Debug, Clone, Default)]
struct AckInProgress {
    newest_sent_at: Option<Instant>,
    bytes: u64,
    busy_bytes: u64,
}

impl Controller {
    /// At the start of a connection. `max_window` is what a side may have in flight.
    pub(super) fn new(now: Instant, mtu: u16, max_window: u64) -> Self {
        Self {
            window: INITIAL_WINDOW_BYTES.min(max_window),
            max_window,
            phase: Phase::startup(false),
            path: Path::new(now, mtu),
            startup: StartupHistory {
                patience: UNDERUTILIZED_ROUNDS,
                rate_before: 0.0,
                spilled: false,
                jumped: false,
                competed: 0,
            },
            newcomer_rounds: NEWCOMER_ROUNDS,
            others_persist: false,
            cut_at: now,
            probed_at: now,
            least_allowance: 1.0,
            in_flight: 0,
            ack: AckInProgress::default(),
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.path.mtu = mtu;
        self.set_window(self.window);
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if self.in_flight == 0 {
            // After a pause: the idle time is no part of a round.
            self.path.round = Round::new(now);
        }
    }

    pub(super) fn acked(&mut self, sent_at: Instant, bytes: u64, app_limited: bool) {
        self.path.round.acked(bytes, app_limited);
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
        self.path.acked(now, sent_at, ack.bytes);
        self.startup_jump();
        self.startup_ack(now, now.saturating_duration_since(sent_at), &ack);
        let round = &self.path.round;
        if sent_at >= round.started_at && round.length(now) >= SHORTEST_ROUND {
            self.round_end(now);
            self.path.round = Round::new(now);
        }
    }

    /// Packets were lost, the last of them sent at `sent_at`.
    pub(super) fn lost(&mut self, now: Instant, sent_at: Instant, lost_bytes: u64) {
        self.path.round.lost_bytes += lost_bytes;
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        if sent_at <= self.cut_at {
            return;
        }
        match self.phase {
            Phase::Startup { again, .. } => {
                if self.loses_more_than(if again { RESTART_LOSS_SHARE } else { STARTUP_LOSS_SHARE }) {
                    self.startup.spilled = true;
                    self.leave_startup(now, 1.0);
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
            self.leave_startup(now, 1.0);
        }
        self.cut_at = now;
        self.set_window((self.window as f64 * MARKED_BETA) as u64);
    }

    /// Persistent congestion (RFC 9002 section 7.6): restarts.
    pub(super) fn path_died(&mut self, now: Instant) {
        self.phase = Phase::startup(false);
        self.set_window(INITIAL_WINDOW_BYTES);
        self.cut_at = now;
        self.startup.spilled = false;
        self.least_allowance = 1.0;
        self.path.set_rate(0.0);
    }

    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window.max(self.least_window()).min(self.max_window);
    }

    /// Never less.
    pub(super) fn least_window(&self) -> u64 {
        let bytes = MIN_WINDOW_BYTES as f64 * self.least_allowance;
        (MIN_WINDOW_SEGMENTS * u64::from(self.path.mtu)).max(bytes as u64)
    }

    /// Lowers the least window where it spills. Of so few packets any loss is chance for all else, and yet each is sent
    /// again, in one burst, which a queue shorter than that drops again.
    fn allow_least_window(&mut self) {
        if self.window <= self.least_window() && self.path.round.loss_share() > HEAVY_LOSS_SHARE {
            self.least_allowance = (self.least_allowance * LEAST_LEFT).max(MIN_LEAST_ALLOWANCE);
        }
    }

    pub(super) fn loses_more_than(&self, share: f64) -> bool {
        self.path.loses_more_than(share, self.window)
    }

    /// The bytes we want in the queue: √(window in segments), so that equal flows end up equal.
    pub(super) fn share_bytes(&self) -> f64 {
        let window = self.window as f64;
        let share = SHARE * (window * f64::from(self.path.mtu)).sqrt();
        let capacity = self.path.dispersion.last_rate().unwrap_or_default();
        let product = capacity * self.path.base_rtt().as_secs_f64();
        let most = (window * window.max(product)).sqrt() * MAX_SHARE;
        share.min(most) * self.path.queue_allowance
    }

    /// The window that fills the path.
    pub(super) fn filling_bytes(&self) -> f64 {
        self.path.holds_bytes() + self.share_bytes()
    }

    fn round_end(&mut self, now: Instant) {
        let round = &self.path.round;
        let (busy, turnover_rate, delivery_rate) =
            (round.is_busy(), round.turnover_rate(now), round.delivery_rate(now));
        let heavy_loss = self.loses_more_than(HEAVY_LOSS_SHARE);
        if busy && !matches!(self.phase, Phase::ProbeRtt { .. }) {
            match (heavy_loss, &self.phase) {
                (false, _) => self.path.push_rate(turnover_rate),
                // What was lost is a round late, and so is what arrives beside it.
                (true, Phase::Cruise { heavy_loss: Some(_), .. }) => {}
                // What comes of too much is the path's rate.
                (true, _) => self.path.set_rate(delivery_rate),
            }
            self.path.push_spread();
            self.allow_least_window();
        }
        match &self.phase {
            Phase::Startup { .. } if busy => self.startup_round(now),
            Phase::Cruise { .. } if busy => self.cruise_round(heavy_loss, now),
            Phase::Compete { .. } if busy => self.compete_round(now),
            Phase::ProbeRtt { .. } => self.probe_rtt_round(now),
            Phase::Startup { .. } | Phase::Cruise { .. } | Phase::Compete { .. } => {}
        }
        self.probe_rtt_if_due(now);
    }
}

/// Starting.
impl Controller {
    fn startup_round(&mut self, now: Instant) {
        let rate = self.path.last_rate();
        let Phase::Startup { best_rate, flat_rounds, .. } = &mut self.phase else { return };
        if rate >= *best_rate * PLATEAU_GROWTH {
            (*best_rate, *flat_rounds) = (rate, 0);
            return;
        }
        *flat_rounds += 1;
        if *flat_rounds >= PLATEAU_ROUNDS {
            self.leave_startup(now, 1.0);
        }
    }

    /// Grows, unless what is in flight stays far behind the window; leaves once a queue has stood for a
    /// while. One late burst is no queue.
    fn startup_ack(&mut self, now: Instant, rtt: Duration, ack: &AckInProgress) {
        let base = self.path.base_rtt();
        let Phase::Startup { again, queued, .. } = &mut self.phase else { return };
        let again = *again;
        if rtt <= base + SLACK + (base / STARTUP_QUEUE_SHARE).min(STARTUP_QUEUE_MAX) {
            *queued = None;
            if (self.in_flight + ack.bytes) * FILLED_SHARE >= self.window {
                let growth = self.startup_growth(again, now);
                self.set_window(self.window + (ack.busy_bytes as f64 * growth) as u64);
            }
            return;
        }
        let queued = queued.get_or_insert(Queued { since: now, acks: 0, bytes: 0 });
        let secs = now.saturating_duration_since(queued.since).as_secs_f64();
        if queued.acks > 0 {
            queued.bytes += ack.bytes;
        }
        queued.acks += 1;
        if queued.acks >= STARTUP_QUEUED_ACKS && secs > (base / STARTUP_QUEUED_SHARE).as_secs_f64() {
            let rate = queued.bytes as f64 / secs.max(1e-6);
            self.path.push_rate(rate.max(self.path.last_rate()));
            self.leave_startup(now, DRAIN_GAIN);
        }
    }

    /// Goes at once to where [`startup_growth`](Self::startup_growth) would go with the rest of the first flight, as soon
    /// as some of its bursts agree on how much the bottleneck carries: a short file is then through a round earlier.
    fn startup_jump(&mut self) {
        if !matches!(self.phase, Phase::Startup { again: false, .. })
            || self.startup.spilled
            || self.startup.jumped
        {
            return;
        }
        if let Some(capacity) = self.path.least_capacity() {
            self.startup.jumped = true;
            let far_bytes = (capacity * self.path.base_rtt().as_secs_f64() * JUMP_SHARE) as u64;
            self.set_window(self.window.max(far_bytes.min(INITIAL_WINDOW_BYTES * JUMP)));
        }
    }

    /// What the window grows by for each byte that is acknowledged: much while the bottleneck is known to carry
    /// much more, little where the window is about to fill it or did spill before.
    fn startup_growth(&self, again: bool, now: Instant) -> f64 {
        if self.startup.spilled {
            return NEAR_GROWTH;
        }
        let filled = |capacity: f64| self.window as f64 / (capacity * self.path.base_rtt().as_secs_f64());
        match (self.path.capacity(now).map(filled), again) {
            (Some(..FAR_SHARE), false) => FAR_GROWTH,
            (Some(..FAR_SHARE), true) => STARTUP_GROWTH,
            (_, true) => RESTART_GROWTH,
            (None | Some(..NEAR_SHARE), false) => STARTUP_GROWTH,
            (Some(_), false) => NEAR_GROWTH,
        }
    }

    /// The best rate so far is the path's: what is in flight beyond it will drain, over a few rounds.
    fn leave_startup(&mut self, now: Instant, gain: f64) {
        let startup = &mut self.startup;
        // What was spilled proves no faster path.
        if !startup.spilled && self.path.rate() > startup.rate_before * PLATEAU_GROWTH {
            startup.patience = UNDERUTILIZED_ROUNDS;
        }
        startup.patience = startup.patience.min(MAX_PATIENCE_ROUNDS);
        self.phase = Phase::cruise(std::mem::take(&mut startup.competed));
        self.cut_at = now;
        self.set_window(((self.filling_bytes() * gain) as u64).min(self.window));
    }

    /// The path carries more than we use.
    pub(super) fn start_again(&mut self) {
        self.startup.rate_before = self.path.rate();
        self.startup.patience *= 2;
        if let Phase::Cruise { others, .. } = &self.phase {
            self.startup.competed = others.competed;
        }
        self.phase = Phase::startup(true);
    }
}

/// Looking at the path without our queue.
impl Controller {
    fn probe_rtt_if_due(&mut self, now: Instant) {
        let (due, competing) = match &self.phase {
            Phase::Cruise { .. } => (PROBE_INTERVAL, None),
            Phase::Compete { curve, history, .. } => {
                (COMPETING_PROBE_INTERVAL, Some((curve.clone(), history.clone())))
            }
            Phase::Startup { .. } | Phase::ProbeRtt { .. } => return,
        };
        if self.path.base_age(now).is_some_and(|age| age > due) && self.probed_at + due < now {
            self.begin_probe_rtt(now, competing);
        }
    }

    pub(super) fn begin_probe_rtt(&mut self, now: Instant, competing: Option<(Cubic, QueueHistory)>) {
        self.probed_at = now;
        self.cut_at = now;
        let from = Resume { window: self.window, competing };
        self.phase = Phase::ProbeRtt { rounds: 0, from };
        self.set_window(((self.path.product_bytes() * PROBE_GAIN) as u64).min(self.window));
    }

    /// The first round drains, the second one is measured; while we compete the third, since another flow of ours follows
    /// a round later.
    fn probe_rtt_round(&mut self, now: Instant) {
        let Phase::ProbeRtt { rounds, from } = &mut self.phase else { return };
        *rounds += 1;
        if *rounds < PROBE_ROUNDS + u32::from(from.competing.is_some()) {
            return;
        }
        let Resume { window, competing } = from.clone();
        let Some(least) = self.path.round.min_rtt else { return };
        // A delay that never moved is the path's own, unless its queue overflows.
        let persist = self.others_persist;
        let competing = competing.filter(|(_, history)| persist || history.has_moved());
        let has_competed = competing.is_some();
        if let Some((curve, history)) = competing
            && least > self.path.base_rtt() + SLACK
        {
            self.set_window(window);
            self.phase = Phase::compete(curve, QueueHistory { last: least, ..history }, 0.0);
            return;
        }
        if has_competed {
            // Rates that others left us while they looked are not ours.
            self.path.set_rate(self.path.least_rate());
        } else {
            self.path.set_base_rtt(now, least);
        }
        // The others may have gone, or be about to fill the queue again.
        self.phase = Phase::cruise(if has_competed { window } else { 0 });
        self.set_window(window.min(self.filling_bytes() as u64));
    }
}

/// 96 KiB, which the pacer spreads over a round trip: 1 MB then takes three flights. A queue of 300 ms at 1 Mbit/s
/// spills some forty packets of it, once. An MTU probe of 9 KB leaves room for everything else.
const INITIAL_WINDOW_BYTES: u64 = 96 * 1024;

/// Four segments: loss is found by the three packets after it (RFC 9002 section 6.1.1).
const MIN_WINDOW_SEGMENTS: u64 = 4;

/// 24 KiB: an MTU probe of 9 KB must not stop everything else.
const MIN_WINDOW_BYTES: u64 = 24 * 1024;

/// Each round that spills the least window halves it, down to a quarter. It stays so: MTU probes, for which it is, belong
/// to a connection's first seconds.
const LEAST_LEFT: f64 = 0.5;
const MIN_LEAST_ALLOWANCE: f64 = 0.25;

/// 5 ms. On a path shorter than that, a round trip holds what came in one batch, and its rate is that of the
/// batch, several times the path's.
const SHORTEST_ROUND: Duration = Duration::from_millis(5);

/// Times √(window in segments), in segments: 7 % of the window at 200 Mbit/s and 50 ms, 3 % at 500 Mbit/s
/// and 100 ms.
const SHARE: f64 = 2.0;

/// A sixth: below 144 segments the root would keep a queue that looks like somebody else's. Of a path that others have most
/// of, more: were it the same for all, no flow would ever give up what it has.
const MAX_SHARE: f64 = 1.0 / 6.0;

/// Three rounds without our own queue: the path has become faster. Then we start up again, half as fast. Each
/// time in vain doubles the patience, so that a path too short of queue to show one is seldom flooded.
pub(super) const UNDERUTILIZED_ROUNDS: u32 = 3;
const MAX_PATIENCE_ROUNDS: u32 = 48;
const RESTART_GROWTH: f64 = 0.5;

/// The window grows while at least a third of it is in flight.
const FILLED_SHARE: u64 = 3;

/// Doubling (RFC 9002 section 7.3.1), where nothing is known of the bottleneck. ...
const STARTUP_GROWTH: f64 = 1.0;

/// ... Below two fifths of its product eight times as much a round, which the pacer makes five; from nine tenths on a
/// quarter more (RFC 9406 section 4.3), so that nothing is spilled.
const FAR_GROWTH: f64 = 7.0;
const FAR_SHARE: f64 = 0.4;
const JUMP: u64 = 1 + FAR_GROWTH as u64;

/// A fifth: other flows may already fill the path.
const JUMP_SHARE: f64 = 0.2;
const NEAR_GROWTH: f64 = 0.25;
const NEAR_SHARE: f64 = 0.9;

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

/// A fifth of a round lost at start-up is an overflow: random loss is hardly ever that heavy, and doubling into a
/// policer soon loses half. A path that was full before is given up sooner.
const STARTUP_LOSS_SHARE: f64 = 0.2;
const RESTART_LOSS_SHARE: f64 = 0.06;

/// From a 25th on, loss is answered even without a queue: a policer or a very short queue.
const HEAVY_LOSS_SHARE: f64 = 0.04;

/// RFC 8511: a mark tells of a shorter queue than a loss.
const MARKED_BETA: f64 = 0.85;

/// A flow that meets others in its first rounds of cruising has no share yet, and seeks one.
const NEWCOMER_ROUNDS: u32 = 96;

/// As BBR's first version; its later ones take 5 s, which we take when competing.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const COMPETING_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Three quarters of the path: empties our own queue and makes room for one of as many others.
const PROBE_GAIN: f64 = 0.75;
const PROBE_ROUNDS: u32 = 2;
