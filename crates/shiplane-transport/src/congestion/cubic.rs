//! CUBIC's window growth (RFC 9438) between two congestion events.

use std::time::{Duration, Instant};

/// One epoch of CUBIC: from a reduction on, the window as a function of time.
#[derive(Debug, Clone)]
pub(super) struct Cubic {
    started_at: Instant,
    /// The window at the start and before the reduction, in segments.
    start: f64,
    max: f64,
    /// Seconds until the window is back at `max`.
    k: f64,
}

impl Cubic {
    /// The epoch that begins with `window_bytes`, reduced from `max_bytes`.
    pub(super) fn new(now: Instant, window_bytes: u64, max_bytes: u64, mtu: u16) -> Self {
        let segment = f64::from(mtu);
        let (start, max) = (window_bytes as f64 / segment, max_bytes.max(window_bytes) as f64 / segment);
        // RFC 9438 section 4.2.
        Self { started_at: now, start, max, k: ((max - start) / C).cbrt() }
    }

    /// The epoch after this one, reduced from `before_bytes`. A flow that did not get back to its maximum aims lower, and
    /// leaves the rest to newer flows (RFC 9438 section 4.7).
    pub(super) fn reduced(&self, now: Instant, window_bytes: u64, before_bytes: u64, mtu: u16) -> Self {
        let fell_short = (before_bytes as f64) < self.max * f64::from(mtu);
        let aim = if fell_short { before_bytes as f64 * (1.0 + BETA) / 2.0 } else { before_bytes as f64 };
        Self::new(now, window_bytes, aim as u64, mtu)
    }

    /// The window of this moment. `rtt` is the current round trip.
    pub(super) fn window_bytes(&self, now: Instant, rtt: Duration, mtu: u16) -> u64 {
        let t = now.saturating_duration_since(self.started_at).as_secs_f64();
        let cubic = C * (t - self.k).powi(3) + self.max;
        // RFC 9438 section 4.3: never slower than Reno would be.
        let reno = self.start + RENO_SLOPE * t / rtt.as_secs_f64().max(1e-6);
        (cubic.max(reno) * f64::from(mtu)) as u64
    }
}

/// What remains of the window after a congestion event (RFC 9438 section 4.6).
pub(super) const BETA: f64 = 0.7;

/// RFC 9438 section 5.
const C: f64 = 0.4;

/// 3 (1 − β) / (1 + β), RFC 9438 section 4.3.
const RENO_SLOPE: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
