//! The window of packets in a byte stream. The TCP connection below reacts to congestion and loses nothing; excess data waits in
//! pipes and buffers, where it delays calls.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Twice what the stream delivers in its shortest round trip, and a little more, for each round anew: it doubles until the
/// stream carries no more, and the queue stays as short as that is.
#[derive(Debug, Clone)]
pub(super) struct StreamWindow {
    window_bytes: u64,
    max_bytes: u64,
    shortest_rtt: Duration,
    round: Option<Round>,
}

/// Makes the windows of connections.
pub(super) struct StreamWindows {
    pub(super) max_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    began_at: Instant,
    acked_bytes: u64,
    /// Whether there was less to send than the window.
    is_unfilled: bool,
}

impl StreamWindow {
    fn new(max_bytes: u64) -> Self {
        let window_bytes = FIRST_BYTES.min(max_bytes);
        Self { window_bytes, max_bytes, shortest_rtt: Duration::MAX, round: None }
    }

    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, is_unfilled: bool) {
        self.shortest_rtt = self.shortest_rtt.min(now.saturating_duration_since(sent));
        let begins = Round { began_at: now, acked_bytes: 0, is_unfilled: false };
        match &mut self.round {
            // What comes now was sent before.
            None => self.round = Some(begins),
            Some(round) => {
                round.acked_bytes += bytes;
                round.is_unfilled |= is_unfilled;
            }
        }
    }

    fn acks_end(&mut self, now: Instant) {
        let Some(round) = self.round else { return };
        let took = now.saturating_duration_since(round.began_at);
        if took < self.shortest_rtt.max(SHORTEST_ROUND) {
            return;
        }
        let delivered_bytes = round.acked_bytes as f64 * self.shortest_rtt.as_secs_f64() / took.as_secs_f64();
        let wanted_bytes = ((2.0 * delivered_bytes) as u64).saturating_add(FIRST_BYTES).min(self.max_bytes);
        if wanted_bytes > self.window_bytes || !round.is_unfilled {
            self.window_bytes = wanted_bytes;
        }
        self.round = Some(Round { began_at: now, acked_bytes: 0, is_unfilled: false });
    }
}

impl ControllerFactory for StreamWindows {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(StreamWindow::new(self.max_bytes))
    }
}

impl Controller for StreamWindow {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _rtt: &RttEstimator) {
        self.acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.acks_end(now);
    }

    /// Nothing is lost in a stream; what is late is only late.
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        self.window_bytes
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST_BYTES.min(self.max_bytes)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// 256 KiB: four of the longest packets, and no more than a cut may cost on a slow path.
const FIRST_BYTES: u64 = 256 << 10;

/// 10 ms: several packets.
const SHORTEST_ROUND: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MAX_BYTES: u64 = 4 << 20;
    const PACKET_BYTES: u64 = 64 << 10;

    /// The window after this number of seconds of a stream that always has more to carry, and what it has carried.
    fn after(rate_bytes: f64, rtt: Duration, seconds: u64) -> (u64, u64) {
        let began_at = Instant::now();
        let mut control = StreamWindow::new(MAX_BYTES);
        let (mut now, mut free_at, mut carried) = (began_at, began_at, 0);
        let mut under_way: VecDeque<(Instant, Instant)> = VecDeque::new();
        while now < began_at + Duration::from_secs(seconds) {
            while (under_way.len() as u64 + 1) * PACKET_BYTES <= control.window() {
                free_at = free_at.max(now) + Duration::from_secs_f64(PACKET_BYTES as f64 / rate_bytes);
                under_way.push_back((now, free_at + rtt));
            }
            let (sent, acked) = under_way.pop_front().unwrap();
            now = acked;
            carried += PACKET_BYTES;
            control.acked(now, sent, PACKET_BYTES, false);
            control.acks_end(now);
        }
        (control.window(), carried)
    }

    #[test]
    fn a_fast_stream_is_filled_within_some_round_trips() {
        let rtt = Duration::from_millis(200);
        let (window, carried) = after(10e6, rtt, 10);
        assert!(window >= 2_000_000, "its product of rate and delay: {window}");
        assert!(carried >= 85_000_000, "of 100 MB: {carried}");
    }

    #[test]
    fn in_a_slow_stream_little_waits() {
        let (window, _) = after(125e3, Duration::from_millis(200), 60);
        assert!((FIRST_BYTES..FIRST_BYTES + 200_000).contains(&window), "{window}");
    }

    #[test]
    fn the_window_has_a_bound_and_stays_while_there_is_less_to_send() {
        let (window, _) = after(1e9, Duration::from_millis(200), 10);
        assert_eq!(window, MAX_BYTES);
        let (mut control, start, rtt) =
            (StreamWindow::new(MAX_BYTES), Instant::now(), Duration::from_millis(50));
        for round in 1..20 {
            let now = start + rtt * round;
            control.acked(now, now - rtt, 100, true);
            control.acks_end(now);
            assert!(control.window() < FIRST_BYTES + 1000, "{}", control.window());
        }
    }
}
