//! The measurements of one round trip: rate, loss and delay.

use std::time::{Duration, Instant};

/// From one acknowledgement until that of a packet sent after it.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) started_at: Instant,
    pub(super) acked_bytes: u64,
    pub(super) lost_bytes: u64,
    /// Acknowledged while the application kept the path busy.
    busy_bytes: u64,
    pub(super) min_rtt: Option<Duration>,
    rtt_sum: Duration,
    rtt_count: u32,
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started_at: now,
            acked_bytes: 0,
            lost_bytes: 0,
            busy_bytes: 0,
            min_rtt: None,
            rtt_sum: Duration::ZERO,
            rtt_count: 0,
        }
    }

    pub(super) fn acked(&mut self, bytes: u64, app_limited: bool) {
        self.acked_bytes += bytes;
        if !app_limited {
            self.busy_bytes += bytes;
        }
    }

    pub(super) fn observe_rtt(&mut self, rtt: Duration) {
        self.min_rtt = Some(self.min_rtt.map_or(rtt, |min| min.min(rtt)));
        self.rtt_sum += rtt;
        self.rtt_count += 1;
    }

    /// How far the mean round trip was above the least one.
    pub(super) fn rtt_spread(&self) -> Duration {
        let mean = self.rtt_sum / self.rtt_count.max(1);
        self.min_rtt.map_or(Duration::ZERO, |min| mean.saturating_sub(min))
    }

    /// Whether the window, not the application, set the pace.
    pub(super) fn is_busy(&self) -> bool {
        self.busy_bytes * 2 > self.acked_bytes
    }

    pub(super) fn loss_share(&self) -> f64 {
        let turned_over = self.acked_bytes + self.lost_bytes;
        if turned_over == 0 { 0.0 } else { self.lost_bytes as f64 / turned_over as f64 }
    }

    /// Bytes a second that arrived.
    pub(super) fn delivery_rate(&self, now: Instant) -> f64 {
        self.acked_bytes as f64 / self.elapsed_secs(now)
    }

    /// Bytes a second that left the path, arrived or lost: what it carries when losses are random.
    pub(super) fn turnover_rate(&self, now: Instant) -> f64 {
        (self.acked_bytes + self.lost_bytes) as f64 / self.elapsed_secs(now)
    }

    /// How long it has lasted.
    pub(super) fn length(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started_at)
    }

    fn elapsed_secs(&self, now: Instant) -> f64 {
        self.length(now).as_secs_f64().max(SHORTEST_ROUND_SECS)
    }
}

/// A microsecond keeps the division finite; no real round is shorter.
const SHORTEST_ROUND_SECS: f64 = 1e-6;
