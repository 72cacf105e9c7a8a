//! The phases and what moves between them. See the [module](super) for the idea.

use std::time::{Duration, Instant};

use super::{
    base_rtt::BaseRtt,
    cubic::{BETA, Cubic},
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
    /// The share of packets lost while there was no queue.
    random_loss: f64,
    /// Losses of packets sent before this have been answered.
    cut_at: Instant,
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

#[derive(Debug, Clone)]
enum Phase {
    /// Grows by so many times the acknowledged bytes.
    Startup {
        growth: f64,
        best_rate: f64,
        flat_rounds: u32,
        queued: Option<Queued>,
    },
    Steer {
        roomy_rounds: u32,
        crowd: Crowd,
    },
    Compete {
        curve: Cubic,
    },
    Probe {
        rounds: u32,
        from: Resume,
    },
}

/// A queue seen at start-up: since when, in how many acknowledgements, and what they acknowledged.
#[derive(Debug, Clone)]
struct Queued {
    since: Instant,
    acks: u32,
    bytes: u64,
}

/// Rounds in a row with a queue that is not ours, and our window before we yielded to it.
#[derive(Debug, Clone, Default)]
struct Crowd {
    rounds: u32,
    window: u64,
}

/// What a probe interrupts.
#[derive(Debug, Clone)]
struct Resume {
    window: u64,
    was_competing: bool,
    /// The least round trip before the probe.
    rtt: Duration,
}

impl Steering {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        Self {
            window: INITIAL_WINDOW_BYTES,
            mtu,
            phase: startup(STARTUP_GROWTH),
            round: Round::new(now),
            base: None,
            rates: [0.0; RATE_ROUNDS],
            patience: ROOMY_ROUNDS,
            rate_before_startup: 0.0,
            random_loss: 0.0,
            cut_at: now,
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
        if sent_at >= self.round.started_at {
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
            Phase::Startup { .. } if self.loses_more_than(STARTUP_LOSS_SHARE) => self.leave_startup(now, 0.0),
            Phase::Compete { .. } if self.loses_more_than_random() => {
                let before = self.window;
                self.cut(now, BETA);
                let curve = Cubic::new(now, self.window, before, self.mtu);
                self.phase = Phase::Compete { curve };
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
            self.leave_startup(now, 0.0);
        }
        self.cut(now, MARKED_BETA);
    }

    /// Nothing has come through for several timeouts (RFC 9002 section 7.6): all over again.
    pub(super) fn path_died(&mut self, now: Instant) {
        self.phase = startup(STARTUP_GROWTH);
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
        rate * (self.base_rtt() + SLACK).as_secs_f64()
    }

    /// The bytes we want in the queue: √(window in segments), so that equal flows end up equal.
    fn share_bytes(&self) -> f64 {
        SHARE * (self.window as f64 * f64::from(self.mtu)).sqrt()
    }

    fn loses_more_than(&self, share: f64) -> bool {
        let few = (FEW_SEGMENTS * u64::from(self.mtu)) as f64;
        self.round.lost_bytes as f64 > (self.window as f64 * share).max(few)
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
            Phase::Compete { curve } => {
                let rtt = self.round.min_rtt.unwrap_or_default();
                let window = curve.window_bytes(now, rtt, self.mtu);
                if busy && self.cut_at < self.round.started_at {
                    // RFC 9438 section 4.2: at most one and a half in a round.
                    self.set_window(window.clamp(self.window, self.window + self.window / 2));
                }
            }
            Phase::Probe { .. } => self.probe_round(now),
            Phase::Steer { .. } => {}
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
            self.leave_startup(now, 0.0);
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
                self.leave_startup(now, rate);
            }
            return;
        }
        let grown = (ack.busy_bytes as f64 * *growth) as u64;
        if (self.in_flight + ack.bytes) * FILLED_SHARE >= self.window {
            self.set_window(self.window + grown);
        }
    }

    /// The best rate so far is the path's: what is in flight beyond it will drain.
    fn leave_startup(&mut self, now: Instant, rate: f64) {
        self.rates[0] = self.rates[0].max(rate);
        let rate = self.rate();
        if rate > self.rate_before_startup * PLATEAU_GROWTH {
            self.patience = ROOMY_ROUNDS;
        }
        self.patience = self.patience.min(MAX_ROOMY_ROUNDS);
        self.phase = steer();
        self.cut_at = now;
        let wanted = (self.path_holds(self.rate()) + self.share_bytes()) as u64;
        self.set_window(wanted.min(self.window));
    }

    fn steer_round(&mut self, heavy_loss: bool, now: Instant) {
        let queue = self.queue_delay();
        let share = self.share_bytes();
        let wanted_queue = SLACK + Duration::from_secs_f64(share / self.rate().max(1.0));
        let crowded = queue > wanted_queue * 2 + self.base_rtt() / CROWD_QUEUE_SHARE;
        if !crowded {
            self.random_loss += (self.round.loss_share() - self.random_loss) / RANDOM_LOSS_MEMORY;
        }
        let window = self.window;
        let Phase::Steer { roomy_rounds, crowd } = &mut self.phase else { return };
        let roomy = queue < wanted_queue / 2 && !heavy_loss;
        *roomy_rounds = if roomy { *roomy_rounds + 1 } else { 0 };
        if *roomy_rounds >= self.patience {
            (self.rate_before_startup, self.patience) = (self.rate(), self.patience * 2);
            self.phase = startup(RESTART_GROWTH);
            return;
        }
        if !crowded {
            crowd.rounds = 0;
        } else if crowd.rounds == 0 {
            *crowd = Crowd { rounds: 1, window };
        } else {
            crowd.rounds += 1;
        }
        if crowd.rounds >= CROWD_ROUNDS {
            let window = crowd.window;
            self.begin_competing(now, window);
            return;
        }
        let wanted = self.path_holds(self.rate()) + if heavy_loss { 0.0 } else { share };
        // Half-way each round: the rate is of a round ago.
        self.set_window(((window as f64 + wanted) / 2.0) as u64);
    }

    fn begin_competing(&mut self, now: Instant, window: u64) {
        self.set_window(window);
        let curve = Cubic::new(now, self.window, self.window, self.mtu);
        self.phase = Phase::Compete { curve };
    }

    fn probe_if_due(&mut self, now: Instant) {
        let Some(base) = &self.base else { return };
        let (due, was_competing) = match self.phase {
            Phase::Steer { .. } => (PROBE_INTERVAL, false),
            Phase::Compete { .. } => (COMPETING_PROBE_INTERVAL, true),
            Phase::Startup { .. } | Phase::Probe { .. } => return,
        };
        if base.age(now) > due && self.cut_at + due < now {
            let rtt = self.round.min_rtt.unwrap_or_else(|| base.get());
            let from = Resume { window: self.window, was_competing, rtt };
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
        let stands = least > base + base / CROWD_QUEUE_SHARE + SLACK;
        // A delay that did not move when we drained is the path's, not a queue's.
        let is_path = least + SLACK > from.rtt;
        if stands && from.was_competing && !is_path {
            self.begin_competing(now, from.window);
            return;
        }
        self.base = Some(BaseRtt::new(now, least));
        self.phase = steer();
        self.set_window(from.window);
    }
}

fn startup(growth: f64) -> Phase {
    Phase::Startup { growth, best_rate: 0.0, flat_rounds: 0, queued: None }
}

fn steer() -> Phase {
    Phase::Steer { roomy_rounds: 0, crowd: Crowd::default() }
}

/// 64 KiB: an MTU probe of 9 KB in flight leaves room for everything else.
const INITIAL_WINDOW_BYTES: u64 = 128 * 1024;

/// 10 Mbit/s, in bytes: a start by rate rather than by window spares long paths several round trips.
const START_RATE: f64 = 2.5e6;

/// Four segments: loss is found by the three packets after it (RFC 9002 section 6.1.1).
const MIN_WINDOW_SEGMENTS: u64 = 4;

/// 24 KiB: an MTU probe of 9 KB must not stop everything else.
const MIN_WINDOW_BYTES: u64 = 24 * 1024;

/// 1 GiB: quinn stops pacing above 4 GiB; no path needs as much.
const MAX_WINDOW_BYTES: u64 = 1 << 30;

/// 2 ms: quinn's pacer sends in bursts of up to this long, and timers are no better. It is also what
/// lets loopback run ahead of its round trip of microseconds.
const SLACK: Duration = Duration::from_millis(2);

/// Times √(window in segments), in segments: 7 % of the window at 200 Mbit/s and 50 ms, 3 % at 500 Mbit/s
/// and 100 ms.
const SHARE: f64 = 2.0;

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

/// A tenth of a round lost at start-up is an overflow; random loss is not that heavy.
const STARTUP_LOSS_SHARE: f64 = 0.1;

/// From a 25th on, loss is answered even without a queue: a policer or a very short queue.
const HEAVY_LOSS_SHARE: f64 = 0.04;

/// Of so few, any share is chance.
const FEW_SEGMENTS: u64 = 8;

/// RFC 8511: a mark tells of a shorter queue than a loss.
const MARKED_BETA: f64 = 0.85;

/// A queue of a quarter of the base RTT beyond our own, for four rounds, is somebody else's.
const CROWD_QUEUE_SHARE: u32 = 4;
const CROWD_ROUNDS: u32 = 4;

/// Rounds that random loss is averaged over.
const RANDOM_LOSS_MEMORY: f64 = 16.0;

/// As BBR's first version; its later ones take 5 s, which we take when competing.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const COMPETING_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Three quarters of the path: empties our own queue and makes room for one of as many others.
const PROBE_GAIN: f64 = 0.75;
const PROBE_ROUNDS: u32 = 2;
