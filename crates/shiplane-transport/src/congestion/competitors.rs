//! Competing senders for tests on a modelled [path](super::path_model).

use std::time::{Duration, Instant};

use testlink::Rng;

use super::{
    cubic::{BETA, Cubic},
    path_model::{MTU, Packet},
};

/// TCP as the kernel has it by default: RFC 9438, every loss is congestion, slow start ends at a queue.
pub(super) struct CubicSender {
    window: u64,
    /// None in slow start.
    curve: Option<Cubic>,
    cut_at: Instant,
    min_rtt: Duration,
    /// In slow start: when this round began, how many acknowledgements it has seen, and the least round trip of its first.
    round_at: Instant,
    round_acks: u32,
    round_rtt: Duration,
}

impl CubicSender {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: 10 * MTU,
            curve: None,
            cut_at: now,
            min_rtt: Duration::MAX,
            round_at: now,
            round_acks: 0,
            round_rtt: Duration::MAX,
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window
    }

    pub(super) fn acked(&mut self, now: Instant, rtt: Duration) {
        self.min_rtt = self.min_rtt.min(rtt);
        if let Some(curve) = &self.curve {
            let wanted = curve.window_bytes(now, rtt, MTU as u16);
            // A segment at most for each that arrives.
            self.window = wanted.clamp(self.window, self.window + MTU);
            return;
        }
        self.window += MTU;
        if now - rtt >= self.round_at {
            (self.round_at, self.round_acks, self.round_rtt) = (now, 0, Duration::MAX);
        }
        // HyStart, as Linux has it: the least of a round's first eight, an eighth above the path's, 4 to 16 ms.
        self.round_acks += 1;
        if self.round_acks <= 8 {
            self.round_rtt = self.round_rtt.min(rtt);
        }
        let most = (self.min_rtt / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
        if self.round_acks >= 8 && self.round_rtt > self.min_rtt + most && self.window > 16 * MTU {
            self.curve = Some(Cubic::new(now, self.window, self.window, MTU as u16));
        }
    }

    pub(super) fn lost(&mut self, now: Instant, sent_at: Instant) {
        if sent_at > self.cut_at || self.curve.is_none() {
            let before = self.window;
            self.window = ((before as f64 * BETA) as u64).max(2 * MTU);
            self.curve = Some(match &self.curve {
                Some(curve) => curve.reduced(now, self.window, before, MTU as u16),
                None => Cubic::new(now, self.window, before, MTU as u16),
            });
            self.cut_at = now;
        }
    }
}

/// BBR, first version, as Linux has it (draft-cardwell-iccrg-bbr-congestion-control-00).
pub(super) struct Bbr {
    phase: BbrPhase,
    window: u64,
    window_before_recovery: Option<u64>,
    recovery_ends_at_bytes: u64,
    /// The best rate of each of the last rounds, newest first.
    rates: [f64; 10],
    round_ends_at_bytes: u64,
    delivered_bytes: u64,
    min_rtt: Duration,
    min_rtt_at: Duration,
    full_rate: f64,
    flat_rounds: u32,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum BbrPhase {
    Startup,
    Drain,
    ProbeBandwidth { cycle: usize, since: Duration, lost: bool },
    ProbeRtt { until: Option<Duration> },
}

impl Bbr {
    pub(super) fn new(now: Duration, seed: u64) -> Self {
        Self {
            phase: BbrPhase::Startup,
            window: 10 * MTU,
            window_before_recovery: None,
            recovery_ends_at_bytes: 0,
            rates: [0.0; 10],
            round_ends_at_bytes: 0,
            delivered_bytes: 0,
            min_rtt: Duration::from_secs(10),
            min_rtt_at: now,
            full_rate: 0.0,
            flat_rounds: 0,
            rng: Rng::new(seed),
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window
    }

    pub(super) fn pacing_rate(&self) -> f64 {
        if self.rate() == 0.0 {
            return HIGH_GAIN * (10 * MTU) as f64 / 0.001;
        }
        let gain = match self.phase {
            BbrPhase::Startup => HIGH_GAIN,
            BbrPhase::Drain => 1.0 / HIGH_GAIN,
            BbrPhase::ProbeBandwidth { cycle, .. } => CYCLE[cycle],
            BbrPhase::ProbeRtt { .. } => 1.0,
        };
        0.99 * gain * self.rate()
    }

    pub(super) fn acked(&mut self, now: Duration, packet: Packet, delivered_bytes: u64, in_flight: u64) {
        self.delivered_bytes = delivered_bytes;
        let mut is_round_start = false;
        if packet.delivered_bytes >= self.round_ends_at_bytes {
            self.round_ends_at_bytes = delivered_bytes;
            self.rates.rotate_right(1);
            self.rates[0] = 0.0;
            is_round_start = true;
        }
        let elapsed = (now - packet.delivered_at).max(now - packet.sent_at).as_secs_f64().max(1e-6);
        let rate = (delivered_bytes - packet.delivered_bytes) as f64 / elapsed;
        self.rates[0] = self.rates[0].max(rate);
        self.observe_rtt(now, now - packet.sent_at);
        self.advance(now, in_flight, is_round_start);
        self.set_window(packet, in_flight);
    }

    pub(super) fn lost(&mut self, bytes: u64, in_flight: u64) {
        if let BbrPhase::ProbeBandwidth { lost, .. } = &mut self.phase {
            *lost = true;
        }
        if self.window_before_recovery.is_none() {
            // Packet conservation for the first round.
            self.window_before_recovery = Some(self.window);
            self.recovery_ends_at_bytes = self.delivered_bytes;
            self.window = in_flight + MTU;
        } else {
            self.window = self.window.saturating_sub(bytes).max(4 * MTU);
        }
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn product_bytes(&self, gain: f64) -> u64 {
        (self.rate() * self.min_rtt.as_secs_f64() * gain) as u64
    }

    fn observe_rtt(&mut self, now: Duration, rtt: Duration) {
        let expired = now > self.min_rtt_at + Duration::from_secs(10);
        if rtt <= self.min_rtt || expired {
            (self.min_rtt, self.min_rtt_at) = (rtt, now);
        }
        if expired && !matches!(self.phase, BbrPhase::ProbeRtt { .. }) {
            self.phase = BbrPhase::ProbeRtt { until: None };
        }
    }

    fn advance(&mut self, now: Duration, in_flight: u64, is_round_start: bool) {
        match self.phase {
            BbrPhase::Startup if is_round_start => {
                if self.rate() >= self.full_rate * 1.25 {
                    (self.full_rate, self.flat_rounds) = (self.rate(), 0);
                } else {
                    self.flat_rounds += 1;
                }
                if self.flat_rounds >= 3 {
                    self.phase = BbrPhase::Drain;
                }
            }
            BbrPhase::Startup => {}
            BbrPhase::Drain => {
                if in_flight <= self.product_bytes(1.0) {
                    self.begin_probing_bandwidth(now);
                }
            }
            BbrPhase::ProbeBandwidth { cycle, since, lost } => {
                let elapsed = now - since > self.min_rtt;
                let ends = match cycle {
                    0 => elapsed && (lost || in_flight >= self.product_bytes(1.25)),
                    1 => elapsed || in_flight <= self.product_bytes(1.0),
                    _ => elapsed,
                };
                if ends {
                    let cycle = (cycle + 1) % CYCLE.len();
                    self.phase = BbrPhase::ProbeBandwidth { cycle, since: now, lost: false };
                }
            }
            BbrPhase::ProbeRtt { until: None } => {
                if in_flight <= 4 * MTU {
                    self.phase = BbrPhase::ProbeRtt { until: Some(now + Duration::from_millis(200)) };
                }
            }
            BbrPhase::ProbeRtt { until: Some(until) } => {
                if now > until {
                    self.min_rtt_at = now;
                    if self.flat_rounds >= 3 {
                        self.begin_probing_bandwidth(now);
                    } else {
                        self.phase = BbrPhase::Startup;
                    }
                }
            }
        }
    }

    fn begin_probing_bandwidth(&mut self, now: Duration) {
        // Any but the draining one.
        let cycle = (2 + (self.rng.unit() * 7.0) as usize) % CYCLE.len();
        self.phase = BbrPhase::ProbeBandwidth { cycle, since: now, lost: false };
        self.window = self.window.max(self.product_bytes(2.0));
    }

    fn set_window(&mut self, packet: Packet, in_flight: u64) {
        if let Some(before) = self.window_before_recovery {
            if packet.delivered_bytes <= self.recovery_ends_at_bytes {
                self.window = self.window.max(in_flight + MTU);
            } else {
                self.window = self.window.max(before);
                self.window_before_recovery = None;
            }
        }
        let target = match self.phase {
            BbrPhase::Startup | BbrPhase::Drain => self.product_bytes(HIGH_GAIN),
            BbrPhase::ProbeBandwidth { .. } => self.product_bytes(2.0) + 3 * 2 * MTU,
            BbrPhase::ProbeRtt { .. } => 4 * MTU,
        };
        let grown = self.window + MTU;
        self.window = match self.phase {
            BbrPhase::Startup if self.flat_rounds < 3 => {
                if self.window < target || self.delivered_bytes < 10 * MTU { grown } else { self.window }
            }
            BbrPhase::ProbeRtt { .. } => self.window.min(target),
            BbrPhase::Startup | BbrPhase::Drain | BbrPhase::ProbeBandwidth { .. } => grown.min(target),
        };
        self.window = self.window.max(4 * MTU);
    }
}

/// 2 / ln 2.
const HIGH_GAIN: f64 = 2.885;

const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
